"""Workloads made of workloads."""

from __future__ import annotations

import msgspec
import pytest

from bench.workload.mixing import only_tier, overlaid, repeated, stretched
from bench.workload.model import Segment, Session, Turn, Workload, segment_key


def workload(name: str, due: list[float | None], group: int = 0) -> Workload:
    sessions = [
        Session(
            id=number,
            turns=(
                Turn(
                    prompt=(Segment(segment_key(name, number), 1),),
                    output_tokens=1,
                    answer=0,
                    due_s=due_s,
                ),
            ),
            group=group,
            tenant=name,
        )
        for number, due_s in enumerate(due)
    ]
    return Workload(name=name, sessions=sessions)


def test_repeating_goes_round_with_new_numbers() -> None:
    """The same prompts again, each session with a number of its own."""
    again = repeated(workload("a", [None, None]), 5)
    made = list(again.sessions)
    assert [session.id for session in made] == [0, 1, 2, 3, 4]
    assert made[4].turns == made[2].turns == made[0].turns
    assert list(again.sessions) == made


def test_repeating_nothing_ends() -> None:
    """An empty file is not an endless loop."""
    assert list(repeated(workload("a", []), 5).sessions) == []


def test_overlaid_workloads_come_in_the_order_of_time() -> None:
    """Merged by due time, numbered anew, groups kept apart."""
    both = overlaid("both", [workload("a", [0.0, 3.0], group=1), workload("b", [1.0, 2.0], 1)])
    made = list(both.sessions)
    assert [session.turns[0].due_s for session in made] == [0.0, 1.0, 2.0, 3.0]
    assert [session.id for session in made] == [0, 1, 2, 3]
    assert made[0].group == made[3].group != made[1].group == made[2].group
    assert list(both.sessions) == made


def test_a_session_without_a_due_time_cannot_be_overlaid() -> None:
    """Closed loops have no common clock."""
    with pytest.raises(ValueError, match="a: session 0 has no due time"):
        list(overlaid("both", [workload("a", [None])]).sessions)


def test_one_tier_alone_comes_when_it_came() -> None:
    """Its sessions as they are, again and again."""
    mixed = workload("a", [0.0, 1.0, 2.0])
    tiers = ["batch", "interactive", "batch"]
    sessions = [
        msgspec.structs.replace(session, tier=tier)
        for session, tier in zip(mixed.sessions, tiers, strict=True)
    ]
    alone = only_tier(msgspec.structs.replace(mixed, sessions=sessions), "batch")
    assert list(alone.sessions) == [sessions[0], sessions[2]] == list(alone.sessions)


def test_stretching_keeps_what_is_shared() -> None:
    """Equal segments stay equal, answers grow with the turns that repeat them, nothing vanishes."""
    first = Turn(prompt=(Segment(1, 100), Segment(2, 1)), output_tokens=10, answer=3)
    second = Turn(prompt=(*first.prompt, Segment(3, 10)), output_tokens=1, answer=4, delay_s=2.0)
    made = Workload(name="a", sessions=[Session(id=1, turns=(first, second), texts={1: "x"})])
    [session] = stretched(made, 0.25).sessions
    assert [[segment.tokens for segment in turn.prompt] for turn in session.turns] == [
        [25, 1],
        [25, 1, 2],
    ]
    assert [turn.output_tokens for turn in session.turns] == [2, 1]
    assert session.turns[1].delay_s == 2.0
    assert session.texts == {}
