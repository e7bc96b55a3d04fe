"""Counts of the last few seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.window import Window

steps = st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200)


@given(steps, st.floats(0.1, 100))
def test_against_a_list_of_all(steps: list[tuple[float, bool]], window_s: float) -> None:
    """What is counted happened within the window, and all of its last nine tenths is counted."""
    window, now, seen = Window(window_s), 0.0, list[tuple[float, bool]]()
    for pause_s, kind in steps:
        now += pause_s
        window.add(now, kind)
        seen.append((now, kind))
        for wanted in (True, False):
            ages = [now - at for at, kind in seen if kind is wanted]
            surely = sum(age < 0.89 * window_s for age in ages)
            perhaps = sum(age < 1.01 * window_s for age in ages)
            assert surely <= window.count(now, wanted) <= perhaps
        true = window.count(now, True)
        assert window.share(now) == (true, true + window.count(now, False))


@given(steps)
def test_all_is_forgotten(steps: list[tuple[float, bool]]) -> None:
    """After one window without an event nothing is left, and nothing is ever negative."""
    window, now = Window(7.0), 0.0
    for pause_s, kind in steps:
        now += pause_s
        window.add(now, kind)
    assert window.share(now + 7.01) == (0, 0)


def test_time_that_goes_back() -> None:
    """It is counted as the newest, and forgotten in its time."""
    window = Window(10.0)
    window.add(100.0, True)
    window.add(50.0, True)
    assert window.count(50.0, True) == 2
    assert window.count(111.0, True) == 0


@pytest.mark.parametrize("kind", [True, False])
def test_clear(kind: bool) -> None:
    """Nothing of before is left, and counting goes on."""
    window = Window(10.0)
    window.add(1.0, kind)
    window.clear()
    window.add(1.0, kind)
    assert window.count(1.0, kind) == 1
