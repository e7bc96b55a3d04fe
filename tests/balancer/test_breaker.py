"""When a replica is left alone, and when it is asked again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from balancer.breaker import Backoff, Breaker, BreakerSettings, Pause

SETTINGS = BreakerSettings(
    failures_in_a_row=3,
    failure_share=0.5,
    volume=10,
    window_s=10.0,
    rest_s=1.0,
    rest_max_s=8.0,
    trials=2,
    successes=3,
)


def middle() -> float:
    """Chance that changes nothing."""
    return 0.5


def made(settings: BreakerSettings = SETTINGS, chance: Callable[[], float] = middle) -> Breaker:
    return Breaker(settings, chance)


def fail(breaker: Breaker, now: float, *, connecting: bool = False) -> bool:
    return breaker.failed(breaker.begin(now), now, connecting=connecting)


def answer(breaker: Breaker, now: float) -> bool:
    return breaker.answered(breaker.begin(now), now)


def test_failures_in_a_row() -> None:
    """So many open it, and a success between them begins the count anew."""
    breaker = made(SETTINGS._replace(failure_share=1.0))
    for _ in range(5):
        assert not fail(breaker, 0)
        assert not fail(breaker, 0)
        assert not answer(breaker, 0)
    assert not fail(breaker, 0)
    assert not fail(breaker, 0)
    assert fail(breaker, 0)
    assert (breaker.state(0), breaker.admits(0), breaker.unreachable) == ("open", False, False)


def test_share_of_failures() -> None:
    """So does the share of enough, although they never come in a row."""
    breaker = made()
    for n in range(4):
        answer(breaker, n)
        assert not fail(breaker, n)
    assert not answer(breaker, 4)
    assert fail(breaker, 4)  # the tenth request, and the fifth failure


def test_old_failures_are_forgotten() -> None:
    """What is older than the window opens nothing."""
    breaker = made()
    for n in range(4):
        answer(breaker, 0)
        fail(breaker, n / 10)
    answer(breaker, 20)
    for _ in range(2):
        assert not fail(breaker, 20)


def test_one_who_is_not_there_opens_at_once() -> None:
    """A connection that cannot be made needs no second opinion; a probe that can ends the rest."""
    breaker = made()
    assert fail(breaker, 0, connecting=True)
    assert breaker.unreachable
    assert not breaker.admits(0.5)
    assert breaker.reached(0.5)
    assert breaker.state(0.5) == "half_open"
    assert not breaker.reached(0.5)


def test_a_probe_does_not_end_the_rest_of_one_that_fails_requests() -> None:
    """That its model list is there says nothing of its answers."""
    breaker = made()
    for _ in range(3):
        fail(breaker, 0)
    assert not breaker.reached(0.5)
    assert breaker.state(0.5) == "open"


def opened(at: float = 0.0) -> Breaker:
    breaker = made()
    for _ in range(3):
        fail(breaker, at)
    return breaker


def test_trials() -> None:
    """After the rest: so many at once, and so many answers close it."""
    breaker = opened()
    assert not breaker.admits(0.99)
    assert breaker.admits(1)
    eras = [breaker.begin(1), breaker.begin(1)]
    assert not breaker.admits(1)
    assert not breaker.answered(eras[0], 2)
    assert breaker.admits(2)
    assert not breaker.answered(eras[1], 2)
    assert answer(breaker, 3)
    assert breaker.state(3) == "closed"


def test_a_trial_given_back() -> None:
    """A client that leaves takes no trial with it, and is no success."""
    breaker = opened()
    for _ in range(20):
        eras = [breaker.begin(1), breaker.begin(1)]
        assert not breaker.admits(1)
        for era in eras:
            breaker.abandoned(era)
        assert breaker.admits(1)
    assert breaker.state(1) == "half_open"


def test_a_failed_trial() -> None:
    """It opens again, twice as long each time up to the bound; other trials count no more."""
    breaker, now, rests = opened(), 1.0, []
    for _ in range(5):
        other = breaker.begin(now)
        assert fail(breaker, now)
        assert not breaker.failed(other, now)
        rests.append(breaker.rest_until - now)
        now = breaker.rest_until
        assert breaker.state(now) == "half_open"
    assert rests == [2, 4, 8, 8, 8]


def test_a_trial_cut_in_mid_stream() -> None:
    """One that was answered and then cut is a failed trial too."""
    breaker = opened()
    era = breaker.begin(1)
    breaker.answered(era, 1)
    assert breaker.cut(era, 2)
    assert breaker.state(2) == "open"


def test_one_that_cuts_every_stream() -> None:
    """Beside each failure there is a success, and it opens all the same."""
    breaker = made()
    for n in range(5):
        era = breaker.begin(n)
        assert not breaker.answered(era, n)
        assert breaker.cut(era, n) is (n == 4)


def test_what_a_dying_replica_takes_with_it_counts_once() -> None:
    """A hundred that were on their way do not make the rest longer, nor spoil the return."""
    breaker = made()
    eras = [breaker.begin(0) for _ in range(100)]
    assert [breaker.failed(era, 0) for era in eras].count(True) == 1
    assert breaker.rest_until == 1
    late = eras[0]
    assert breaker.state(1) == "half_open"
    assert not breaker.failed(late, 1)
    assert not breaker.answered(late, 1)
    breaker.abandoned(late)
    assert breaker.state(1) == "half_open"
    first, second = breaker.begin(1), breaker.begin(1)
    assert not breaker.admits(1)
    breaker.abandoned(first)
    breaker.abandoned(second)


def test_flapping() -> None:
    """Soon after it closed it opens longer than before; after a quiet time it begins anew."""
    breaker, now = opened(), 1.0
    for rest_s in (2, 4):
        for _ in range(3):
            answer(breaker, now)
        assert breaker.state(now) == "closed"
        for _ in range(3):
            fail(breaker, now)
        assert breaker.rest_until - now == rest_s
        now = breaker.rest_until
    for _ in range(3):
        answer(breaker, now)
    now += 10.1
    for _ in range(3):
        fail(breaker, now)
    assert breaker.rest_until - now == 1


class Requests(RuleBasedStateMachine):
    """Any interleaving of requests, on a breaker whose rest lasts a second to eight."""

    @initialize(trials=st.integers(1, 3), successes=st.integers(1, 3), seed=st.integers(0, 99))
    def begin(self, trials: int, successes: int, seed: int) -> None:
        self.settings = SETTINGS._replace(trials=trials, successes=successes)
        self.breaker = made(self.settings, random.Random(seed).random)
        self.now = 0.0
        self.waiting: list[int] = []
        self.streaming: list[int] = []
        self.opened_at = -math.inf

    @rule(pause_s=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 10.0, 100.0]))
    def wait(self, pause_s: float) -> None:
        self.now += pause_s

    @rule(anyway=st.booleans())
    def lease(self, anyway: bool) -> None:
        admitted = self.breaker.admits(self.now)
        assert admitted is self.breaker.admits(self.now), "asking changes nothing"
        if admitted or anyway:
            self.waiting.append(self.breaker.begin(self.now))

    @precondition(lambda self: self.waiting)
    @rule(which=st.randoms(use_true_random=False))
    def answer(self, which: random.Random) -> None:
        era = self.waiting.pop(which.randrange(len(self.waiting)))
        if self.breaker.answered(era, self.now):
            assert self.breaker.state(self.now) == "closed"
        self.streaming.append(era)

    @precondition(lambda self: self.waiting)
    @rule(which=st.randoms(use_true_random=False), connecting=st.booleans())
    def fail(self, which: random.Random, connecting: bool) -> None:
        era = self.waiting.pop(which.randrange(len(self.waiting)))
        if self.breaker.failed(era, self.now, connecting=connecting):
            self._opened()

    @precondition(lambda self: self.streaming)
    @rule(which=st.randoms(use_true_random=False))
    def cut(self, which: random.Random) -> None:
        if self.breaker.cut(self.streaming.pop(which.randrange(len(self.streaming))), self.now):
            self._opened()

    @precondition(lambda self: self.waiting)
    @rule(which=st.randoms(use_true_random=False))
    def leave(self, which: random.Random) -> None:
        self.breaker.abandoned(self.waiting.pop(which.randrange(len(self.waiting))))

    @rule()
    def probe(self) -> None:
        if self.breaker.reached(self.now):
            assert self.breaker.state(self.now) == "half_open"
            self.opened_at = -math.inf

    def _opened(self) -> None:
        assert self.breaker.state(self.now) == "open"
        assert not self.breaker.admits(self.now)
        self.opened_at = self.now
        rest_s = self.breaker.rest_until - self.now
        assert 0.8 <= rest_s <= 1.2 * SETTINGS.rest_max_s

    @invariant()
    def no_trial_is_lost(self) -> None:
        """With nothing on its way it always comes back: after its rest, and to all trials."""
        if not hasattr(self, "breaker") or self.waiting:
            return
        at = max(self.now, self.breaker.rest_until)
        if self.breaker.state(at) == "half_open":
            eras = []
            for _ in range(self.settings.trials):
                assert self.breaker.admits(at)
                eras.append(self.breaker.begin(at))
            assert not self.breaker.admits(at)
            for era in eras:
                self.breaker.abandoned(era)
        else:
            assert self.breaker.admits(at)


TestRequests = Requests.TestCase


@given(
    st.lists(st.floats(0, 200), max_size=50), st.floats(0, 1, exclude_max=True), st.floats(1, 60)
)
def test_backoff(pauses: list[float], chance: float, max_s: float) -> None:
    """Never longer than its bound and a fifth, never shorter than its first and a fifth."""
    backoff, now = Backoff(1.0, max_s, 10.0, lambda: chance), 0.0
    for pause_s in pauses:
        now += pause_s
        rest_s = backoff.rest(now) - now
        assert 0.8 * 0.999 <= rest_s <= 1.2 * max_s * 1.001


def test_backoff_is_calmed() -> None:
    """It begins anew once as much time has passed as the last rest took, and ten seconds."""
    backoff = Backoff(1.0, 100.0, 10.0, middle)
    ends = [0.0]
    for _ in range(6):
        ends.append(backoff.rest(ends[-1]))
    assert ends[-1] - ends[-2] == 32
    assert backoff.rest(ends[-1] + 31) - (ends[-1] + 31) == 64
    assert backoff.rest(backoff.until + 65) - (ends[-1] + 31 + 64 + 65) == 1


def test_pause() -> None:
    """As long as it was told; else longer each time, until one is served."""
    pause = Pause(middle)
    pause.refused(0, 7)
    assert pause.until == 7
    pause.refused(1, 2)
    assert pause.until == 7, "the longer of the two"
    now, pauses = 100.0, []
    for _ in range(7):
        pause.refused(now, None)
        pause.refused(now, None)  # asked at the same time: no news
        pauses.append(pause.until - now)
        now = pause.until
    assert pauses == [0.25, 0.5, 1, 2, 4, 5, 5]
    pause.answered()
    pause.refused(now, None)
    assert pause.until - now == 0.25


@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_pause_jitter(chance: float) -> None:
    """Within a fifth: many who were refused must not come back in step."""
    pause = Pause(lambda: chance)
    pause.refused(0, None)
    assert pause.until == pytest.approx(0.25 * (0.8 + 0.4 * chance))
