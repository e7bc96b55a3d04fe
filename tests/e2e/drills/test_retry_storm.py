"""A pool whose replicas all refuse: trying again must not make it worse."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.e2e.drills.drilled import drilled, pool, until
from tests.e2e.drills.load import Load, under_load
from tests.e2e.drills.puppet import puppets

pytestmark = pytest.mark.slow

CALLS = 200
SHARE = 0.1
PER_S = 0.5
WINDOW_S = 10.0


@pytest.mark.parametrize("status", [503, 429])
async def test_the_budget_bounds_all_attempts(tmp_path: Path, status: int) -> None:
    """However many clients and replicas there are, extra tries are a share of the requests."""
    budget = f"retry_budget = {{ share = {SHARE}, per_s = {PER_S} }}\nretries = 5\nqueue_s = 2"
    async with puppets(4) as made:
        urls = [puppet.url for puppet in made]
        async with drilled(tmp_path, pool(*urls, extra=budget), up=urls) as service:
            for puppet in made:
                puppet.status = status
            load = Load(service.port)
            async with trio.open_nursery() as nursery:
                for _ in range(CALLS):
                    nursery.start_soon(load.call)
            load.assert_accounted(refused=CALLS)
            for call in load.of("refused"):
                assert call.answer.status in (status, 503), call
            attempts = sum(len(puppet.calls) for puppet in made)
            assert attempts <= CALLS * (1 + SHARE) + PER_S * WINDOW_S
            # What asks for patience gets some: it is not asked as often as clients ask.
            counted = [int(call.answer.headers[ATTEMPTS]) for call in load.of("refused")]
            assert sum(counted) == attempts
            await service.assert_settled(load)


ATTEMPTS = "x-triolet-attempts"


async def test_it_serves_again_at_once(tmp_path: Path) -> None:
    """When the storm is over nobody is refused any more, though the budget was used up."""
    async with puppets(2) as made:
        urls = [puppet.url for puppet in made]
        async with drilled(tmp_path, pool(*urls), up=urls) as service:
            for puppet in made:
                puppet.status = 503
            async with under_load(service.port, clients=12) as load:
                await until(lambda: load.kinds["refused"] > 20)
                for puppet in made:
                    puppet.status = None
                over_at = trio.current_time()
                # A replica that refuses is left alone for 5 s at most.
                await until(lambda: sum(load.by_replica(over_at).values()) > 40, within_s=7)
            load.assert_accounted(told=0)
            late = [call for call in load.of("refused") if call.sent_at > over_at]
            assert late == []
            await service.assert_settled(load)
