"""What the client says against itself, and when."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing

from bench.load.plan import Plan, Rated
from bench.load.record import Record
from bench.load.result import ClientFacts
from bench.load.selfcheck import (
    LagWatch,
    PassWatch,
    client_warnings,
    facts_of,
    quantile,
    watched_passes,
)
from bench.load.timer import open_timer
from tests.bench.load.rig import plan

Clock = trio.testing.MockClock


def record(
    sent_s: float = 0.0, *, scheduled_s: float | None = None, streamed: bool = True
) -> Record:
    """A healthy request: first text after 100 ms, end after a second."""
    return Record(
        phase="profiling",
        session=0,
        turn=0,
        request_id="r",
        streamed=streamed,
        scheduled_s=scheduled_s,
        sent_s=sent_s,
        content_s=[sent_s + 0.1, sent_s + 1.0],
        ended_s=sent_s + 1.0,
        outcome="ok",
        asked_input_tokens=1,
    )


def said(load: Plan, records: list[Record], **facts: float) -> tuple[list[str], bool]:
    warnings, spoiled = client_warnings(load, records, ClientFacts(**facts))  # type: ignore[arg-type]
    return [text.partition(":")[0] for text in warnings], spoiled


def test_lag_is_told_from_one_percent_on() -> None:
    """1 % of the time to the first text; ten times that spoils the run."""
    assert said(plan(), [record()], lag_p99_s=0.0009) == ([], False)
    assert said(plan(), [record()], lag_p99_s=0.0011) == (["client lag"], False)
    assert said(plan(), [record()], lag_p99_s=0.011) == (["client lag"], True)
    assert said(plan(), [record()], lag_p99_s=0.002, lag_mean_s=0.0011) == (["client lag"], True)


def test_busy_client() -> None:
    """A loop without a pause is what limits the rates."""
    assert said(plan(), [record()], busy_share=0.89) == ([], False)
    assert said(plan(), [record()], busy_share=0.95) == (["client busy"], True)


def test_late_sending() -> None:
    """Sent over 1 % of the latency after its time."""
    load = plan(loop=Rated(rate=1))
    assert said(load, [record()], send_delay_p99_s=0.009) == ([], False)
    assert said(load, [record()], send_delay_p99_s=0.02) == (["client delay"], False)
    assert said(load, [record()], send_delay_p99_s=0.2) == (["client delay"], True)


def test_rate_not_reached() -> None:
    """Below 95 % of the rate; chance is allowed for where arrivals are random."""
    slow = [record(number / 9) for number in range(101)]
    assert said(plan(loop=Rated(rate=10, arrival="constant")), slow)[0] == ["request rate"]
    assert said(plan(loop=Rated(rate=9, arrival="constant")), slow)[0] == []
    assert said(plan(loop=Rated(rate=10)), slow)[0] == []
    assert said(plan(loop=Rated(rate=20)), slow)[0] == ["request rate"]


def test_facts() -> None:
    """Delays of open loops, CPU by request or by chunk."""
    records = [record(1.0, scheduled_s=0.9995), record(2.5, scheduled_s=2.0)]
    facts = facts_of(records, LagWatch(), PassWatch(), wall_s=4.0, cpu_s=0.002)
    assert facts.send_delay_p99_s == pytest.approx(0.5)
    assert (facts.late_sends, facts.chunks) == (1, 4)
    assert facts.cpu_us_per_chunk == pytest.approx(500)
    assert facts.cpu_us_per_request is None
    whole = [record(streamed=False)]
    facts = facts_of(whole, LagWatch(), PassWatch(), wall_s=4.0, cpu_s=0.002)
    assert facts.cpu_us_per_request == pytest.approx(2000)
    assert (facts.cpu_us_per_chunk, facts.send_delay_p99_s) == (None, None)


def test_quantile() -> None:
    """Nearest rank; None of nothing."""
    assert quantile([], 0.5) is None
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([3, 1, 2], 0.99) == 3
    assert quantile([7], 0.0) == 7


async def test_passes_are_watched() -> None:
    """A pass that blocks shows in the longest, the share and the instants it covers."""
    with watched_passes() as watch:
        await trio.lowlevel.checkpoint()
        watch.forget()
        begin = time.perf_counter()
        await trio.lowlevel.checkpoint()
        while time.perf_counter() < begin + 0.02:
            pass
        await trio.lowlevel.checkpoint()
        wall_s = time.perf_counter() - begin
    assert 0.015 < watch.longest_s < 1
    assert watch.quantile(0.5, wall_s) > 0.01
    assert watch.quantile(0.5, 100 * wall_s) < 0.01
    assert watch.busy_s <= wall_s * 1.01


async def test_lag_in_virtual_time(autojump_clock: Clock) -> None:
    """A clock that jumps is never late."""
    watch = LagWatch(period_s=0.01)
    with trio.move_on_after(1.001), open_timer() as timer:
        await watch.run(timer)
    assert len(watch.late_s) == 100
    assert max(watch.late_s) == pytest.approx(0, abs=1e-9)


async def test_timer_in_real_time() -> None:
    """Never early, and past times return at once."""
    with open_timer() as timer:
        for wait_s in (0.0, 0.0001, 0.0031):
            due = trio.current_time() + wait_s
            await timer.until(due)
            assert trio.current_time() >= due - 0.00005
        await timer.until(trio.current_time() - 100)
        with trio.move_on_after(0.001) as scope:
            await timer.until(trio.current_time() + 100)
        assert scope.cancelled_caught
        due = trio.current_time() + 0.001
        await timer.until(due)
        assert trio.current_time() >= due - 0.00005
