"""All replicas are slow: who cannot be served in time is told at once, and when to come back."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.e2e.drills.drilled import Drilled, drilled, pool, until
from tests.e2e.drills.load import Call, Load, under_load
from tests.e2e.drills.puppet import puppets

pytestmark = pytest.mark.slow

PLACES = 8
QUEUE = 16
CLIENTS = 48
ADMISSION = f"queue = {QUEUE}\nqueue_s = 10"
HURRIED = {"x-triolet-deadline-ms": "20"}
OWN = ("/healthz", "/metrics", "/admin/api/replicas")
PROMPTLY_S = 0.05


def _assert_refused_by_admission(calls: list[Call]) -> None:
    for call in calls:
        assert call.answer.status == 503, call
        assert call.answer.error["code"] == "overloaded"
        assert call.answer.headers["x-triolet-attempts"] == "0"
        assert 1 <= int(call.answer.headers["retry-after"]) <= 10


async def _own_answers(service: Drilled, rounds: int) -> list[float]:
    """How long Triolet's own pages take, in seconds, the shortest first."""
    took: list[float] = []
    for _ in range(rounds):
        for path in OWN:
            asked_at = trio.current_time()
            await service.get(path)
            took.append(trio.current_time() - asked_at)
    return sorted(took)


async def test_a_full_queue(tmp_path: Path) -> None:
    """The queue is bounded, who finds it full hears so at once, and its own pages stay prompt."""
    async with puppets(2) as made:
        urls = [puppet.url for puppet in made]
        served = pool(*urls, max_in_flight=PLACES // 2, extra=ADMISSION)
        async with drilled(tmp_path, served, up=urls) as service:
            for puppet in made:
                puppet.first_s = 0.25
            async with under_load(service.port, clients=CLIENTS) as load:
                await until(lambda: load.kinds["refused"] > CLIENTS)
                shown = await service.pool()
                assert shown["in_flight"] == PLACES
                assert 0 < shown["waiting"] <= QUEUE
                took = await _own_answers(service, rounds=15)
                await until(lambda: load.kinds["answered"] > 2 * (PLACES + QUEUE))
            assert took[int(0.9 * len(took))] < PROMPTLY_S, took
            assert took[-1] < 10 * PROMPTLY_S, took
            load.assert_accounted(told=0)
            _assert_refused_by_admission(load.of("refused"))
            assert sorted(call.took_s for call in load.of("refused"))[-10] < 0.5
            assert [puppet.most_at_once for puppet in made] == [PLACES // 2] * 2
            # Nobody in the queue was forgotten: those let in were served in the order of arrival.
            waits = [call.took_s for call in load.of("answered")]
            assert max(waits) < 0.3 * (CLIENTS / PLACES + 3)
            await service.assert_settled(load)


async def test_deadlines(tmp_path: Path) -> None:
    """A call that cannot have a replica by its deadline is refused by then; others still wait."""
    async with puppets(2) as made:
        urls = [puppet.url for puppet in made]
        served = pool(*urls, max_in_flight=PLACES // 2, extra=ADMISSION)
        async with drilled(tmp_path, served, up=urls) as service:
            for puppet in made:
                puppet.first_s = 0.4
            hurried = Load(service.port)
            async with under_load(service.port, clients=PLACES + 8) as load:
                # Its line has moved for a while: how fast it does so is known.
                await until(lambda: load.kinds["answered"] > 3 * PLACES)
                async with trio.open_nursery() as nursery:
                    for _ in range(12):
                        nursery.start_soon(lambda: hurried.call(headers=HURRIED))
            load.assert_accounted(refused=0, told=0)
            hurried.assert_accounted(told=0)
            refused = hurried.of("refused")
            assert len(refused) >= 8
            _assert_refused_by_admission(refused)
            assert max(call.took_s for call in refused) < 0.02 + 0.3
            [interactive] = [
                one for one in (await service.pool())["tiers"] if one["tier"] == "interactive"
            ]
            assert interactive["hopeless"] + interactive["late"] == len(refused)
            assert interactive["hopeless"] > 0
            await service.assert_settled(load, hurried)
