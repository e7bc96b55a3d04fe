"""Who is served first when there is too much to do, and clients that do not read."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
import trio

from tests.e2e.drills.drilled import drilled, pool, until
from tests.e2e.drills.load import Call, Load, under_load
from tests.e2e.drills.puppet import puppets
from tests.e2e.faults.client import connected, post

pytestmark = pytest.mark.slow

LAZY_TOKENS = 2_000
"""Of 100 kB each: more than all buffers between the replica and the client can take."""
BATCH = {"x-triolet-tier": "batch"}


def _waits(calls: list[Call]) -> list[float]:
    return [call.head_at - call.sent_at for call in calls if call.head_at is not None]


async def test_interactive_is_served_while_batch_waits(tmp_path: Path) -> None:
    """The next place is theirs, however many wait in the other tier; which goes on as well."""
    async with puppets(2) as made:
        urls = [puppet.url for puppet in made]
        async with drilled(tmp_path, pool(*urls, max_in_flight=2), up=urls) as service:
            for puppet in made:
                puppet.first_s = 0.15
            interactive = Load(service.port)
            async with under_load(service.port, clients=24, headers=BATCH) as batch:
                await until(lambda: batch.kinds["answered"] >= 8)
                since = trio.current_time()
                async with under_load(service.port, clients=2, load=interactive):
                    await until(lambda: interactive.kinds["answered"] >= 12)
                    tiers = {one["tier"]: one for one in (await service.pool())["tiers"]}
                    assert tiers["batch"]["waiting"] > 10
                until_at = trio.current_time()
            batch.assert_accounted(refused=0, told=0)
            interactive.assert_accounted(refused=0, told=0)
            beside = [
                call
                for call in batch.of("answered")
                if call.ended_at is not None and since < call.ended_at < until_at
            ]
            assert len(beside) > 4, "batch stood still"
            assert median(_waits(interactive.of("answered"))) < median(_waits(beside)) / 3
            assert max(_waits(interactive.of("answered"))) < 1.0
            await service.assert_settled(batch, interactive)


async def test_clients_that_do_not_read(tmp_path: Path) -> None:
    """Theirs is the only stream that stands still, and it is ended after `write_s`."""
    async with puppets(2) as made:
        urls = [puppet.url for puppet in made]
        limits = "[limits]\nwrite_s = 0.5"
        async with drilled(tmp_path, limits, pool(*urls), up=urls) as service:
            async with under_load(service.port, clients=12) as load:
                await until(lambda: load.kinds["answered"] > 30)
                quick = median(_waits(load.of("answered")))
                since = trio.current_time()
                async with connected(service.port, receive_bytes=4096) as lazy:
                    text = "x" * 100_000
                    await lazy.send(post(max_tokens=LAZY_TOKENS, messages=[{"content": text}]))
                    await until(lambda: any(c.tokens == LAZY_TOKENS for p in made for c in p.calls))
                    [heard] = [c for p in made for c in p.calls if c.tokens == LAZY_TOKENS]
                    await until(lambda: heard.gone_at < since + 8, within_s=8)
                    late = [call for call in load.of("answered") if call.sent_at > since]
                    assert len(late) > 60
            load.assert_accounted(refused=0, told=0)
            assert median(_waits(late)) < 10 * quick + 0.05
            assert (await service.pool())["in_flight"] == 0
            counted = await service.outcomes()
            assert sum(counted.values()) == len(load.calls) + 1
            assert counted["ok"] == len(load.calls)
