"""The loop's lag is measured where it arises."""

from __future__ import annotations

import time

import trio

from server.observe.looplag import LoopLag


def passes_over(lag: LoopLag, seconds: float) -> int:
    """How many passes took longer than that; `seconds` is one of the bounds."""
    counts = dict(lag.busy.cumulative())
    return int(counts["+Inf"] - counts[repr(seconds)])


def test_a_task_that_blocks_is_seen() -> None:
    """60 ms in which nothing else could run, in one pass: counted once, over 50 ms."""
    lag = LoopLag()

    async def main() -> None:
        for _ in range(5):
            await trio.sleep(0.002)
        before = passes_over(lag, 0.05)
        await trio.sleep(0.002)
        time.sleep(0.06)  # noqa: ASYNC251 - what a bug would do
        await trio.sleep(0.002)
        assert passes_over(lag, 0.05) == before + 1

    trio.run(main, instruments=[lag])
    assert lag.busy.total >= 0.06


def test_waiting_is_not_lag() -> None:
    """A loop with nothing to do for 60 ms was free all the time."""
    lag = LoopLag()

    async def main() -> None:
        await trio.sleep(0.005)
        before = lag.busy.total
        started = time.thread_time()
        await trio.sleep(0.06)
        assert lag.busy.total - before < 0.03
        assert time.thread_time() - started < 0.03

    trio.run(main, instruments=[lag])
    assert sum(lag.busy.counts) >= 2
