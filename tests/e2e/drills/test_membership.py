"""Replicas leave and come under load, by every way in which they can."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.e2e.drills.drilled import Drilled, drilled, pool, until, until_async
from tests.e2e.drills.load import Load, under_load
from tests.e2e.drills.puppet import Puppet, puppets
from tests.e2e.faults.client import MODEL

pytestmark = pytest.mark.slow

REPLICAS = "/admin/api/replicas"
Change = Callable[[Drilled, Path, list[str], str], Awaitable[None]]
"""Has the pool go on with these URLs; the last one is that which is concerned."""


async def _gone(service: Drilled, url: str) -> None:
    async def is_so() -> bool:
        return url not in await service.replicas()

    await until_async(is_so)


async def _there(service: Drilled, url: str) -> None:
    await service.until_state(url, "up")


async def _drain(service: Drilled, _: Path, urls: list[str], url: str) -> None:
    await service.change("POST", f"{REPLICAS}/drain", {"url": url, "draining": url not in urls})
    if url in urls:
        await _there(service, url)
    else:
        assert (await service.replica(url))["state"] == "draining"


async def _admin(service: Drilled, _: Path, urls: list[str], url: str) -> None:
    method = "POST" if url in urls else "DELETE"
    await service.change(method, REPLICAS, {"model": MODEL, "url": url})
    await (_there if url in urls else _gone)(service, url)


async def _sighup(service: Drilled, _: Path, urls: list[str], url: str) -> None:
    service.configure(pool(*urls))
    service.server.send(signal.SIGHUP)
    await (_there if url in urls else _gone)(service, url)


async def _file(service: Drilled, directory: Path, urls: list[str], url: str) -> None:
    _write_list(directory, urls)
    await (_there if url in urls else _gone)(service, url)


def _write_list(directory: Path, urls: list[str]) -> None:
    fresh = directory / "replicas.new"
    fresh.write_text(json.dumps({"replicas": urls}))
    os.replace(fresh, directory / "replicas.json")


def _pool(way: Change, directory: Path, urls: list[str]) -> str:
    if way is not _file:
        return pool(*urls)
    _write_list(directory, urls)
    return pool(extra='replicas_file = "replicas.json"')


async def _served(load: Load, calls: int) -> None:
    wanted = load.kinds["answered"] + calls
    await until(lambda: load.kinds["answered"] >= wanted)


@pytest.mark.parametrize("way", [_drain, _admin, _sighup, _file])
async def test_leaves_and_comes(tmp_path: Path, way: Change) -> None:
    """Its streams end well, it gets nothing new; then it gets traffic again. Nobody notices."""
    async with puppets(3) as made:
        urls = [puppet.url for puppet in made]
        leaving = made[0]
        async with drilled(tmp_path, _pool(way, tmp_path, urls), up=urls) as service:
            async with under_load(service.port) as load:
                await _served(load, 60)
                await until(lambda: leaving.in_flight > 2)
                await way(service, tmp_path, urls[1:], leaving.url)
                await _assert_left_alone(load, leaving)
                back_at = trio.current_time()
                await way(service, tmp_path, urls, leaving.url)
                await until(lambda: load.by_replica(back_at)[leaving.url] > 3)
            load.assert_accounted(refused=0, told=0)
            # No attempt failed either: each call was heard once, by one replica.
            heard = [call.id for puppet in made for call in puppet.calls]
            assert sorted(heard) == sorted(call.id for call in load.calls)
            await service.assert_settled(load)


async def _assert_left_alone(load: Load, leaving: Puppet) -> None:
    heard = len(leaving.calls)
    await _served(load, 60)
    await until(lambda: leaving.in_flight == 0)
    assert len(leaving.calls) == heard
    assert all(call.answered for call in leaving.calls)


async def test_another_takes_its_place(tmp_path: Path) -> None:
    """The list is replaced as a whole, again and again, and no call is lost in any change."""
    async with puppets(4) as made:
        urls = [puppet.url for puppet in made]
        async with drilled(tmp_path, pool(*urls[:2]), up=urls[:2]) as service:
            async with under_load(service.port) as load:
                for pair in (urls[2:], urls[:2], urls[1:3]):
                    await _served(load, 30)
                    service.configure(pool(*pair))
                    service.server.send(signal.SIGHUP)
                    await service.until_up(pair)
                since = trio.current_time()
                await _served(load, 60)
            load.assert_accounted(refused=0, told=0)
            assert set(load.by_replica(since)) == {urls[1], urls[2]}
            await service.assert_settled(load)
