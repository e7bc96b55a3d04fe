"""A replica is killed under load, and comes back."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.drills.drilled import Drilled, drilled, pool, until, until_async
from tests.e2e.drills.fleet import Engine, fleet
from tests.e2e.drills.load import Call, Load, under_load
from tests.e2e.drills.puppet import puppets

pytestmark = pytest.mark.slow

PACE = ("--profile", "h100-llama-8b", "--time-scale", "2")
TOKENS = 12
EVENLY = 'policy = "round_robin"'
ATTEMPTS = "x-triolet-attempts"


_prompts = count()


def _fields(client: int) -> dict[str, Any]:
    """Each prompt is new, and long enough that many have not begun at any time."""
    text = f"prompt {next(_prompts)} " * 200
    return {"max_tokens": TOKENS, "messages": [{"role": "user", "content": text}]}


async def _ramp_of(service: Drilled, url: str) -> list[tuple[int | None, int]]:
    """Room and load of a replica that came back, seen until it may take four or more at once."""
    seen: list[tuple[int | None, int]] = []

    async def is_trusted() -> bool:
        shown = await service.replica(url)
        if shown["state"] == "up" and shown["requests"]:
            seen.append((shown["room"], shown["in_flight"]))
        return bool(seen) and (seen[-1][0] is None or seen[-1][0] >= 4)

    await until_async(is_trusted, within_s=8)
    return seen


async def test_kill_9(tmp_path: Path) -> None:
    """What had begun there is told in-band, all else is answered; it gets traffic when back."""
    async with fleet(tmp_path, 3, *PACE) as engines:
        urls = [engine.url for engine in engines]
        async with drilled(tmp_path, pool(*urls), up=urls) as service:
            async with under_load(service.port, fields=_fields) as load:
                begun = await _kill_under_load(load, engines[0])
                await service.until_state(urls[0], "down", within_s=2)
                await _is_back(service, load, engines[0])
            _assert_only_begun_are_lost(load, engines[0], begun)
            await service.assert_settled(load)


async def _kill_under_load(load: Load, engine: Engine) -> list[Call]:
    """Kill it when it streams and holds calls that have not begun; those that had begun."""
    await until(lambda: load.kinds["answered"] > 60)

    def begun() -> list[Call]:
        return [call for call in load.in_flight if call.begun and call.replica == engine.url]

    await until(lambda: len(begun()) >= 3)
    streaming = begun()
    await engine.kill()
    return streaming


def _assert_only_begun_are_lost(load: Load, engine: Engine, begun: list[Call]) -> None:
    load.assert_accounted(refused=0)
    told = load.of("told")
    assert {call.replica for call in told} == {engine.url}
    assert all(call.begun for call in told)
    # Of those seen to stream a moment before, at least one had not come to its end.
    assert set(told) & set(begun)
    # Those that were there and had not begun were moved: their answers say so.
    assert any(int(call.answer.headers[ATTEMPTS]) > 1 for call in load.of("answered"))


async def _is_back(service: Drilled, load: Load, engine: Engine) -> None:
    lost = load.kinds["told"]
    before = len(load.ended)
    await until(lambda: len(load.ended) > before + 30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.start)
        seen = await _ramp_of(service, engine.url)
    limited = [(room, in_flight) for room, in_flight in seen if room is not None]
    assert limited, "it does not start slowly"
    assert limited[0][0] in (1, 2)
    assert all(in_flight <= room for room, in_flight in limited)
    since = load.ended[-1].sent_at
    await until(lambda: load.by_replica(since)[engine.url] >= 5)
    assert load.kinds["told"] == lost


async def test_each_one_that_had_begun_and_no_other(tmp_path: Path) -> None:
    """To the request: told are those with a first event there, moved are those without."""
    async with puppets(3) as made:
        urls = [puppet.url for puppet in made]
        killed = made[0]
        async with drilled(tmp_path, pool(*urls, extra=EVENLY), up=urls) as service:
            load = Load(service.port)
            async with trio.open_nursery() as nursery:
                for puppet in made:
                    puppet.gap_s = 0.05
                for _ in range(15):
                    nursery.start_soon(partial(load.call, max_tokens=100))
                await until(lambda: sum(call.begun for call in load.in_flight) == 15)
                for puppet in made:
                    puppet.go_on = trio.Event()
                for _ in range(15):
                    nursery.start_soon(load.call)
                await until(lambda: sum(puppet.in_flight for puppet in made) == 30)
                there = {heard.id for heard in killed.calls}
                killed.down()
                for puppet in made[1:]:
                    puppet.gap_s = 0.0
                    puppet.go_on.set()
            begun = {call.id for call in load.calls if call.tokens == 100}
            load.assert_accounted(refused=0)
            assert {call.id for call in load.of("told")} == there & begun
            moved = {call.id for call in load.calls if call.answer.headers[ATTEMPTS] != "1"}
            assert moved == there - begun
            assert len(there) == len(killed.calls) == 10
            await service.assert_settled(load)
