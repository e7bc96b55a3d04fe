"""Clients leave by the dozen, in every phase: replicas hear of it, and nothing stays behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.drills.drilled import Drilled, drilled, pool, until, until_async
from tests.e2e.drills.load import Load
from tests.e2e.drills.puppet import Heard, Puppet, puppets

pytestmark = pytest.mark.slow

NOTICED_S = 0.1
"""How soon the connection to the replica is closed once its client is gone."""
CLIENTS = 12


@asynccontextmanager
async def _clients(service: Drilled, load: Load, **fields: Any) -> AsyncIterator[None]:
    """They call at the same time; at the end of the block all leave."""
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(lambda: load.call(**fields))
        yield
        nursery.cancel_scope.cancel("all clients leave")


async def _assert_noticed(service: Drilled, load: Load, heard: list[Heard]) -> None:
    left_at = trio.current_time()
    await until(lambda: all(call.gone_at < left_at + 5 for call in heard))
    assert max((call.gone_at for call in heard), default=left_at) - left_at < NOTICED_S
    load.assert_accounted(refused=0, told=0)
    assert load.kinds["left"] == len(load.calls) == CLIENTS
    await service.assert_settled(load)
    assert sum((await service.metric("triolet_attempts_failed_total")).values()) == 0


def _waits(made: list[Puppet]) -> None:
    for puppet in made:
        puppet.go_on = trio.Event()


def _streams(made: list[Puppet]) -> None:
    for puppet in made:
        puppet.gap_s = 0.01


@pytest.mark.parametrize("phase", [_waits, _streams])
async def test_at_a_replica(tmp_path: Path, phase: Callable[[list[Puppet]], None]) -> None:
    """Before the first event, and in mid-stream."""
    async with puppets(2) as made:
        urls = [puppet.url for puppet in made]
        async with drilled(tmp_path, pool(*urls), up=urls) as service:
            phase(made)
            load = Load(service.port)
            async with _clients(service, load, max_tokens=10_000):
                await until(lambda: sum(puppet.in_flight for puppet in made) == CLIENTS)
                if phase is _streams:
                    await until(lambda: all(call.begun for call in load.in_flight))
            await _assert_noticed(service, load, [c for p in made for c in p.calls])


async def test_in_the_queue(tmp_path: Path) -> None:
    """Those who wait leave the line, and no replica ever hears of them."""
    async with puppets(1) as made:
        [only] = made
        _waits(made)
        async with drilled(tmp_path, pool(only.url, max_in_flight=2), up=[only.url]) as service:
            load = Load(service.port)

            async def all_wait() -> bool:
                return bool((await service.pool())["waiting"] == CLIENTS - 2)

            async with _clients(service, load):
                await until_async(all_wait)
            await _assert_noticed(service, load, only.calls)
            assert len(only.calls) == 2


async def test_in_a_hedge(tmp_path: Path) -> None:
    """Both replicas that were asked are let go."""
    hedge = "hedge = { after_s = 0.05, share = 0.5 }"
    async with puppets(2) as made:
        _waits(made)
        urls = [puppet.url for puppet in made]
        async with drilled(tmp_path, pool(*urls, extra=hedge), up=urls) as service:
            load = Load(service.port)
            async with _clients(service, load):
                await until(lambda: sum(puppet.in_flight for puppet in made) == 2 * CLIENTS)
            await _assert_noticed(service, load, [c for p in made for c in p.calls])
            heard = sorted(call.id for puppet in made for call in puppet.calls)
            assert heard == sorted([call.id for call in load.calls] * 2)


async def test_while_its_replica_asks_for_patience(tmp_path: Path) -> None:
    """In the pause before it is asked again: neither they nor those in line behind reach it."""
    async with puppets(1) as made:
        [only] = made
        async with drilled(tmp_path, pool(only.url), up=[only.url]) as service:
            only.status = 503
            only.retry_after = 1
            load = Load(service.port)

            async def others_wait() -> bool:
                return bool((await service.pool())["waiting"] >= CLIENTS - 1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.call)
                await until(lambda: bool(only.calls) and only.in_flight == 0)
                for _ in range(CLIENTS - 1):
                    nursery.start_soon(load.call)
                await until_async(others_wait)
                nursery.cancel_scope.cancel("all clients leave")
            only.status = None
            load.assert_accounted(refused=0, told=0)
            assert load.kinds["left"] == CLIENTS
            await service.assert_settled(load)
            # Who comes next is served once the pause is over; those who left do not come again.
            after = Load(service.port)
            await after.call()
            assert after.kinds["answered"] == 1
            assert len(only.calls) == 2
            await service.assert_settled(load, after)
