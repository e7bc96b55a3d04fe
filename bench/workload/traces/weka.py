"""Coding-agent sessions in a closed loop: a turn is sent when its think time after the answer ends.

One session a line, as derived from the WEKA traces (github.com/callanjfox/kv-cache-tester):
`reqs` lists for each request [stamp s, input tokens, output tokens, think s, API s, kept blocks,
[[first new block id, count], ...]]; its prompt is the kept blocks of the request above, then the
new ones, then less than a block. A sub-agent is a line with `parent`, after that of its parent,
with whom it shares block ids.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

import msgspec

from bench.workload.lines import Source, parsed_lines
from bench.workload.model import Prompt, Replayable, Segment, Session, Turn, Workload, segment_key
from bench.workload.traces.options import TraceOptions

__all__ = ["WekaOptions", "weka"]

_SHARED_STEP_TOKENS = 1024
"""The common beginning of all sessions is cut into segments of this length, and each session has a
whole number of them."""
_LONGEST_SEGMENT_BLOCKS = 128
"""8,192 tokens, so that rendering a segment never holds the event loop for long."""


class WekaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the recorded sessions are fitted to a self-hosted model."""

    max_context_tokens: int = 131_072
    """Requests with more input and output than this are left out; half a million is usual in the
    recorded sessions, and the usual context of self-hosted models is 128 Ki."""
    max_think_s: float = 60.0
    """Longer pauses are cut to it: the median is 10 s, but people also go to lunch."""
    max_output_tokens: int = 2000
    """Longer answers are cut to it."""
    shared_share: float = 0.75
    """Part of the tool and system prompt that is the same for all sessions. The trace's ids are
    local to a session, so it does not say; 0: sessions share nothing."""
    users: int | None = None
    """Sessions at once."""


class _Line(msgspec.Struct):
    id: str
    block_size: int
    tool_tokens: int
    system_tokens: int
    reqs: list[tuple[float, int, int, float | None, float | None, int, list[tuple[int, int]]]]
    parent: str | None = None


Runs = tuple[tuple[int, int], ...]
"""Stretches of consecutive block ids: (first, count)."""


class _Request(NamedTuple):
    shared_tokens: int
    """The beginning that all sessions have."""
    runs: Runs
    """The blocks after it."""
    rest_tokens: int
    """What fills no block."""
    output_tokens: int
    think_s: float


def weka(
    source: Source, options: TraceOptions | None = None, weka_options: WekaOptions | None = None
) -> Workload:
    """The recorded sessions, sub-agents as sessions of their own, in a closed loop.

    `options.limit` counts sessions. The trace has no common clock, so offsets mean nothing here.

    Raises:
        ValueError: an offset or jitter is asked for.
    """
    chosen, fitted = options or TraceOptions(), weka_options or WekaOptions()
    if chosen.start_offset_s or chosen.end_offset_s is not None or chosen.jitter_s:
        raise ValueError(f"{source.name}: a closed-loop trace has no offsets and no jitter")

    def sessions() -> Iterator[Session]:
        return islice(_sessions(source, chosen, fitted), chosen.limit)

    return Workload(
        name="weka",
        sessions=Replayable(sessions),
        concurrency=fitted.users,
        about=f"Coding-agent sessions of {source.name}: each turn follows the answer before it.",
    )


def _sessions(source: Source, options: TraceOptions, fitted: WekaOptions) -> Iterator[Session]:
    decode = msgspec.json.Decoder(_Line).decode

    def parse(text: bytes) -> _Line:
        return _checked(decode(text))

    lines = parsed_lines(
        source, parse, bad_lines=options.bad_lines, on_bad_line=options.on_bad_line
    )
    number = 0
    for family, members in groupby(lines, key=lambda line: line.parent or line.id):
        fitting = [(line, _fitting(line, fitted)) for line in members]
        blocks = _Blocks((options.namespace, family), [each for _, each in fitting])
        for line, requests in fitting:
            number += 1
            if requests:
                yield _session(number, line, requests, blocks, options)


def _checked(line: _Line) -> _Line:
    if line.block_size < 1 or min(line.tool_tokens, line.system_tokens) < 0:
        raise ValueError("block_size, tool_tokens and system_tokens must not be negative")
    above = 0
    for place, (_, asked, answered, _, _, kept, new) in enumerate(line.reqs):
        blocks = kept + sum(count for _, count in new)
        if not 0 <= kept <= above or any(count < 1 for _, count in new):
            raise ValueError(f"request {place} keeps {kept} blocks of the {above} above it")
        if asked < 1 or answered < 0 or blocks * line.block_size > asked:
            raise ValueError(
                f"request {place} has {asked} input tokens, {answered} output tokens and "
                f"{blocks} blocks of {line.block_size}"
            )
        above = blocks
    return line


def _fitting(line: _Line, fitted: WekaOptions) -> list[_Request]:
    fitting: list[_Request] = []
    runs: Runs = ()
    ended_s = 0.0
    for at_s, asked, answered, think_s, api_s, kept, new in line.reqs:
        runs = (*_first(runs, kept), *new)
        if think_s is None:
            think_s = at_s - ended_s
        ended_s = at_s + (api_s or 0.0)
        output_tokens = min(max(1, answered), fitted.max_output_tokens)
        if asked + output_tokens <= fitted.max_context_tokens:
            think_s = min(max(0.0, think_s), fitted.max_think_s) if fitting else 0.0
            fitting.append(_request(line, fitted, runs, asked, output_tokens, think_s))
    return fitting


def _request(
    line: _Line, fitted: WekaOptions, runs: Runs, asked: int, output_tokens: int, think_s: float
) -> _Request:
    step_blocks = max(1, _SHARED_STEP_TOKENS // line.block_size)
    blocks = sum(count for _, count in runs)
    alike = fitted.shared_share * (line.tool_tokens + line.system_tokens) / line.block_size
    shared_blocks = int(min(alike, blocks)) // step_blocks * step_blocks
    return _Request(
        shared_tokens=shared_blocks * line.block_size,
        runs=_after(runs, shared_blocks),
        rest_tokens=asked - blocks * line.block_size,
        output_tokens=output_tokens,
        think_s=think_s,
    )


def _first(runs: Runs, blocks: int) -> Runs:
    kept: list[tuple[int, int]] = []
    for start, count in runs:
        if blocks <= 0:
            break
        kept.append((start, min(count, blocks)))
        blocks -= count
    return tuple(kept)


def _after(runs: Runs, blocks: int) -> Runs:
    for place, (start, count) in enumerate(runs):
        if blocks < count:
            return ((start + blocks, count - blocks), *runs[place + 1 :])
        blocks -= count
    return ()


class _Blocks:
    """The block ids of a session and its sub-agents, as segments.

    A segment must be whole in every prompt it is in. So ids are cut wherever a stretch of any of
    the prompts begins or ends.
    """

    def __init__(self, family: tuple[str, str], sessions: Sequence[Sequence[_Request]]) -> None:
        self._family = family
        runs = {run for requests in sessions for request in requests for run in request.runs}
        cuts = {start + count for start, count in runs}
        for start, count in runs:
            cuts.update(range(start, start + count, _LONGEST_SEGMENT_BLOCKS))
        self._cuts = sorted(cuts)
        self._segments: dict[tuple[int, int], Prompt] = {}

    def segments(self, run: tuple[int, int], block_tokens: int) -> Prompt:
        """The segments of one stretch of ids."""
        known = self._segments.get(run)
        if known is None:
            known = self._segments[run] = tuple(self._cut(run, block_tokens))
        return known

    def _cut(self, run: tuple[int, int], block_tokens: int) -> Iterator[Segment]:
        start, end = run[0], run[0] + run[1]
        place = bisect_right(self._cuts, start)
        while start < end:
            following = self._cuts[place]
            yield Segment(
                segment_key("weka", *self._family, start), (following - start) * block_tokens
            )
            start, place = following, place + 1


def _session(
    number: int,
    line: _Line,
    requests: Sequence[_Request],
    blocks: _Blocks,
    options: TraceOptions,
) -> Session:
    beginning = _shared(options.namespace, "agent" if line.parent is None else "sub-agent", line)
    own = segment_key("weka", options.namespace, line.id)
    turns = tuple(
        Turn(
            prompt=_prompt(request, beginning, blocks, line.block_size, (own, place)),
            output_tokens=request.output_tokens,
            answer=segment_key("answer", own, place),
            delay_s=request.think_s / options.speedup,
        )
        for place, request in enumerate(requests)
    )
    return Session(id=number, turns=turns, tenant=line.parent or line.id)


def _shared(namespace: str, kind: str, line: _Line) -> Prompt:
    step_tokens = max(1, _SHARED_STEP_TOKENS // line.block_size) * line.block_size
    steps = (line.tool_tokens + line.system_tokens) // step_tokens
    return tuple(
        Segment(segment_key("weka", namespace, kind, step, step_tokens), step_tokens, "system")
        for step in range(steps)
    )


def _prompt(
    request: _Request,
    beginning: Prompt,
    blocks: _Blocks,
    block_tokens: int,
    place: tuple[int, int],
) -> Prompt:
    prompt: list[Segment] = []
    if request.shared_tokens:
        prompt += beginning[: request.shared_tokens // beginning[0].tokens]
    for run in request.runs:
        prompt += blocks.segments(run, block_tokens)
    if request.rest_tokens:
        prompt.append(Segment(segment_key("weka rest", *place), request.rest_tokens))
    return tuple(prompt)
