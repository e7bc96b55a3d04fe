"""Engines under Trio do what they do when driven by hand, on any clock."""

from __future__ import annotations

import math

import msgspec
import pytest
import trio
from trio.testing import MockClock

from bench.engine import Clockwork, Engine, JumpClock, Sequence, find_profile
from bench.workload.model import Segment

PROFILE = find_profile("h100-llama-8b", kv_tokens=8000)
OTHER = find_profile("a100-llama-8b", async_scheduling=False)


def asks() -> list[tuple[float, int, Sequence]]:
    """When, on which of two engines, what."""
    return [
        (0.013 * i, i % 2, Sequence((Segment(i % 3, 300), Segment(100 + i, 50)), 40 + i, 500 + i))
        for i in range(40)
    ]


def by_hand() -> list[tuple[float | None, float | None]]:
    engines = (Engine(PROFILE), Engine(OTHER))
    todo = asks()
    for at_s, number, sequence in todo:
        engines[number].submit(sequence, at_s)
    for engine in engines:
        engine.advance(1000.0)
    return [(sequence.first_token_s, sequence.finished_s) for _, _, sequence in todo]


async def under_trio() -> list[tuple[float | None, float | None]]:
    clockwork = Clockwork()
    left = len(asks())
    all_done = trio.Event()

    def ended(sequence: Sequence) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            all_done.set()

    engines = (Engine(PROFILE, on_end=ended), Engine(OTHER, on_end=ended))
    begun_s = trio.current_time()
    todo = asks()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clockwork.run)
        for at_s, number, sequence in todo:
            await trio.sleep_until(begun_s + at_s)
            engines[number].submit(sequence, begun_s + at_s)
            clockwork.engine_changed(engines[number])
        await all_done.wait()
        nursery.cancel_scope.cancel()
    assert all(sequence.first_token_s and sequence.finished_s for _, _, sequence in todo)
    return [
        ((each.first_token_s or 0.0) - begun_s, (each.finished_s or 0.0) - begun_s)
        for _, _, each in todo
    ]


def test_jump_clock_gives_the_times_of_the_engine_itself() -> None:
    """In virtual time, with nothing but time to wait for."""
    times = trio.run(under_trio, clock=JumpClock())
    assert flat(times) == pytest.approx(flat(by_hand()), abs=1e-9)


def test_mock_clock_gives_the_same() -> None:
    """Trio's own virtual clock, which other tests use."""
    times = trio.run(under_trio, clock=MockClock(autojump_threshold=0))
    assert flat(times) == pytest.approx(flat(by_hand()), abs=1e-9)


def flat(times: list[tuple[float | None, float | None]]) -> list[float]:
    return [math.nan if each is None else each for pair in times for each in pair]


def test_jump_clock_sleeps_are_exact_and_in_order() -> None:
    """Hours pass at once, each sleeper wakes at its time, and time stands still in between."""
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, until_s: float) -> None:
        await trio.sleep_until(until_s)
        woken.append((name, trio.current_time()))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name, until_s in (("late", 7200.0), ("early", 0.25), ("middle", 3.5)):
                nursery.start_soon(sleeper, name, until_s)
        await trio.lowlevel.checkpoint()
        assert trio.current_time() == 7200.0

    trio.run(main, clock=JumpClock())
    assert woken == [("early", 0.25), ("middle", 3.5), ("late", 7200.0)]


async def test_an_engine_that_is_due_earlier_wakes_the_clockwork(
    autojump_clock: MockClock,
) -> None:
    """A change while it sleeps for another engine's sake is not slept over."""
    clockwork = Clockwork()
    ends: list[float] = []
    slow = msgspec.structs.replace(PROFILE, step_s=30.0, request_s=0.0)
    fast = Engine(PROFILE, on_end=lambda sequence: ends.append(trio.current_time()))
    far = Engine(slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clockwork.run)
        far.submit(Sequence((Segment(1, 10),), 5, 2), 0.0)
        clockwork.engine_changed(far)
        await trio.sleep(1.0)
        sequence = Sequence((Segment(1, 10),), 5, 2)
        fast.submit(sequence, 1.0)
        clockwork.engine_changed(fast)
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()
    assert ends == [sequence.finished_s]
    assert ends[0] < 2.0
