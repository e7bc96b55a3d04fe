"""Workloads by name."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest

from bench.workload.model import Session, Workload, prompt_tokens
from bench.workload.named import ABOUT, WORKLOADS, WorkloadOptions, named_workload
from bench.workload.reuse import reuse

CLOSED = {"multi-turn", "coding-agent"}
SMALL = 0.02


def small(name: str, **options: Any) -> Workload:
    return named_workload(name, WorkloadOptions(**{"scale": SMALL} | options))


def made(name: str, **options: Any) -> list[Session]:
    return list(small(name, **options).sessions)


def rate(sessions: list[Session]) -> float:
    due = [session.turns[0].due_s or 0.0 for session in sessions]
    return len({session.group or -session.id for session in sessions}) / max(due)


def test_every_workload_says_what_it_is() -> None:
    """A sentence and a name, the same in the registry and in what is made."""
    assert set(WORKLOADS) == set(ABOUT)
    for name in WORKLOADS:
        workload = small(name)
        assert workload.name == name
        assert workload.about == ABOUT[name]
        assert workload.about.endswith(".")


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_each_time_it_is_read(name: str) -> None:
    """Deterministic, numbered in the order of coming, each length 1 or more."""
    workload = small(name)
    first = list(islice(workload.sessions, 500))
    assert first == list(islice(small(name).sessions, 500))
    assert first == list(islice(workload.sessions, 500))
    assert [session.id for session in first] == list(range(len(first)))
    for session in first:
        assert session.turns
        for turn in session.turns:
            assert turn.output_tokens >= 1
            assert all(segment.tokens >= 1 for segment in turn.prompt)


@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - CLOSED))
def test_open_workloads_come_in_the_order_of_time(name: str) -> None:
    """Only first turns are due; later ones follow the answer."""
    workload = small(name)
    assert workload.concurrency is None
    due = []
    for session in islice(workload.sessions, 500):
        due.append(session.turns[0].due_s)
        assert all(turn.due_s is None for turn in session.turns[1:])
    assert None not in due
    assert due == sorted(due, key=float)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_key_is_one_text(name: str) -> None:
    """Same key, same length and role, over all sessions."""
    seen: dict[int, tuple[int, str]] = {}
    for session in islice(small(name).sessions, 300):
        for turn in session.turns:
            for segment in turn.prompt:
                text = (segment.tokens, segment.role)
                assert seen.setdefault(segment.key, text) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - CLOSED - {"fan-out"}))
def test_traffic_grows_with_the_replicas(name: str) -> None:
    """The rate per replica stays what was asked for."""
    for replicas in (2, 20):
        sessions = made(name, replicas=replicas, rate=5.0, scale=0.1)
        assert rate(sessions) / replicas == pytest.approx(5.0, rel=0.2)


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_closed_loops_grow_with_the_replicas(name: str) -> None:
    """As many sessions at once per replica, and more sessions in all."""
    few, many = small(name, replicas=2, scale=1), small(name, replicas=8, scale=1)
    assert few.concurrency is not None
    assert many.concurrency == 4 * few.concurrency
    assert small(name, replicas=3, rate=7.0).concurrency == 21
    assert sum(1 for _ in many.sessions) == 4 * sum(1 for _ in few.sessions)


def test_pace_multiplies_the_rate() -> None:
    """The workload's own, or the one asked for; nothing else changes."""
    usual, faster = (made("agent", pace=pace, scale=0.5 / pace) for pace in (1.0, 2.0))
    assert len(usual) == len(faster)
    assert rate(faster) == pytest.approx(2 * rate(usual))
    assert [len(session.turns) for session in usual] == [len(each.turns) for each in faster]
    assert small("multi-turn", replicas=3, rate=7.0, pace=2.0).concurrency == 42


def test_multi_turn_is_the_published_table() -> None:
    """60 conversations of 5 turns, 20 at once, 200 tokens in and 800 out on average."""
    workload = named_workload("multi-turn")
    sessions = list(workload.sessions)
    assert workload.concurrency == 20
    assert [len(session.turns) for session in sessions] == [5] * 60
    turns = [turn for session in sessions for turn in session.turns]
    asked = [turn.prompt[-1].tokens for turn in turns]
    assert sum(asked) / len(asked) == pytest.approx(200, rel=0.05)
    answered = [turn.output_tokens for turn in turns]
    assert sum(answered) / len(answered) == pytest.approx(800, rel=0.1)
    assert all(
        later.prompt[: len(earlier.prompt)] == earlier.prompt
        for session in sessions
        for earlier, later in pairwise(session.turns)
    )


def test_shared_prefix_has_64_prefixes_and_more_for_larger_fleets() -> None:
    """6,000 tokens each."""
    for replicas, prefixes in ((4, 64), (8, 128)):
        firsts = {s.turns[0].prompt[0] for s in made("shared-prefix", replicas=replicas, scale=0.3)}
        assert len(firsts) == prefixes
        assert {(first.tokens, first.role) for first in firsts} == {(6000, "system")}


def test_hot_prefix_has_one() -> None:
    """However many replicas there are."""
    assert len({s.turns[0].prompt[0] for s in made("hot-prefix", replicas=16)}) == 1


def test_cold_traffic_shares_nothing_and_has_a_heavy_tail() -> None:
    """The longest hundredth has a tenth of the tokens."""
    sessions = made("cold-heavy-tail", scale=1)
    assert reuse(sessions).reused_tokens == 0
    lengths = sorted(prompt_tokens(s.turns[0].prompt) for s in sessions)
    assert sum(lengths[-len(lengths) // 100 :]) > 0.08 * sum(lengths)
    assert lengths[-1] <= 32_768


def test_a_fan_out_begins_with_16_branches_at_once() -> None:
    """A group's sessions are due together and share their context, and only with each other."""
    sessions = made("fan-out", scale=0.1)
    groups: dict[int, list[Session]] = {}
    for session in sessions:
        groups.setdefault(session.group, []).append(session)
    assert 0 not in groups
    assert len(groups) == 30
    for branches in groups.values():
        assert len(branches) == 16
        assert len({branch.turns[0].due_s for branch in branches}) == 1
        assert len({branch.turns[0].prompt[0] for branch in branches}) == 1
        assert len({branch.turns[0].prompt[1] for branch in branches}) == 16
    assert len({branches[0].turns[0].prompt[0] for branches in groups.values()}) == 30


def test_mixed_tiers_are_one_interactive_to_six_batch() -> None:
    """In one stream; the rate asked for is that of both."""
    sessions = made("mixed-tiers", scale=0.5)
    interactive = sum(session.tier == "interactive" for session in sessions)
    batch = sum(session.tier == "batch" for session in sessions)
    assert interactive + batch == len(sessions)
    assert batch / interactive == pytest.approx(6, rel=0.2)


@pytest.mark.slow
def test_a_trace_is_laid_over_itself_for_large_fleets() -> None:
    """Copies are other people: the share of reused tokens does not grow with the fleet."""
    few = reuse(small("conversation", scale=0.05))
    many = reuse(small("conversation", replicas=256, scale=0.05))
    assert many.requests > 3 * few.requests
    assert many.share == pytest.approx(few.share, abs=0.01)


@pytest.mark.slow
def test_the_conversation_is_the_whole_trace() -> None:
    """At scale 1 every request of it."""
    assert reuse(named_workload("conversation")).requests == 12_031


@pytest.mark.slow
def test_tenants_are_skewed() -> None:
    """The largest client sends more than four times its share."""
    tenants = [session.tenant for session in made("skewed-tenants", scale=0.3)]
    largest = max(tenants.count(tenant) for tenant in set(tenants))
    assert largest / len(tenants) > 4 / len(set(tenants))


def test_an_unknown_name_is_refused() -> None:
    """With those that are known."""
    with pytest.raises(ValueError, match="'mutli-turn'; there are multi-turn"):
        named_workload("mutli-turn")


@pytest.mark.parametrize("options", [{"replicas": 0}, {"scale": 0}, {"rate": -1}, {"pace": 0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """When they are made."""
    with pytest.raises(ValueError):
        WorkloadOptions(**options)
