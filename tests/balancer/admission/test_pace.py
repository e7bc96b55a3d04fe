"""How fast a line moves, by what was seen of it."""

from __future__ import annotations

import pytest

from balancer.admission.pace import Pace


def paced(gap_s: float, places: int, start: float = 0.0) -> Pace:
    """One place every `gap_s`, somebody standing there all the time."""
    pace = Pace()
    pace.begins(start)
    for number in range(places):
        pace.served(start + (number + 1) * gap_s)
    return pace


def test_little_says_nothing() -> None:
    """Three places may be chance."""
    assert Pace().places_per_s(9.0) is None
    assert paced(1.0, 3).places_per_s(3.0) is None
    assert paced(1.0, 4).places_per_s(4.0) == 1.0


@pytest.mark.parametrize("gap_s", [0.01, 1.0, 20.0])
def test_places_per_second(gap_s: float) -> None:
    """A slow pool and a fast one, also between two places."""
    pace = paced(gap_s, 10)
    for after in (0.0, 0.5, 1.0):
        assert pace.places_per_s((10 + after) * gap_s) == pytest.approx(1 / gap_s)


def test_a_stall_slows_it_down() -> None:
    """Nobody was served for as long as ten were before."""
    assert paced(1.0, 10).places_per_s(20.0) == pytest.approx(10 / (20 * 10 / 11))


def test_old_places_are_forgotten() -> None:
    """What counts is the last 32."""
    pace = paced(1.0, 100)
    for number in range(33):
        pace.served(100.0 + 0.1 * (number + 1))
    assert pace.places_per_s(103.3) == pytest.approx(10.0)


def test_time_without_a_line_does_not_count() -> None:
    """A pool that is rarely full is not slow for that."""
    pace = Pace()
    for number in range(8):
        pace.begins(10.0 * number)
        pace.served(10.0 * number + 0.5)
        pace.ends(10.0 * number + 0.5)
    assert pace.places_per_s(100.0) == pytest.approx(2.0)


def test_after_a_minute_without_a_line_it_is_seen_anew() -> None:
    """The pool may be another by then."""
    pace = paced(1.0, 10)
    pace.ends(10.0)
    pace.begins(69.0)
    assert pace.places_per_s(69.0) == pytest.approx(1.0)
    pace.ends(69.0)
    pace.begins(130.0)
    assert pace.places_per_s(130.0) is None


def test_many_places_in_one_instant_say_nothing_yet() -> None:
    """No rate can be had from no time."""
    pace = paced(0.0, 10, start=5.0)
    assert pace.places_per_s(5.0) is None
    assert pace.places_per_s(6.0) == pytest.approx(11.0)


def test_a_minute_without_a_line_is_enough() -> None:
    """Also for who asks before a line has begun again: it might never begin, were the old pace a
    reason to let nobody wait."""
    pace = paced(1.0, 10)
    pace.ends(10.0)
    assert pace.places_per_s(69.0) == pytest.approx(1.0)
    assert pace.places_per_s(71.0) is None
