"""Recorded prompts: JSON lines in the shapes of GenAI-Perf and AIPerf, or plain text.

One line of JSON is one of
- `{"text": "..."}` (also `text_input`, `prompt`): a request;
- `{"messages": [{"role": ..., "content": ...}, ...]}`: a request with its history;
- `{"session_id": ..., "turns": [{"text": ...}, ...]}`: a conversation;
- any of the first two with `session_id`: a turn of a conversation, whose lines stand together.
Requests and turns may have `output_length` (also `max_tokens`, `max_completion_tokens`), `delay`
(ms, from the answer before) and `timestamp` (ms, when it is due). `input_length` without a text
asks for that many words. Of plain text each line is a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, groupby, islice
from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

from bench.workload.lines import BadLine, BadLines, Source, numbered_lines, parsed_lines
from bench.workload.model import (
    Prompt,
    Replayable,
    Role,
    Segment,
    Session,
    Turn,
    Workload,
    segment_key,
)
from bench.workload.text import BuiltinTokenizer, Tokenizer

__all__ = ["InputFileOptions", "input_file"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "tool": "user",
    "assistant": "assistant",
}


class InputFileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines leave open."""

    output_tokens: int = 128
    """For a request that does not say how long its answer should be."""
    limit: int | None = None
    """At most so many sessions; a single request is one."""
    session_delay_ratio: float = 1.0
    """Every delay is multiplied by it."""
    bad_lines: BadLines = "fail"
    on_bad_line: Callable[[BadLine], None] | None = None


class _Request(msgspec.Struct):
    text: str | list[str] | None = None
    text_input: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    input_length: int | None = None
    output_length: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    delay: float = 0.0
    timestamp: float | None = None
    role: str = "user"
    session_id: str | int | None = None


class _Line(_Request):
    turns: list[_Request] | None = None


class _Conversation(NamedTuple):
    """The turns of one line, and what binds them to those of other lines."""

    session: str | int
    turns: Sequence[_Request]


def input_file(
    source: Source, options: InputFileOptions | None = None, tokenizer: Tokenizer | None = None
) -> Workload:
    """The requests and conversations in `source`, in the order of the file, with their own texts.

    A conversation's later turns carry the history: the texts before and the answers really got.

    Raises:
        OSError: the file cannot be opened.
        BadLine: while iterating, for a malformed line.
    """
    chosen = options or InputFileOptions()
    counted = tokenizer or BuiltinTokenizer()

    def sessions() -> Iterator[Session]:
        return islice(_sessions(source, chosen, counted), chosen.limit)

    return Workload(
        name=PurePath(source.name).name.split(".")[0] or "input",
        sessions=Replayable(sessions),
        about=f"The prompts recorded in {source.name}.",
    )


def _sessions(source: Source, options: InputFileOptions, tokenizer: Tokenizer) -> Iterator[Session]:
    read = _plain_parser() if _is_plain(source) else _json_parser()
    lines = parsed_lines(source, read, bad_lines=options.bad_lines, on_bad_line=options.on_bad_line)
    for number, (_, together) in enumerate(groupby(lines, key=lambda line: line.session)):
        requests = [request for line in together for request in line.turns]
        yield _Composer(number, options, tokenizer).session(requests)


def _is_plain(source: Source) -> bool:
    suffixes = PurePath(source.name).suffixes
    if ".jsonl" in suffixes or ".json" in suffixes:
        return False
    first = next(numbered_lines(source), None)
    return first is None or not first[1].startswith(b"{")


def _plain_parser() -> Callable[[bytes], _Conversation]:
    numbers = count()
    return lambda line: _Conversation(next(numbers), (_Request(text=line.decode()),))


def _json_parser() -> Callable[[bytes], _Conversation]:
    decode = msgspec.json.Decoder(_Line).decode
    numbers = count()
    open_session: str | None = None
    ended: set[str] = set()
    last_ms = 0.0

    def parse(text: bytes) -> _Conversation:
        nonlocal open_session, last_ms
        line = decode(text)
        turns = [line] if line.turns is None else line.turns
        for turn in turns:
            _check(turn)
        if not any(turn.role != "system" for turn in turns):
            raise ValueError("a conversation needs a turn that is not a system prompt")
        named = None if line.session_id is None else f"session {line.session_id}"
        if named in ended:
            raise ValueError(f"{named} has ended above; its lines must stand together")
        if open_session is not None and open_session != named:
            ended.add(open_session)
        open_session = named
        last_ms = _not_before(last_ms, turns[0].timestamp)
        return _Conversation(next(numbers) if named is None else named, turns)

    return parse


def _not_before(last_ms: float, timestamp: float | None) -> float:
    if timestamp is None:
        return last_ms
    if timestamp < last_ms:
        raise ValueError(f"the timestamp {timestamp:g} lies before the {last_ms:g} above it")
    return timestamp


def _check(request: _Request) -> None:
    if not (_texts(request) or request.input_length or request.messages):
        raise ValueError("no text: it needs `text`, `text_input`, `messages` or `input_length`")
    for role, _ in _messages(request):
        if role not in _ROLES:
            raise ValueError(f"the role {role!r} is none of {', '.join(_ROLES)}")
    asked = _output_tokens(request)
    if (asked is not None and asked < 1) or (request.input_length or 1) < 1:
        raise ValueError("output_length and input_length must be 1 or more")
    if request.delay < 0:
        raise ValueError(f"the delay must not be negative: {request.delay}")


def _texts(request: _Request) -> list[str]:
    if isinstance(request.text, list):
        return [text for text in request.text if text]
    single = request.text or request.text_input or request.prompt
    return [single] if single else []


def _output_tokens(request: _Request) -> int | None:
    for asked in (request.output_length, request.max_tokens, request.max_completion_tokens):
        if asked is not None:
            return asked
    return None


def _messages(request: _Request) -> list[tuple[str, str]]:
    """Role and text of what the request adds to the conversation."""
    if request.messages is None:
        return [(request.role, text) for text in _texts(request)]
    return [(str(message.get("role")), _content(message)) for message in request.messages]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(content):
            return "\n".join(texts)
    raise ValueError("a message's content must be text, or a list of parts with text only")


class _Composer:
    """Builds one session: each turn's prompt is the history and what the turn adds."""

    def __init__(self, number: int, options: InputFileOptions, tokenizer: Tokenizer) -> None:
        self._number = number
        self._options = options
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def session(self, requests: Sequence[_Request]) -> Session:
        history: Prompt = ()
        turns: list[Turn] = []
        for place, request in enumerate(requests):
            history = (*history, *self._added(request, place))
            if request.role == "system" and request.messages is None:
                continue
            turn = self._turn(history, request, len(turns))
            turns.append(turn)
            history = (*history, Segment(turn.answer, turn.output_tokens, "assistant"))
        return Session(id=self._number, turns=tuple(turns), texts=self._texts)

    def _added(self, request: _Request, place: int) -> Iterator[Segment]:
        messages = _messages(request)
        for role, text in messages:
            yield self._segment(_ROLES[role], text)
        if request.input_length is not None and not messages:
            key = segment_key("input length", self._number, place, request.input_length)
            yield Segment(key, request.input_length, _ROLES[request.role])

    def _segment(self, role: Role, text: str) -> Segment:
        # The key is the text's: prompts that begin alike share their beginning.
        key = segment_key("text", role, text)
        self._texts[key] = text
        return Segment(key, max(1, self._tokenizer.count(text)), role)

    def _turn(self, prompt: Prompt, request: _Request, place: int) -> Turn:
        asked = _output_tokens(request)
        return Turn(
            prompt=prompt,
            output_tokens=self._options.output_tokens if asked is None else asked,
            answer=segment_key("input answer", self._number, place),
            due_s=None if request.timestamp is None else request.timestamp / 1000,
            delay_s=request.delay * self._options.session_delay_ratio / 1000,
        )
