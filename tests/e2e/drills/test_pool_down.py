"""Every replica of a pool is gone for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.e2e.drills.drilled import Drilled, drilled, pool, until
from tests.e2e.drills.load import Call, Load, under_load
from tests.e2e.drills.puppet import Puppet, puppets

pytestmark = pytest.mark.slow

QUICKLY_S = 1.0
"""A refusal while nobody is there; on an idle machine it takes milliseconds."""
RECOVERY_S = 3.0


@asynccontextmanager
async def _outage(
    service: Drilled, made: list[Puppet], *, clients: int = 12
) -> AsyncIterator[tuple[Load, float]]:
    """All go down under load, and stay so during the block; all come back, and are used again.
    Gives the load, and the time from which on all of them were known to be down."""
    async with under_load(service.port, clients=clients) as load:
        await until(lambda: load.kinds["answered"] > 40)
        for puppet in made:
            puppet.down()
        for puppet in made:
            await service.until_state(puppet.url, "down", within_s=2)
        yield load, trio.current_time()
        for puppet in made:
            puppet.up()
        back_at = trio.current_time()
        urls = {puppet.url for puppet in made}
        await until(lambda: set(load.by_replica(back_at)) >= urls, within_s=RECOVERY_S)
        # Nobody is refused any more, once they are back.
        known_at = trio.current_time()
        await until(lambda: sum(call.sent_at > known_at for call in load.ended) > 40)
    after = [call for call in load.ended if call.sent_at > known_at]
    assert {call.kind for call in after} == {"answered"}


def _assert_refused_clearly(calls: list[Call]) -> None:
    assert len(calls) > 20
    for call in calls:
        assert call.kind == "refused", call
        assert call.answer.status in (502, 503), call
        error = call.answer.error
        assert error["type"] == "server_error"
        assert error["code"] in ("replica_unreachable", "overloaded"), call
        assert call.answer.headers["content-type"] == "application/json"
        assert call.took_s < QUICKLY_S, call.took_s


async def test_down_and_back(tmp_path: Path) -> None:
    """Clear, quick errors while nobody is there; traffic again within seconds of the return."""
    async with puppets(2) as made:
        urls = [puppet.url for puppet in made]
        async with drilled(tmp_path, pool(*urls), up=urls) as service:
            async with _outage(service, made) as (load, down_at):
                before = load.kinds["refused"]
                await until(lambda: load.kinds["refused"] > before + 40)
                health = await service.get("/healthz")
                assert health.json() == {"status": "ok"}
            refused = [call for call in load.of("refused") if call.sent_at > down_at]
            _assert_refused_clearly(refused)
            load.assert_accounted()
            await service.assert_settled(load)


async def test_the_fallback_answers(tmp_path: Path) -> None:
    """With a fallback nobody is refused: its model answers, and the head says so."""
    async with puppets(3) as made:
        *own, other = made
        urls = [puppet.url for puppet in own]
        pools = (
            pool(*urls, extra='fallback = ["small"]'),
            pool(other.url, model="small"),
        )
        async with drilled(tmp_path, *pools, up=[p.url for p in made]) as service:
            async with _outage(service, own) as (load, down_at):
                await until(lambda: load.by_replica(down_at)[other.url] > 40)
            load.assert_accounted(refused=0)
            fell_back = [call for call in load.of("answered") if call.replica == other.url]
            for call in fell_back:
                assert call.answer.headers["x-triolet-model"] == "small"
                assert call.answer.headers["x-triolet-fell-back-from"] == "m"
            late = [call for call in fell_back if call.sent_at > down_at]
            assert max(call.took_s for call in late) < QUICKLY_S
            assert len({heard.id for heard in other.calls}) == len(other.calls)
            await service.assert_settled(load)
