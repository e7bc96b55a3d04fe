"""Load that is not ours is what remains when our own is taken away, if it stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.foreign import ForeignGpu, ForeignLoad
from balancer.readings import Gauges

POLL_S = 2.0


def said(at: float, running: float | None, waiting: float | None = 0) -> Gauges:
    return Gauges(at=at, running=running, waiting=waiting)


def test_what_two_polls_show() -> None:
    """One poll shows nothing yet; then the lesser of the last two."""
    foreign = ForeignLoad()
    assert foreign.requests(0, POLL_S) == 0
    foreign.read(said(0, 10, 2), 4)
    assert foreign.requests(0, POLL_S) == 0
    foreign.read(said(2, 9, 0), 4)
    assert foreign.requests(2, POLL_S) == 5
    foreign.read(said(4, 20, 0), 4)
    assert foreign.requests(4, POLL_S) == 5
    foreign.read(said(6, 4, 0), 4)
    assert foreign.requests(6, POLL_S) == 0


def test_fewer_than_ours_is_none() -> None:
    """The gauges lag: what we just sent is not there yet."""
    foreign = ForeignLoad()
    for at in (0, 2):
        foreign.read(said(at, 1), 5)
    assert foreign.requests(2, POLL_S) == 0


def test_old_news_is_none() -> None:
    """Three polls without an answer."""
    foreign = ForeignLoad()
    for at in (0, 2):
        foreign.read(said(at, 5), 0)
    assert foreign.requests(8, POLL_S) == 5
    assert foreign.requests(8.1, POLL_S) == 0


def test_missing_is_not_0() -> None:
    """Without `running` nothing is known, and two polls must show it again; without the queue what
    runs beyond ours is still foreign."""
    foreign = ForeignLoad()
    foreign.read(said(0, 5), 0)
    foreign.read(said(2, None), 0)
    foreign.read(said(4, 5), 0)
    assert foreign.requests(4, POLL_S) == 0
    foreign.read(said(6, 5, None), 2)
    assert foreign.requests(6, POLL_S) == 3
    foreign.clear()
    assert foreign.requests(6, POLL_S) == 0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 10**6)), min_size=2))
def test_never_more_than_is_there(polls: list[tuple[float, float, int]]) -> None:
    """Between 0 and what the last two polls showed."""
    foreign = ForeignLoad()
    for at, (running, waiting, own) in enumerate(polls):
        foreign.read(said(at, running, waiting), own)
    shown = min(running + waiting for running, waiting, _ in polls[-2:])
    assert 0 <= foreign.requests(len(polls), POLL_S) <= shown


def run(gpu: ForeignGpu, seconds: float, utilisation: float, busy: float) -> float:
    """Sample every 0.5 s, at a steady utilisation and busy share; returns the last time."""
    at = 0.0
    while at <= seconds:
        gpu.read(utilisation, busy * at, at)
        at += 0.5
    return at - 0.5


@pytest.mark.parametrize(
    ("utilisation", "busy", "expected"),
    [(0.6, 0.0, 0.6), (1.0, 0.0, 0.8), (0.5, 0.5, 0.0), (1.0, 0.5, 0.5), (0.2, 0.7, 0.0)],
)
def test_a_steady_job(utilisation: float, busy: float, expected: float) -> None:
    """Utilisation less our busy share, within 0 and 0.8."""
    gpu = ForeignGpu()
    now = run(gpu, 60, utilisation, busy)
    assert gpu.share(now, POLL_S) == pytest.approx(expected, abs=0.01)


def test_busy_all_the_time_it_cannot_be_told() -> None:
    """A GPU that we keep busy is at 1 with or without others: None, not 0."""
    gpu = ForeignGpu()
    assert gpu.share(run(gpu, 60, 1.0, 1.0), POLL_S) is None


def test_not_known_before_it_is_read_nor_long_after() -> None:
    """None, never 0."""
    gpu = ForeignGpu()
    assert gpu.share(0, POLL_S) is None
    now = run(gpu, 60, 0.5, 0.0)
    assert gpu.share(now + 3 * POLL_S, POLL_S) is not None
    assert gpu.share(now + 3 * POLL_S + 0.1, POLL_S) is None


def test_our_own_bursts_leave_no_difference() -> None:
    """Utilisation that follows our requests, 3 s of each 10, is never taken for another's."""
    gpu = ForeignGpu()
    busy_s, shares = 0.0, []
    for step in range(200):
        at = step * 0.5
        ours = 1.0 if at % 10 < 3 else 0.0
        busy_s += 0.5 * ours
        gpu.read(ours, busy_s, at)
        shares.append(gpu.share(at, POLL_S) or 0.0)
    assert max(shares) < 1e-6


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100), st.floats(0, 10)), max_size=50))
def test_always_a_share(steps: list[tuple[float, float, float]]) -> None:
    """Any utilisation, any clock that does not go back: None, or 0 to 0.8."""
    gpu = ForeignGpu()
    now = busy_s = 0.0
    for utilisation, busy, passed in steps:
        now, busy_s = now + passed, busy_s + busy
        gpu.read(utilisation, busy_s, now)
        share = gpu.share(now, POLL_S)
        assert share is None or 0 <= share <= 0.8
