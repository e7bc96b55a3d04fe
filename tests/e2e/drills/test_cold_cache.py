"""A replica is started again with an empty cache: what was believed of it is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.drills.drilled import Drilled, drilled, pool, until
from tests.e2e.drills.fleet import fleet
from tests.e2e.drills.load import Call, Load, under_load

pytestmark = pytest.mark.slow

PACE = ("--profile", "h100-llama-8b")
CLIENTS = 18
CALLS = 12
"""Of a session of every second client; then it begins another, with another prompt. The others
go on with the first as long as the drill lasts."""
WARM = 0.75
"""Hit rate once each session has settled."""


def _sessions() -> Callable[[int], dict[str, Any]]:
    counted: Counter[int] = Counter()

    def fields(client: int) -> dict[str, Any]:
        counted[client] += client % 2
        text = f"client {client} session {counted[client] // CALLS} " * 250
        return {"max_tokens": 4, "messages": [{"role": "user", "content": text}]}

    return fields


def _hit_rate(calls: list[Call]) -> float:
    prompt = cached = 0
    for call in calls:
        usage = call.usage
        prompt += usage["prompt_tokens"]
        cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return cached / prompt if prompt else 0.0


def _is_warm(load: Load, since: float = 0.0) -> bool:
    calls = [call for call in load.of("answered") if call.sent_at > since]
    return len(calls) >= 4 * CLIENTS and _hit_rate(calls[-4 * CLIENTS :]) >= WARM


async def _believed_there(service: Drilled, call: Call, url: str) -> int:
    """The tokens that this replica was believed to hold when the call was placed."""
    decision = (await service.get(f"/admin/api/decisions/{call.id}")).json()
    candidates = decision["placements"][-1]["explanation"]["candidates"]
    [matched] = [one["matched_tokens"] for one in candidates if one["replica"] == url]
    return int(matched)


async def _beliefs(service: Drilled, load: Load, url: str, back_at: float) -> list[int]:
    """The same for the sessions that were there before and not since: each is asked once more,
    now that nothing else goes on and every replica is a candidate."""
    texts = {
        is_back: {
            call.text
            for call in load.ended
            if call.replica == url and (call.sent_at > back_at) is is_back
        }
        for is_back in (False, True)
    }
    found = []
    for text in sorted(texts[False] - texts[True]):
        call = await load.call(max_tokens=4, messages=[{"role": "user", "content": text}])
        found.append(await _believed_there(service, call, url))
    return found


async def test_restarted(tmp_path: Path) -> None:
    """The hit rate recovers, and nothing is sent there for what it no longer has."""
    async with fleet(tmp_path, 3, *PACE) as engines:
        urls = [engine.url for engine in engines]
        async with drilled(tmp_path, pool(*urls), up=urls) as service:
            async with under_load(service.port, clients=CLIENTS, fields=_sessions()) as load:
                await until(lambda: _is_warm(load))
                share = load.by_replica()[urls[0]]
                assert share > 0
                killed_at = trio.current_time()
                await engines[0].kill()
                await service.until_state(urls[0], "down", within_s=2)
                await engines[0].start()
                await service.until_state(urls[0], "up", "trial")
                back_at = trio.current_time()
                await until(lambda: load.by_replica(back_at)[urls[0]] >= 1, within_s=8)
                there_at = trio.current_time()
                await until(lambda: _is_warm(load, there_at), within_s=8)
            load.assert_accounted(refused=0)
            assert {call.replica for call in load.of("told")} <= {urls[0]}
            there = [
                call
                for call in load.of("answered")
                if call.replica == urls[0] and call.sent_at > killed_at
            ]
            # No burst: it has one call at a time at first, which is far less than its share.
            early = [call for call in there if call.sent_at < back_at + 0.5]
            total = [call for call in load.ended if back_at < call.sent_at < back_at + 0.5]
            assert len(early) < len(total) / 2
            beliefs = await _beliefs(service, load, urls[0], back_at)
            assert beliefs
            assert not any(beliefs)
            await service.assert_settled(load)
