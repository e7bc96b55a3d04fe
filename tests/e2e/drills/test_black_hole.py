"""A replica that accepts connections and never answers."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.e2e.drills.drilled import drilled, pool, until
from tests.e2e.drills.fleet import fleet
from tests.e2e.drills.load import Load, under_load
from tests.e2e.drills.puppet import puppets

pytestmark = pytest.mark.slow

FOUND_S = 2.5
"""Three probes of 0.2 s, each 0.2 to 0.5 s after the last, and something for a busy machine."""
PACE = ("--profile", "h100-llama-8b")


def _slowest_elsewhere(load: Load, url: str, since: float) -> float:
    """Of those that were never at the black hole."""
    waits = [
        call.head_at - call.sent_at
        for call in load.of("answered")
        if call.head_at is not None
        and call.sent_at >= since
        and call.answer.headers["x-triolet-attempts"] == "1"
        and call.replica != url
    ]
    assert len(waits) > 30
    return max(waits)


async def test_what_is_there_is_moved_once_probes_find_it(tmp_path: Path) -> None:
    """Nobody is lost, nobody elsewhere is slowed; it is used again when it speaks again."""
    async with puppets(3) as made:
        urls = [puppet.url for puppet in made]
        hole = made[0]
        limits = "connect_s = 0.5, first_byte_s = 10, idle_s = 1, total_s = 15"
        async with drilled(tmp_path, pool(*urls, timeouts=limits), up=urls) as service:
            async with under_load(service.port) as load:
                await until(lambda: load.kinds["answered"] > 60)
                hole.silent = True
                silent_at = trio.current_time()
                await until(lambda: hole.in_flight >= 2)
                await service.until_state(hole.url, "down", within_s=FOUND_S)
                heard = len(hole.calls)
                # Triolet has let go of what it had there, as the replica sees it.
                await until(lambda: hole.in_flight == 0, within_s=FOUND_S)
                assert len(hole.calls) == heard
                hole.silent = False
                back_at = trio.current_time()
                await until(lambda: load.by_replica(back_at)[hole.url] > 3)
            load.assert_accounted(refused=0)
            # Those that streamed when it fell silent ended at idle_s.
            assert all(call.begun and call.replica == hole.url for call in load.of("told"))
            moved = [call for call in load.of("answered") if call.answer.headers[ATTEMPTS] != "1"]
            assert moved
            assert max(call.took_s for call in moved) < FOUND_S + 1
            assert _slowest_elsewhere(load, hole.url, silent_at) < 1.0
            await service.assert_settled(load)


ATTEMPTS = "x-triolet-attempts"


async def test_a_stopped_process(tmp_path: Path) -> None:
    """The same for a process that was stopped: its kernel still accepts connections for it."""
    async with fleet(tmp_path, 2, *PACE) as engines:
        urls = [engine.url for engine in engines]
        stopped = engines[0]
        limits = "connect_s = 0.5, first_byte_s = 10, idle_s = 10, total_s = 15"
        # A policy that sees no load: it is the probes that keep calls away from there.
        served = pool(*urls, timeouts=limits, extra='policy = "round_robin"')
        async with drilled(tmp_path, served, up=urls) as service:
            async with under_load(service.port) as load:
                await until(lambda: load.kinds["answered"] > 30)
                stopped.send(signal.SIGSTOP)
                stopped_at = trio.current_time()
                try:
                    await service.until_state(stopped.url, "down", within_s=FOUND_S)
                    sent = (await service.replica(stopped.url))["requests"]
                    before = load.by_replica()[urls[1]]
                    await until(lambda: load.by_replica()[urls[1]] > before + 30)
                    assert (await service.replica(stopped.url))["requests"] == sent
                finally:
                    stopped.send(signal.SIGCONT)
                going_at = trio.current_time()
                await until(lambda: load.by_replica(going_at)[stopped.url] > 3)
            # Streams that had begun went on when it did: idle_s had not passed.
            load.assert_accounted(refused=0, told=0)
            assert _slowest_elsewhere(load, stopped.url, stopped_at) < 1.0
            await service.assert_settled(load)


async def test_the_fallback_answers_at_first_byte_s(tmp_path: Path) -> None:
    """Where probes are answered and calls are not, a call goes to the fallback at its limit."""
    async with puppets(2) as made:
        deaf, other = made
        limits = "connect_s = 0.5, first_byte_s = 0.4, idle_s = 5, total_s = 15"
        pools = (
            pool(deaf.url, extra='fallback = ["small"]', timeouts=limits),
            pool(other.url, model="small"),
        )
        deaf.go_on = trio.Event()
        async with drilled(tmp_path, *pools, up=[deaf.url, other.url]) as service:
            load = Load(service.port)
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(load.call)
            load.assert_accounted(refused=0, told=0)
            for call in load.of("answered"):
                assert call.replica == other.url
                assert call.answer.headers["x-triolet-model"] == "small"
                assert call.took_s < 1.5
            await until(lambda: deaf.in_flight == 0)
            assert len(deaf.calls) == 8
            await service.assert_settled(load)
