"""Who is taken out of a pool, and who is used when few are left."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.outliers import Fitness, Outliers, OutlierSettings, usable

SETTINGS = OutlierSettings(eject_s=10.0, eject_max_s=80.0)
NAMES = ["a", "b", "c", "d"]


def made(settings: OutlierSettings = SETTINGS) -> Outliers:
    return Outliers(settings, lambda: 0.5)


def serve(
    outliers: Outliers,
    shares: dict[str, float],
    requests: int,
    *,
    start: float = 0.0,
    step_s: float = 0.01,
    members: int | None = None,
) -> float:
    """So many requests to each, of which the given shares fail, evenly; returns the time after."""
    now, owed = start, dict.fromkeys(shares, 0.0)
    for _ in range(requests):
        for name, share in shares.items():
            owed[name] += share
            if owed[name] >= 1:
                owed[name] -= 1
                outliers.failed(name, now, members or len(shares))
            else:
                outliers.answered(name, now)
        now += step_s
    return now


def out(outliers: Outliers, now: float) -> list[str]:
    return [name for name in NAMES if outliers.ejected(name, now)]


def test_one_that_fails_more_than_the_others() -> None:
    """One request in three is lost on it, where no breaker opens: it is out, and comes back."""
    outliers = made()
    now = serve(outliers, {"a": 0.33, "b": 0.01, "c": 0, "d": 0}, 100)
    assert out(outliers, now) == ["a"]
    assert outliers.next_return(now) <= now + 10
    assert out(outliers, outliers.next_return(now)) == []


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_all_fail_alike(share: float) -> None:
    """Then the cause is elsewhere, and nobody is out."""
    outliers = made()
    assert out(outliers, serve(outliers, dict.fromkeys(NAMES, share), 300)) == []


def test_few_requests_say_little() -> None:
    """Of fewer than `volume` nothing follows, nor of a few failures just above the share."""
    outliers = made()
    serve(outliers, {"b": 0, "c": 0}, 100)
    assert out(outliers, serve(outliers, {"a": 1.0}, 19, start=1, members=3)) == []
    outliers = made()
    assert out(outliers, serve(outliers, {"a": 0.15, "b": 0, "c": 0}, 40)) == []


def test_old_failures_are_forgotten() -> None:
    """What lies further back than the window ejects nobody."""
    outliers = made()
    now = serve(outliers, {"b": 0, "a": 1.0}, 19)
    now = serve(outliers, {"a": 0, "b": 0}, 100, start=now + 61)
    assert not outliers.failed("a", now, 2)


@pytest.mark.parametrize(("members", "most"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_never_more_than_half_and_never_the_only_one(members: int, most: int) -> None:
    """However many of those that were asked fail all the time."""
    outliers = made()
    bad = {
        name: 1.0 if n < members - 1 or members == 1 else 0.0
        for n, name in enumerate(NAMES[:members])
    }
    now = serve(outliers, bad | {"others": 0.0}, 2000, step_s=0.001, members=members)
    assert len(out(outliers, now)) <= most
    if members > 1:
        assert len(out(outliers, now)) == most


def test_longer_each_time() -> None:
    """It comes back, fails again, and is out for twice as long, up to the bound."""
    outliers, now, times = made(), 0.0, []
    for _ in range(5):
        now = serve(outliers, {"b": 0, "c": 0, "a": 1.0}, 20, start=now, step_s=0.0)
        assert out(outliers, now) == ["a"]
        until = outliers.next_return(now)
        times.append(until - now)
        now = until
    assert times == pytest.approx([10, 20, 40, 80, 80])


def test_two_bad_ones_do_not_hide_each_other() -> None:
    """Up to half of the others may be as bad."""
    outliers = made()
    now = serve(outliers, {"a": 1.0, "b": 0.5, "c": 0, "d": 0}, 100)
    assert out(outliers, now) == ["a", "b"]


def test_nobody_to_compare_with() -> None:
    """Where the others had too few requests, it may be the requests' fault."""
    outliers = made()
    now = serve(outliers, {"b": 0, "c": 0}, 19, members=3)
    assert out(outliers, serve(outliers, {"a": 1.0}, 100, start=now, members=3)) == []


def test_what_was_begun_before_counts_no_more() -> None:
    """Requests that end while it is out change nothing."""
    outliers = made()
    now = serve(outliers, {"b": 0, "c": 0, "a": 1.0}, 20)
    until = outliers.next_return(now)
    for _ in range(50):
        assert not outliers.failed("a", now, 3)
    assert outliers.next_return(now) == until
    assert not outliers.failed("a", until, 3)


def test_forget() -> None:
    """One that left the pool is nowhere any more, and its namesake begins anew."""
    outliers = made()
    now = serve(outliers, {"b": 0, "c": 0, "a": 1.0}, 20)
    outliers.forget("a")
    outliers.forget("never there")
    assert out(outliers, now) == []
    assert not outliers.failed("a", now, 3)


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_bounds_hold_whatever_happens(shares: list[float], most: float, seed: int) -> None:
    """Never more out than allowed, never all."""
    chance = random.Random(seed)
    outliers = Outliers(SETTINGS._replace(most=most), chance.random)
    now = 0.0
    for _ in range(400):
        now += chance.choice([0, 0, 0.1, 1])
        n = chance.randrange(len(shares))
        if chance.random() < shares[n]:
            outliers.failed(NAMES[n], now, len(shares))
        else:
            outliers.answered(NAMES[n], now)
        assert len(out(outliers, now)) <= min(most * len(shares), len(shares) - 1)


FIT, DOUBTFUL, DEAD = Fitness.FIT, Fitness.DOUBTFUL, Fitness.DEAD


@pytest.mark.parametrize(
    ("fitness", "used", "panics"),
    [
        ([FIT, FIT, FIT, FIT], [0, 1, 2, 3], False),
        ([FIT, DOUBTFUL, DOUBTFUL, DOUBTFUL], [0], False),
        ([FIT, DOUBTFUL, DOUBTFUL, DOUBTFUL, DOUBTFUL], [0, 1, 2, 3, 4], True),
        ([FIT, DEAD, DEAD, DEAD, DEAD], [0], False),
        ([DOUBTFUL, DEAD, DOUBTFUL], [0, 2], True),
        ([DEAD, DEAD], [0, 1], True),
        ([DEAD], [0], True),
    ],
)
def test_usable(fitness: list[Fitness], used: list[int], panics: bool) -> None:
    """The fit; in panic all but the dead; and rather the dead than nobody."""
    members = range(len(fitness))
    assert (list(usable(members, fitness.__getitem__, panic=0.25)[0])) == used
    assert usable(members, fitness.__getitem__, panic=0.25)[1] is panics


@given(st.lists(st.sampled_from(Fitness), min_size=1, max_size=30), st.floats(0, 1))
def test_somebody_is_usable(fitness: list[Fitness], panic: float) -> None:
    """Never nobody, never a dead one beside a living one, always in order."""
    used, panics = usable(range(len(fitness)), fitness.__getitem__, panic=panic)
    assert list(used) == sorted(used)
    assert len(used) > 0
    if any(fit is not DEAD for fit in fitness):
        assert all(fitness[n] is not DEAD for n in used)
    if not panics:
        assert list(used) == [n for n, fit in enumerate(fitness) if fit is FIT]
