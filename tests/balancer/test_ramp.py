"""How a replica that is new or came back is trusted step by step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from balancer.ramp import Ramp, RampSettings


def test_a_new_one_has_no_limit() -> None:
    """Started along with its pool: who would take the requests instead?"""
    ramp = Ramp(RampSettings())
    assert ramp.cap is None
    assert not ramp.answered(0)


def test_doubling() -> None:
    """One at first, twice as many after each step, none any more at the end."""
    ramp, caps = Ramp(RampSettings(step_s=5, full=64)), []
    ramp.restart(100)
    for n in range(8):
        caps.append(ramp.cap)
        assert ramp.answered(105 + 5 * n) is (n < 6)
    assert caps == [1, 2, 4, 8, 16, 32, None, None]


def test_not_by_time_alone() -> None:
    """One that does not answer is not given more; many answers at once double it once."""
    ramp = Ramp(RampSettings())
    ramp.restart(0)
    assert ramp.cap == 1
    assert not ramp.answered(4.9)
    assert ramp.answered(1000)
    assert not any(ramp.answered(1000 + n / 10) for n in range(49))
    assert ramp.cap == 2


def test_from_the_beginning() -> None:
    """Who fails on the way up starts again."""
    ramp = Ramp(RampSettings())
    ramp.restart(0)
    ramp.answered(5)
    ramp.restart(6)
    assert ramp.cap == 1
    assert not ramp.answered(10)


def test_none_at_all() -> None:
    """A step of 0 s turns it off."""
    ramp = Ramp(RampSettings(step_s=0))
    ramp.restart(0)
    assert ramp.cap is None


@given(
    st.floats(0.1, 60),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=100),
)
def test_bounds(step_s: float, full: int, events: list[tuple[float, bool]]) -> None:
    """Never below one, never at `full` or beyond, never faster than double a step."""
    ramp, now = Ramp(RampSettings(step_s, full)), 0.0
    since = 0.0
    ramp.restart(now)
    for pause_s, restarts in events:
        now += pause_s
        if restarts:
            ramp.restart(now)
            since = now
        else:
            ramp.answered(now)
        limit = 2 ** ((now - since) / step_s)
        if ramp.cap is None:
            assert limit >= full * 0.999
        else:
            assert 1 <= ramp.cap <= max(1, limit * 1.001)
            assert ramp.cap < full or ramp.cap == 1
