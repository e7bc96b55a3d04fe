"""Slots by tier and kind of work: never too many, fair between apps, none lost."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from server.workflow.capacity import Capacity, Load
from server.workflow.node import Work

PAIR: tuple[str, Work] = ("interactive", "io")


async def hold(capacity: Capacity, app: str, s: float, log: list[str] | None = None) -> None:
    await capacity.acquire("interactive", "io", app)
    try:
        if log is not None:
            log.append(app)
        await trio.sleep(s)
    finally:
        capacity.release("interactive", "io", app)


async def test_an_app_holds_no_more_than_its_share(autojump_clock: trio.testing.MockClock) -> None:
    """Half of the slots; the rest is there for others at once."""
    capacity = Capacity({PAIR: 4})
    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(hold, capacity, "slow", 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert capacity.load()[PAIR] == Load(slots=4, used=2, waiting=298)
        began = trio.current_time()
        await hold(capacity, "other", 1)
        assert trio.current_time() - began == 1
        nursery.cancel_scope.cancel()
    assert capacity.load()[PAIR] == Load(slots=4, used=0, waiting=0)


@pytest.mark.parametrize(("slots", "kept"), [(2, 0), (3, 1), (10, 1), (16, 2)])
async def test_apps_that_hold_none_are_not_shut_out(
    slots: int, kept: int, autojump_clock: trio.testing.MockClock
) -> None:
    """However many slots the nodes of two other apps hang in."""
    capacity = Capacity({PAIR: slots})
    async with trio.open_nursery() as nursery:
        for app in "ab":
            for _ in range(50):
                nursery.start_soon(hold, capacity, app, 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert capacity.load()[PAIR].used == slots - kept
        began = trio.current_time()
        for app in "cd" if kept else "":
            await hold(capacity, app, 1)
        assert trio.current_time() - began == (2 if kept else 0)
        nursery.cancel_scope.cancel()
    assert capacity.load()[PAIR] == Load(slots=slots, used=0, waiting=0)


async def test_who_holds_none_goes_first(autojump_clock: trio.testing.MockClock) -> None:
    """Before those who wait for one more, however long they do."""
    capacity = Capacity({PAIR: 4}, share=1)
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        for app, s in (("a", 9), ("a", 5), ("b", 9), ("c", 9), ("a", 9), ("d", 9)):
            nursery.start_soon(hold, capacity, app, s, log)
            await trio.testing.wait_all_tasks_blocked()
    assert log == ["a", "a", "b", "c", "d", "a"]


async def test_tiers_and_kinds_of_work_do_not_touch(autojump_clock: trio.testing.MockClock) -> None:
    """What is full in one is free in the others."""
    capacity = Capacity({PAIR: 1}, default=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, capacity, "a", 1000)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await capacity.acquire("interactive", "model", "a")
            await capacity.acquire("batch", "io", "a")
            await capacity.acquire("control", "io", "a")
        nursery.cancel_scope.cancel()


async def test_waiting_apps_are_served_in_turn(autojump_clock: trio.testing.MockClock) -> None:
    """One each, however many one of them has waiting."""
    capacity = Capacity({PAIR: 1})
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        for app in ("first", "a", "a", "a", "b", "b", "c"):
            nursery.start_soon(hold, capacity, app, 1, log)
            await trio.testing.wait_all_tasks_blocked()
    assert log == ["first", "a", "b", "c", "a", "b", "a"]


async def test_a_cancelled_wait_leaves_the_queue(autojump_clock: trio.testing.MockClock) -> None:
    """And takes nobody's turn."""
    capacity = Capacity({PAIR: 1})
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, capacity, "first", 5, log)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await hold(capacity, "a", 1, log)
        assert capacity.load()[PAIR].waiting == 0
        nursery.start_soon(hold, capacity, "b", 1, log)
    assert log == ["first", "b"]


async def test_a_cancellation_after_the_wake_up_loses_no_slot(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The slot was charged; its holder gives it back."""
    capacity = Capacity({PAIR: 1})
    await capacity.acquire("interactive", "io", "x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, capacity, "a", 100)
        await trio.testing.wait_all_tasks_blocked()
        capacity.release("interactive", "io", "x")
        nursery.cancel_scope.cancel()
    assert capacity.load()[PAIR] == Load(slots=1, used=0, waiting=0)


async def test_a_cancelled_task_takes_no_slot() -> None:
    """It is a checkpoint."""
    capacity = Capacity({PAIR: 1})
    with trio.CancelScope() as scope:
        scope.cancel()
        await capacity.acquire("interactive", "io", "a")
    assert scope.cancelled_caught
    assert capacity.load()[PAIR].used == 0


@pytest.mark.parametrize(("slots", "share"), [(0, 0.5), (1, 0), (1, 1.5)])
def test_what_makes_no_sense_is_refused(slots: int, share: float) -> None:
    """When it is configured."""
    with pytest.raises(ValueError, match="make no sense"):
        Capacity({PAIR: slots}, share=share)


STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 6), st.integers(0, 6), st.booleans()),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 18), share=st.sampled_from([0.25, 0.5, 1.0]), steps=STEPS)
def test_slots_are_never_too_many_and_never_idle(
    count: int, share: float, steps: list[tuple[str, int, int, bool]]
) -> None:
    """For apps that come, hold, give up: at every moment no app has more than its share, no slot is
    free while an app waits that may take it (the kept ones only if it holds none), and in the end
    none is missing."""
    capacity = Capacity({PAIR: count}, share=share)
    most = max(1, int(count * share))
    kept = max(1, count // 8) if count >= 3 else 0
    held: Counter[str] = Counter()
    waiting: Counter[str] = Counter()

    async def one(app: str, at: int, s: int, patient: bool) -> None:
        await trio.sleep(at)
        waiting[app] += 1
        got = False
        with trio.move_on_after(1000 if patient else 1.5):
            await capacity.acquire("interactive", "io", app)
            got = True
        waiting[app] -= 1
        if not got:
            return
        held[app] += 1
        try:
            await trio.sleep(s)
        finally:
            held[app] -= 1
            capacity.release("interactive", "io", app)

    async def watch() -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            assert sum(held.values()) <= count
            assert all(each <= most for each in held.values())
            free = count - sum(held.values())
            for app in (app for app, number in waiting.items() if number and free):
                assert held[app] >= most or (held[app] and free <= kept)
            await trio.sleep(0.5)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as inner:
                for step in steps:
                    inner.start_soon(one, *step)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert capacity.load()[PAIR] == Load(slots=count, used=0, waiting=0)
