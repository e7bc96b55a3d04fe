"""The engine's clock: one grid, everyone once a step, no step for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from bench.relay.poll_loop import PollLoop
from bench.relay.steps import StepClock


class ManualLoop(PollLoop):
    """A loop whose time a test sets; it keeps at most the one timer of a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def call_at(self, due_s: float, callback: Callable[[], None]) -> None:
        """Keep the callback for `fire`."""
        self.due.append((due_s, callback))

    def fire(self, *, late_s: float = 0.0) -> float:
        """Call back at the time set, or `late_s` after it; returns the time set."""
        ((due_s, callback),) = self.due
        self.due.clear()
        self.now_s = due_s + late_s
        callback()
        return due_s - 1_000.0


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[ManualLoop]:
    made = ManualLoop()
    clock = SimpleNamespace(perf_counter=lambda: made.now_s)
    monkeypatch.setattr("bench.relay.steps.time", clock)
    yield made
    made.close()


class Stream:
    """A stream of so many tokens that notes when each was sent."""

    def __init__(self, loop: ManualLoop, tokens: int) -> None:
        self._loop = loop
        self._left = tokens
        self.sent_s: list[float] = []

    def advance(self) -> bool:
        """Send one token."""
        self.sent_s.append(round(self._loop.now_s - 1_000.0, 6))
        self._left -= 1
        return self._left > 0


def test_all_streams_advance_at_the_same_steps(loop: ManualLoop) -> None:
    """One that arrives between steps waits for the next, and then runs with the others."""
    clock = StepClock(loop, 0.02)
    early, late = Stream(loop, 3), Stream(loop, 3)
    clock.join(early.advance)
    loop.fire()
    loop.now_s += 0.007
    clock.join(late.advance)
    for _ in range(3):
        loop.fire()
    assert early.sent_s == pytest.approx([0.02, 0.04, 0.06])
    assert late.sent_s == pytest.approx([0.04, 0.06, 0.08])
    assert not loop.due, "the clock goes on for nobody"


def test_the_grid_does_not_drift(loop: ManualLoop) -> None:
    """A late step does not delay the next, also after the clock has rested."""
    clock = StepClock(loop, 0.02)
    clock.join(Stream(loop, 50).advance)
    assert [loop.fire(late_s=0.004) for _ in range(50)] == pytest.approx(
        [0.02 * number for number in range(1, 51)]
    )
    loop.now_s += 0.05
    clock.join(Stream(loop, 1).advance)
    assert loop.fire() == pytest.approx(1.06)


def test_missed_steps_are_left_out(loop: ManualLoop) -> None:
    """An engine held up for two steps goes on at the next, with one token."""
    clock = StepClock(loop, 0.02)
    stream = Stream(loop, 3)
    clock.join(stream.advance)
    loop.fire(late_s=0.05)
    assert loop.fire() == pytest.approx(0.08)
    assert loop.fire() == pytest.approx(0.1)
    assert len(stream.sent_s) == 3


def test_a_step_set_early_is_not_set_twice(loop: ManualLoop) -> None:
    """Where rounding puts a step just before its time, the next is still a pace away."""
    clock = StepClock(loop, 0.02)
    clock.join(Stream(loop, 2).advance)
    loop.fire(late_s=-1e-9)
    assert loop.fire() == pytest.approx(0.04)


def test_a_stream_that_joins_in_a_step_waits_for_the_next(loop: ManualLoop) -> None:
    """A request that was waiting behind a stream starts one step after its end, and is set once."""
    clock = StepClock(loop, 0.02)
    second = Stream(loop, 2)

    def end() -> bool:
        clock.join(second.advance)
        return False

    clock.join(end)
    for _ in range(3):
        loop.fire()
    assert second.sent_s == pytest.approx([0.04, 0.06])


def test_without_a_pace_steps_follow_each_other_through_the_loop() -> None:
    """Between two steps the loop has its turn: what came in is handled, and nothing waits."""
    loop = PollLoop()
    clock = StepClock(loop, 0.0)
    turn = 0
    seen: list[int] = []

    def advance() -> bool:
        seen.append(turn)
        return len(seen) < 5

    clock.join(advance)
    began_s = time.perf_counter()
    while turn < 5:
        loop.turn(1.0)
        turn += 1
    loop.close()
    assert seen == [0, 1, 2, 3, 4]
    assert time.perf_counter() - began_s < 0.5
