"""Coding-agent sessions in a closed loop."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.workload.data import bundled
from bench.workload.lines import BadLine
from bench.workload.model import Prompt, Session, prompt_tokens
from bench.workload.reuse import reuse
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.weka import WekaOptions, weka

APART = WekaOptions(shared_share=0)


def line(reqs: list[Any], **fields: Any) -> str:
    usual = {"id": "a", "block_size": 64, "tool_tokens": 0, "system_tokens": 0, "model": "m"}
    return json.dumps(usual | fields | {"reqs": reqs})


def read(
    tmp_path: Path,
    *lines: str,
    options: TraceOptions | None = None,
    fitted: WekaOptions = APART,
) -> list[Session]:
    trace = tmp_path / "weka.jsonl"
    trace.write_text("\n".join(lines))
    workload = weka(trace, options, fitted)
    made = list(workload.sessions)
    assert list(workload.sessions) == made
    return made


def common(one: Prompt, other: Prompt) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += left.tokens
    return length


def test_a_turn_keeps_blocks_of_the_one_before_and_adds_its_own(tmp_path: Path) -> None:
    """Exactly the kept blocks are common, even where they end inside a stretch."""
    [session] = read(
        tmp_path,
        line(
            [
                [0.0, 650, 7, 0.0, 1.0, 0, [[1, 10]]],
                [9.0, 900, 8, 5.0, 1.0, 10, [[11, 4]]],
                [20.0, 700, 9, 6.0, 1.0, 6, [[50, 4]]],
            ]
        ),
    )
    prompts = [turn.prompt for turn in session.turns]
    assert [prompt_tokens(prompt) for prompt in prompts] == [650, 900, 700]
    assert common(prompts[0], prompts[1]) == 640
    assert common(prompts[1], prompts[2]) == common(prompts[0], prompts[2]) == 384
    assert [turn.output_tokens for turn in session.turns] == [7, 8, 9]
    assert all(turn.due_s is None for turn in session.turns)


def test_think_times_are_capped_scaled_and_made_up_for_if_missing(tmp_path: Path) -> None:
    """Without one it is the time from the answer before to the request."""
    blocks = [[1, 1]]
    [session] = read(
        tmp_path,
        line(
            [
                [0.0, 64, 1, 3.0, 1.0, 0, blocks],
                [9.0, 64, 1, 500.0, 2.0, 1, []],
                [21.0, 64, 1, None, 1.0, 1, []],
            ]
        ),
        options=TraceOptions(speedup=2),
    )
    assert [turn.delay_s for turn in session.turns] == [0.0, 30.0, 5.0]


def test_what_does_not_fit_is_left_out_and_long_answers_are_cut(tmp_path: Path) -> None:
    """Requests above the context, and sessions in which none fits."""
    made = read(
        tmp_path,
        line(
            [
                [0.0, 640, 5000, 0.0, 1.0, 0, [[1, 10]]],
                [9.0, 6400, 1, 1.0, 1.0, 10, [[11, 90]]],
                [20.0, 704, 0, 1.0, 1.0, 10, [[200, 1]]],
            ]
        ),
        line([[0.0, 6400, 1, 0.0, 1.0, 0, [[1, 100]]]], id="b"),
        fitted=WekaOptions(shared_share=0, max_context_tokens=3000),
    )
    assert [len(session.turns) for session in made] == [2]
    first, second = made[0].turns
    assert (first.output_tokens, second.output_tokens) == (2000, 1)
    assert common(first.prompt, second.prompt) == 640


def test_sessions_share_a_part_of_their_tool_and_system_prompt(tmp_path: Path) -> None:
    """Three quarters, in steps of 1,024 tokens; everything else is their own."""
    reqs = [[0.0, 6400, 1, 0.0, 1.0, 0, [[1, 100]]]]
    lines = (
        line(reqs, tool_tokens=3000, system_tokens=1100),
        line(reqs, id="b", tool_tokens=1500, system_tokens=500),
    )
    one, other = read(tmp_path, *lines, fitted=WekaOptions())
    assert prompt_tokens(one.turns[0].prompt) == prompt_tokens(other.turns[0].prompt) == 6400
    assert common(one.turns[0].prompt, other.turns[0].prompt) == 1024
    assert [s.tokens for s in one.turns[0].prompt if s.role == "system"] == [1024] * 3
    one, other = read(tmp_path, *lines)
    assert common(one.turns[0].prompt, other.turns[0].prompt) == 0


def test_sub_agents_share_blocks_with_their_family(tmp_path: Path) -> None:
    """Ids mean the same in a session and its sub-agents, and nothing elsewhere."""
    reqs = [[0.0, 640, 1, 0.0, 1.0, 0, [[1, 10]]]]
    parent, child, stranger = read(
        tmp_path,
        line(reqs),
        line([[0.0, 256, 1, 0.0, 1.0, 0, [[1, 4]]]], id="a/1", parent="a"),
        line(reqs, id="b"),
    )
    assert common(parent.turns[0].prompt, child.turns[0].prompt) == 256
    assert common(parent.turns[0].prompt, stranger.turns[0].prompt) == 0
    assert parent.tenant == child.tenant == "a"


@pytest.mark.parametrize(
    ("reqs", "reason"),
    [
        ([[0.0, 640, 1, 0.0, 1.0, 5, [[1, 5]]]], "request 0 keeps 5 blocks of the 0"),
        ([[0.0, 63, 1, 0.0, 1.0, 0, [[1, 1]]]], "63 input tokens, 1 output tokens and 1 blocks"),
        ([[0.0, 64, -1, 0.0, 1.0, 0, [[1, 1]]]], "-1 output tokens"),
        ([[0.0, 64, 1, 0.0, 1.0, 0, [[1, -1]]]], "request 0 keeps"),
        ([[0.0, 64]], "Expected `array` of length 7"),
    ],
)
def test_a_malformed_session_is_named_or_skipped(
    tmp_path: Path, reqs: list[Any], reason: str
) -> None:
    """By file, line and request."""
    good = line([[0.0, 64, 1, 0.0, 1.0, 0, [[1, 1]]]], id="good")
    with pytest.raises(BadLine, match=rf"weka\.jsonl:2: .*{reason}"):
        read(tmp_path, good, line(reqs))
    assert len(read(tmp_path, good, line(reqs), options=TraceOptions(bad_lines="skip"))) == 1


def test_offsets_mean_nothing_in_a_closed_loop() -> None:
    """Asking for them is an error, not silently ignored."""
    with pytest.raises(ValueError, match="no offsets"):
        weka(bundled("coding-agent"), TraceOptions(start_offset_s=1))


@pytest.mark.slow
def test_the_trace_has_its_published_reuse_within_sessions() -> None:
    """96.3 % of all input tokens, over all 49,334 requests."""
    whole = WekaOptions(shared_share=0, max_context_tokens=10**9)
    found = reuse(weka(bundled("coding-agent"), None, whole))
    assert found.requests == 49_334
    assert found.share == pytest.approx(0.963, abs=0.0005)


def test_fitted_sessions_stay_in_their_limits() -> None:
    """Contexts, think times and answers of the first sessions; equal keys have equal lengths."""
    tokens: dict[int, int] = {}
    sessions = list(weka(bundled("coding-agent"), TraceOptions(limit=20)).sessions)
    assert len(sessions) == 20
    for session in sessions:
        for turn in session.turns:
            assert prompt_tokens(turn.prompt) + turn.output_tokens <= 131_072
            assert turn.output_tokens <= 2000
            assert 0 <= turn.delay_s <= 60
            for segment in turn.prompt:
                assert tokens.setdefault(segment.key, segment.tokens) == segment.tokens
                assert 1 <= segment.tokens <= 8192
    grown = [
        prompt_tokens(later.prompt) > prompt_tokens(earlier.prompt)
        for session in sessions
        for earlier, later in pairwise(session.turns)
    ]
    assert sum(grown) / len(grown) > 0.95
