"""The engine does what a plain one does step by step.

Two things are the engine's own: an answer is found by others only when its sequence has left, and
a block that is computed anew is not kept twice. So no session here asks with another's answer, and
every prompt ends in text of its own. A sequence that has computed its last token is never preempted
by either.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.engine import Engine, Profile, Sequence
from tests.bench.engine.naive import NaiveEngine, Request
from tests.bench.engine.workloads import Ask, Event, Talk, drive, profiles, talks


def run_engine(profile: Profile, sessions: list[Talk], events: Collection[Event] = ()) -> Any:
    engine: Any = Engine(profile, on_end=lambda sequence: engine.told_end(sequence))
    return engine, drive(engine, Sequence, sessions, events)


def run_naive(profile: Profile, sessions: list[Talk], events: Collection[Event] = ()) -> Any:
    engine: Any = NaiveEngine(profile, on_end=lambda request: engine.told_end(request))
    return engine, drive(engine, Request, sessions, events)


def close(seconds: float | None) -> Any:
    return None if seconds is None else pytest.approx(seconds, rel=1e-9, abs=1e-9)


def assert_same(ours: Any, plain: Any) -> None:
    engine, sequences = ours
    naive, requests = plain
    assert len(sequences) == len(requests)
    for number, (sequence, request) in enumerate(zip(sequences, requests, strict=True)):
        assert sequence.state == request.state, number
        assert sequence.arrived_s == close(request.arrived_s), number
        assert sequence.first_token_s == close(request.first_token_s), number
        assert sequence.finished_s == close(request.finished_s), number
        assert sequence.preemptions == request.preemptions, number
        assert sequence.cached_tokens == (request.cached_tokens or 0), number
    assert engine.books.steps == naive.steps


def talk(prefix: int, *turns: tuple[int, int, float]) -> Talk:
    return Talk(prefix, tuple(Ask(*turn) for turn in turns))


CROWDED = Profile(
    name="crowded",
    step_s=0.0,
    sequence_s=0.0,
    weights_s=0.00731,
    token_s=2.17e-05,
    attention_s=0.0,
    context_s=0.0,
    request_s=0.0,
    request_token_s=0.0,
    kv_tokens=373,
    max_num_seqs=2,
    max_num_batched_tokens=8,
)
# Preempted and back in the very next step: it ends when it would have ended without.
BACK_AT_ONCE = [
    talk(1, (1, 1, 0.0001)),
    talk(0, (46, 4, 0.0), (1, 7, 0.0)),
    talk(1, (33, 55, 0.0), (58, 39, 0.0)),
    talk(0, (47, 5, 0.0), (38, 32, 0.0)),
    talk(0, (37, 7, 0.0)),
    talk(0, (1, 19, 0.0)),
    talk(0, (68, 1, 0.0)),
    talk(3, (22, 14, 0.0), (20, 53, 0.0)),
]
# Two are admitted while four need blocks: the first takes what the second would have found.
FOUND_NO_MORE = [
    talk(0, (1, 1, 0.0)),
    talk(0, (7, 27, 0.0)),
    talk(0, (7, 27, 0.0)),
    talk(1, (39, 27, 0.0)),
    talk(2, (31, 27, 0.0)),
    talk(3, (1, 25, 0.0)),
    talk(0, (1, 23, 0.0)),
    talk(0, (1, 1, 0.0)),
    talk(3, (1, 1, 0.0)),
]
ROOMIER = msgspec.structs.replace(
    CROWDED, request_s=0.00713, kv_tokens=437, max_num_seqs=6, max_num_batched_tokens=512
)


@settings(max_examples=150)
@example(CROWDED, BACK_AT_ONCE)
@example(ROOMIER, FOUND_NO_MORE)
@given(profiles(), talks())
def test_same_times_blocks_and_preemptions(profile: Profile, sessions: list[Talk]) -> None:
    """Random sessions give the same times, cached tokens, preemptions and number of steps."""
    assert_same(run_engine(profile, sessions), run_naive(profile, sessions))


kinds = st.sampled_from(("abort", "abort", "abort", "slow_down", "stall", "crash"))
happenings = st.lists(st.builds(Event, st.floats(0, 2), kinds, st.integers(0, 11)), max_size=8)


@settings(max_examples=150)
@given(profiles(), talks(), happenings)
def test_same_whatever_happens(profile: Profile, sessions: list[Talk], events: list[Event]) -> None:
    """The same with clients that leave and faults at any time."""
    assert_same(run_engine(profile, sessions, events), run_naive(profile, sessions, events))
