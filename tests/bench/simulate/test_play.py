"""Sessions run as they should, requests wait where they should, and what is taken is given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.policies import Ask, LeastRequest, Loaded, Outcome, RoundRobin
from balancer.policies.loaded import R
from bench.simulate.conditions import Conditions
from bench.simulate.play import longest_served, play
from bench.workload.model import Segment, Session, Turn, Workload
from tests.bench.simulate.small import ENGINE, run, ttfts_s, turn, workload


class Witness(LeastRequest):
    """Least request, which writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.open: Counter[str] = Counter()
        self.most_open = 0
        self.told: Counter[str] = Counter()
        self.cached: list[int | None] = []

    def leased(self, replica: Loaded, ask: Ask) -> None:
        self.told["leased"] += 1
        self.open[replica.name] += 1
        self.most_open = max(self.most_open, self.open.total())

    def answered(self, replica: Loaded, ask: Ask) -> None:
        self.told["answered"] += 1

    def released(self, replica: Loaded, ask: Ask, outcome: Outcome) -> None:
        self.told["released"] += 1
        self.open[replica.name] -= 1
        self.cached.append(outcome.cached_tokens)


class Reader(LeastRequest):
    """Least request, which reads prompts, and writes down what it sees and is told."""

    reads_prompt: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.prompt_tokens: list[int] = []
        self.matches: list[Mapping[str, int]] = []
        self.outcomes: list[Outcome] = []
        self.rates: list[float] = []

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:  # type: ignore[override]
        self.prompt_tokens.append(ask.prompt_tokens)
        self.matches.append(dict(ask.matches))
        self.rates.append(candidates[0].speed.prefill_tokens_per_s(0.0))
        return super().pick(candidates, ask)

    def released(self, replica: Loaded, ask: Ask, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


EXACT = Conditions(counts="exact")


def test_turns_follow_the_answer_and_think_time() -> None:
    """Each is sent exactly the think time after the end of the answer before it."""
    first = turn(1, output=30)
    second = turn(2, before=first.prompt, delay_s=2.5)
    third = turn(3, before=second.prompt)
    calls = run(workload([first, second, third])).calls
    assert calls.asked_s[1] == pytest.approx(calls.ended_s[0] + 2.5, abs=1e-9)
    assert calls.asked_s[2] == pytest.approx(calls.ended_s[1], abs=1e-9)
    assert list(calls.output_tokens) == [30, 5, 5]


def test_open_loop_is_sent_when_due_whatever_happens() -> None:
    """A replica that is swamped changes nothing about when the next requests come."""
    due_s = [0.0, 0.001, 0.002, 0.5, 0.5, 7.25]
    sessions = [[turn(n, 1500, 200, due_s=at)] for n, at in enumerate(due_s, start=1)]
    calls = run(workload(*sessions)).calls
    assert sorted(calls.asked_s) == due_s
    assert sorted(calls.sent_s) == pytest.approx(due_s, abs=1e-9)
    assert max(ttfts_s(calls)) > 0.2  # it was swamped


def test_due_turn_that_had_to_wait_for_the_answer_before_it_counts_from_its_due_time() -> None:
    """So that a slow answer is not hidden by what it held up."""
    first = turn(1, output=400, due_s=0.0)
    second = turn(2, before=first.prompt, due_s=0.1)
    calls = run(workload([first, second])).calls
    assert calls.asked_s[1] == 0.1
    assert calls.sent_s[1] == calls.ended_s[0] > 1
    assert ttfts_s(calls)[1] > calls.ended_s[0] - 0.1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_closed_loop_keeps_to_its_concurrency(concurrency: int) -> None:
    """So many at once, never more, and never fewer while there are sessions left."""
    witness = Witness()
    sessions = [[turn(n, 50 + n)] for n in range(1, 12)]
    calls = run(workload(*sessions, concurrency=concurrency), 2, witness).calls
    assert len(calls) == 11
    assert witness.most_open == concurrency
    # Whenever one ends, the next one begins.
    assert sorted(calls.asked_s)[concurrency:] == sorted(calls.ended_s)[: 11 - concurrency]


def test_waiting_in_the_pool_counts_as_time_to_first_token() -> None:
    """Two requests, one place: the second one's time runs from when it was due."""
    sessions = [[turn(n, output=100, due_s=0.0)] for n in (1, 2)]
    calls = run(workload(*sessions), max_in_flight=1).calls
    assert calls.sent_s[1] == calls.ended_s[0] > 0.9
    assert ttfts_s(calls)[1] > calls.ended_s[0]
    freely = run(workload(*sessions)).calls
    assert max(ttfts_s(freely)) < 0.1


def test_never_more_than_max_in_flight_on_a_replica() -> None:
    """Whatever comes, a replica has no more than its bound; the rest wait in front of it."""
    most = Counter[str]()

    class Bounded(Witness):
        def leased(self, replica: Loaded, ask: Ask) -> None:
            super().leased(replica, ask)
            most[replica.name] = max(most[replica.name], self.open[replica.name])

    sessions = [[turn(n, output=20, due_s=0.01 * n)] for n in range(1, 60)]
    calls = run(workload(*sessions), 2, Bounded(), max_in_flight=3).calls
    assert len(calls) == 59
    assert set(most.values()) == {3}


def test_every_lease_is_given_back() -> None:
    """The policy is told of each request's start, first token and end, with what was cached."""
    witness = Witness()
    shared = (Segment(7, 160),)
    sessions = [[turn(n, due_s=n * 1.0, before=shared)] for n in range(1, 5)]
    played = run(workload(*sessions), 1, witness)
    assert witness.told == {"leased": 4, "answered": 4, "released": 4}
    assert witness.cached == list(played.calls.cached_tokens) == [0, 160, 160, 160]
    assert witness.open.total() == 0
    assert played.pool.in_flight == 0


def test_request_that_fits_nowhere_ends_its_session() -> None:
    """It is counted as refused, those after it as never sent, and none of them as answered."""
    long = turn(2, 1990, 20)
    played = run(workload([turn(1), long, turn(3), turn(4)], [turn(5, due_s=0.0)]))
    assert len(played.calls) == 2
    assert played.calls.refused == {"interactive": 1}
    assert played.calls.not_sent == 2


def test_a_mixed_fleet_takes_what_its_smallest_replica_takes() -> None:
    """Otherwise policies would be compared on different requests."""
    larger = msgspec.structs.replace(ENGINE, name="larger", max_model_len=6_000)
    tiny = msgspec.structs.replace(ENGINE, name="tiny", kv_tokens=1_000)
    assert longest_served([larger, ENGINE]) == 2_000
    assert longest_served([larger, tiny, ENGINE]) == 62 * 16
    played = play(workload([turn(1, 1_000)]), [larger, tiny], RoundRobin)
    assert played.calls.refused == {"interactive": 1}


def test_full_queue_refuses_and_books_stay_true() -> None:
    """With room for one running and one waiting, the third is refused; the others are answered."""
    witness = Witness()
    sessions = [[turn(n, output=50, due_s=0.0), turn(n + 10)] for n in (1, 2, 3)]
    played = run(workload(*sessions), 1, witness, max_in_flight=1, queue=1)
    assert played.calls.refused == {"interactive": 1}
    assert played.calls.not_sent == 1
    assert len(played.calls) == 4
    assert witness.told == {"leased": 4, "answered": 4, "released": 4}
    assert played.pool.in_flight == played.pool.waiting == 0


def test_who_waits_too_long_in_the_pool_is_refused() -> None:
    """After `queue_s`, in virtual time."""
    sessions = [[turn(n, output=500, due_s=0.0)] for n in (1, 2)]
    played = run(workload(*sessions), max_in_flight=1, queue_s=0.5)
    assert len(played.calls) == 1
    assert played.calls.refused == {"interactive": 1}


def test_refused_branch_breaks_its_run() -> None:
    """The run is known as broken, so that it is not reported as done."""
    sessions = [
        Session(id=1, turns=[turn(1, due_s=0.0)], group=9),
        Session(id=2, turns=[turn(2, 5_000, due_s=0.0)], group=9),
    ]
    calls = run(Workload(name="runs", sessions=sessions)).calls
    assert calls.broken_groups == {9}


def test_sessions_due_together_begin_in_their_order() -> None:
    """As the branches of a fan-out: Trio shuffles them, the simulation does not."""
    sessions = [[turn(n, 100 + n, due_s=1.0)] for n in range(10)]
    for _ in range(8):
        calls = run(workload(*sessions), 3, RoundRobin()).calls
        placed = dict(zip(calls.prompt_tokens, calls.replica, strict=True))
        assert placed == {100 + n: n % 3 for n in range(10)}


def test_calls_that_end_together_go_on_in_their_order() -> None:
    """Trio shuffles the tasks of one moment; a simulation with ties is the same every time."""
    # Equal sessions in step: all turns of a round end at the same moment on the one engine, and
    # what is placed by turns afterwards depends on who goes on first.
    sessions = [
        [turn(n, 64, 4), turn(n + 100, 64 + 7 * n, 4), turn(n + 200, 64, 3)] for n in range(1, 9)
    ]
    runs = {
        tuple(zip(calls.asked_s, calls.first_s, calls.replica, calls.prompt_tokens, strict=True))
        for calls in (
            run(workload(*sessions, concurrency=8), 3, RoundRobin()).calls for _ in range(12)
        )
    }
    assert len(runs) == 1


@pytest.mark.parametrize("method", ["pick", "leased", "answered", "released"])
def test_failing_policy_is_not_swallowed(method: str) -> None:
    """What goes wrong inside comes out as it is, wherever it was called from."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    broken = LeastRequest()
    setattr(broken, method, fail)
    with pytest.raises(ExceptionGroup) as raised:
        run(workload([turn(1)]), 1, broken)
    assert raised.group_contains(ZeroDivisionError)


def test_nothing_to_play() -> None:
    """No sessions, or sessions of no turns: no calls, and an end."""
    assert len(run(workload()).calls) == 0
    assert len(run(workload([], [], concurrency=2)).calls) == 0


turns = st.builds(
    Turn,
    prompt=st.lists(st.builds(Segment, st.integers(1, 6), st.just(70)), min_size=1, max_size=4).map(
        tuple
    ),
    output_tokens=st.integers(1, 30),
    answer=st.integers(100, 200),
    delay_s=st.sampled_from([0.0, 0.0, 0.05, 1.0]),
)


@given(
    st.lists(st.lists(turns, max_size=3), max_size=8),
    st.sampled_from([None, 1, 2, 5]),
    st.sampled_from([None, 1, 2]),
    st.integers(1, 3),
)
@settings(max_examples=40)
def test_every_request_is_accounted_for(
    sessions: list[list[Turn]], concurrency: int | None, max_in_flight: int | None, replicas: int
) -> None:
    """Whatever is played: all are answered in order, nothing stays leased, waiting or running."""
    witness = Witness()
    played = run(
        workload(*sessions, concurrency=concurrency),
        replicas,
        witness,
        max_in_flight=max_in_flight,
        queue=3,
    )
    calls = played.calls
    sent = len(calls) + sum(calls.refused.values())
    assert sent + calls.not_sent == sum(map(len, sessions))
    assert witness.told["leased"] == witness.told["released"] == len(calls)
    assert played.pool.in_flight == played.pool.waiting == 0
    assert all(engine.snapshot()[:2] == (0, 0) for engine in played.engines)
    assert list(calls.ended_s) == sorted(calls.ended_s)
    for asked, sent_at, first, ended in zip(
        calls.asked_s, calls.sent_s, calls.first_s, calls.ended_s, strict=True
    ):
        assert asked <= sent_at < first <= ended


def test_policy_that_reads_prompts_is_told_matches() -> None:
    """Of those that were sent before, in whole blocks of 64 tokens."""
    reader = Reader()
    first = turn(1, 300)
    run(workload([first, turn(2, before=first.prompt)]), 1, reader, conditions=EXACT)
    assert reader.matches == [{}, {"http://sim-0": 256}]
    assert reader.prompt_tokens == [300, 400]


def test_index_holds_what_the_engine_says_it_does() -> None:
    """Of 8,000 tokens; what was sent before that is forgotten."""
    reader = Reader()
    sessions = [[turn(n % 6, 1_600, due_s=float(n))] for n in range(12)]
    run(workload(*sessions), 1, reader, conditions=EXACT)
    assert not any(reader.matches)
    reader = Reader()
    sessions = [[turn(n % 4, 1_600, due_s=float(n))] for n in range(8)]
    run(workload(*sessions), 1, reader, conditions=EXACT)
    assert [sum(each.values()) for each in reader.matches] == [0] * 4 + [1_600] * 4


def test_counts_are_estimates_unless_asked_otherwise() -> None:
    """Of one app all wrong by about the same factor, and the engine's own are told afterwards."""
    reader = Reader()
    run(workload([turn(1, 1_000), turn(2, 1_000)]), 1, reader)
    assert 1_000 not in reader.prompt_tokens
    assert [outcome.prompt_tokens for outcome in reader.outcomes] == [1_000, 1_000]


def test_outcome_is_read_off_the_answer() -> None:
    """Its times, and the usage as the engine reports it."""
    reader = Reader()
    first = turn(1, 320, 11)
    calls = run(workload([first, turn(2, 10, 1, before=first.prompt)]), 1, reader).calls
    one, two = reader.outcomes
    assert (one.answered, one.prompt_tokens, one.cached_tokens, one.output_tokens) == (
        *(True, 320, 0, 11),
    )
    assert one.ttft_s == pytest.approx(calls.first_s[0] - calls.sent_s[0])
    assert one.itl_s == pytest.approx((calls.ended_s[0] - calls.first_s[0]) / 10)
    assert (two.cached_tokens, two.itl_s) == (320, None)


def test_engine_that_does_not_report_what_was_cached() -> None:
    """It is unknown then, not 0."""
    reader = Reader()
    run(workload([turn(1)]), 1, reader, conditions=Conditions(reports_cached=False))
    assert reader.outcomes[0].cached_tokens is None
    assert reader.outcomes[0].prompt_tokens == 100


def test_first_guesses_can_be_wrong() -> None:
    """By the same factor for every replica."""
    right, wrong = Reader(), Reader()
    run(workload([turn(1)]), 1, right)
    run(workload([turn(1)]), 1, wrong, conditions=Conditions(prior_error=3.0))
    assert wrong.rates[0] == pytest.approx(3 * right.rates[0])


def tiered(tier: str, *sessions: list[Turn]) -> list[Session]:
    return [Session(id=0, turns=turns, tier=tier) for turns in sessions]


def overload() -> Workload:
    """Twenty of a batch, then one that somebody waits for."""
    batch = tiered("batch", *([turn(n, 400, 20, due_s=0.0)] for n in range(1, 21)))
    interactive = tiered("interactive", [turn(99, 100, 5, due_s=0.3)])
    return Workload(name="tiers", sessions=[*batch, *interactive])


def last_of(calls_tier: list[str], tier: str) -> int:
    return max(place for place, name in enumerate(calls_tier) if name == tier)


def test_interactive_requests_overtake_a_batch() -> None:
    """In the line, not in the engine; without tiers all wait in one."""
    told = run(overload(), 1, max_in_flight=2).calls.tier
    assert last_of(told, "interactive") < 8
    told = run(overload(), 1, max_in_flight=2, conditions=Conditions(tiers=False)).calls.tier
    assert last_of(told, "interactive") == 20


def test_who_was_put_back_is_answered_all_the_same() -> None:
    """It loses its place before its first token, waits again, and counts from when it was due."""
    batch = tiered("batch", [turn(1, 1_900, 20, due_s=0.0)])
    interactive = tiered("interactive", [turn(2, 100, 5, due_s=0.05)])
    sessions = Workload(name="tiers", sessions=[*batch, *interactive])
    played = run(sessions, 1, max_in_flight=1)
    calls = played.calls
    assert calls.put_back == 1
    assert calls.tier == ["interactive", "batch"]
    assert list(calls.asked_s) == [0.05, 0.0]
    assert calls.sent_s[1] > 0.05
    assert played.pool.in_flight == played.pool.waiting == 0
