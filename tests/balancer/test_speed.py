"""What is learned of a replica from when it answered."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.speed import Line, Speed


def _reads(
    speed: Speed,
    *,
    start_s: float = 0.02,
    token_s: float = 1 / 40_000,
    times: int = 60,
    now: float = 0.0,
    most: int = 4000,
) -> float:
    """So many prompts, one after the other; returns the time when the last one is read."""
    chance = random.Random(1)
    for _ in range(times):
        tokens = chance.randrange(1, most)
        speed.sent(now)
        now += start_s + tokens * token_s
        speed.read(tokens, False, now)
        now += 0.1
    return now


def _writes(speed: Speed, *, token_s: float = 0.006, stream_s: float = 0.0002) -> None:
    for number in range(60):
        company = float(number % 9)
        speed.wrote(company, token_s + company * stream_s, float(number))


def test_before_anything_is_learned_it_is_the_first_guess() -> None:
    """And nobody is slow."""
    speed = Speed(20_000.0, 0.001)
    assert speed.prefill_tokens_per_s(0.0) == pytest.approx(20_000.0)
    assert speed.decode_s_per_stream(0.0) == pytest.approx(0.001)
    assert speed.slow_to_read((0.03, 1 / 12_000), 0, 0.0) == 1.0
    assert speed.slow_to_write((0.01, 0.001)) == 1.0


@pytest.mark.parametrize("error", [1 / 3, 1.0, 3.0])
def test_both_rates_are_found_whatever_was_guessed(error: float) -> None:
    """Within a seventh after sixty requests, from a guess three times too low or too high."""
    speed = Speed(40_000.0 * error, 0.0002 * error)
    now = _reads(speed)
    _writes(speed)
    assert speed.prefill_tokens_per_s(now) == pytest.approx(40_000.0, rel=0.1)
    assert speed.decode_s_per_stream(now) == pytest.approx(0.0002, rel=0.15)


@pytest.mark.parametrize("most", [200, 20_000])
def test_short_prompts_do_not_look_slow(most: int) -> None:
    """The time before the first token is read is not taken for reading."""
    speed = Speed()
    now = _reads(speed, most=most)
    assert speed.slow_to_read((0.02, 1 / 40_000), 0, now) == pytest.approx(1.0, abs=0.02)


def test_a_slow_one_is_found_within_seconds() -> None:
    """Twice as slow as the others: some of it is believed after 5 s, most of it later."""
    speed, usual = Speed(), (0.02, 1 / 40_000)
    now = _reads(speed, start_s=0.04, token_s=1 / 20_000, times=20)
    assert now < 6.0
    assert speed.slow_to_read(usual, 0, now) > 1.3
    now = _reads(speed, start_s=0.04, token_s=1 / 20_000, times=100, now=now)
    assert 1.5 < speed.slow_to_read(usual, 0, now) <= 2.0
    now = _reads(speed, times=300, now=now)
    assert speed.slow_to_read(usual, 0, now) < 1.2


def test_one_that_hangs_is_found_before_it_answers() -> None:
    """A prompt of a tenth of a second has waited for five."""
    speed = Speed()
    speed.sent(0.0)
    assert speed.slow_to_read((0.02, 1 / 40_000), 4000, 0.1) == 1.0
    assert speed.slow_to_read((0.02, 1 / 40_000), 4000, 5.0) > 3.0


def test_given_up_requests_teach_nothing() -> None:
    """However long they had waited; nor do they spoil what comes after."""
    speed, usual = Speed(), (0.02, 1 / 40_000)
    now = _reads(speed)
    before = speed.slow_to_read(usual, 0, now)
    speed.sent(now)
    speed.gave_up(False, now + 25.0)
    assert speed.slow_to_read(usual, 0, now + 25.0) == before
    assert _reads(speed, now=now + 25.0) > 0.0
    assert speed.slow_to_read(usual, 0, now + 60.0) == pytest.approx(1.0, abs=0.02)


def test_a_full_queue_is_learned_from_too() -> None:
    """Something is always left to be read: it is measured in parts."""
    speed, now = Speed(), 0.0
    speed.sent(now)
    for _ in range(400):
        now += 500 / 10_000
        speed.read(500, True, now)
    assert speed.prefill_tokens_per_s(now) == pytest.approx(10_000.0, rel=0.1)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1e5), st.floats(0, 100), st.floats(1e-3, 1)),
        min_size=1,
        max_size=20,
    ),
    st.floats(0, 10),
)
@settings(max_examples=200)
def test_a_fit_is_never_negative(
    seen: list[tuple[float, float, float, float]], most: float
) -> None:
    """Whatever was observed, base and slope are 0 or more, and the base no more than allowed."""
    line = Line()
    line.add(1.0, 0.0, 0.03, 0.25)
    for z, x, y, weight in seen:
        line.add(z, x, y, weight)
    base, slope = line.fit(most)
    assert 0.0 <= base <= most
    assert slope >= 0.0
    assert line.slowness(base, slope, 1.0) > 0.0
