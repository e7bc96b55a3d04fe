"""`triolet serve` as a process with a configuration made for drills: probes and rests are short."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from tests.e2e.drills.load import ADMIN_KEY, Load, fetch
from tests.e2e.faults.client import MODEL, Answer
from tests.e2e.process.command import Server, serving

__all__ = [
    "PROBE_S",
    "SLOW_START_S",
    "Drilled",
    "drilled",
    "pool",
    "until",
    "until_async",
]

PROBE_S: Final = 0.2
SLOW_START_S: Final = 0.5
_DRILL_S: Final = 30.0
"""No drill takes so long; what does is stuck."""

_BASE: Final = f"""
log_format = "json"
[health]
interval_s = {PROBE_S}
timeout_s = {PROBE_S}
[breaker]
rest_s = 0.2
rest_max_s = 1.0
slow_start_s = {SLOW_START_S}
[admin]
key = "{ADMIN_KEY}"
[probes]
engine_s = 0.5
gpu_s = 0
"""


async def until(is_so: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait for what can only be asked; TooSlowError if it is not so in time."""
    with trio.fail_after(within_s):
        while not is_so():  # noqa: ASYNC110 - what is asked for sets no event
            await trio.sleep(0.005)


async def until_async(is_so: Callable[[], Awaitable[object]], within_s: float = 5.0) -> None:
    """The same for what is asked over a socket."""
    with trio.fail_after(within_s):
        while not await is_so():  # noqa: ASYNC110 - as above
            await trio.sleep(0.02)


def pool(
    *urls: str,
    model: str = MODEL,
    max_in_flight: int | None = None,
    extra: str = "",
    timeouts: str = "connect_s = 0.5, first_byte_s = 5, idle_s = 5, total_s = 15",
) -> str:
    """A [[pool]] of the configuration; `extra` are more of its keys, in lines."""
    limit = "" if max_in_flight is None else f", max_in_flight = {max_in_flight}"
    listed = ", ".join(f'{{ url = "{url}"{limit} }}' for url in urls)
    name = f'[[pool]]\nmodel = "{model}"\nreplicas = [{listed}]\n'
    return f"{name}timeouts = {{ {timeouts} }}\n{extra}\n"


class Drilled:
    """The Triolet of a drill, and what its own API says."""

    def __init__(self, server: Server, file: Path) -> None:
        self.server = server
        self.port = int(server.url.rpartition(":")[2])
        self._file = file

    def configure(self, *pools: str) -> None:
        """Write other pools into its file; it reads them on SIGHUP."""
        self._file.write_text("\n".join((_BASE, *pools)))

    async def get(self, path: str) -> Answer:
        answer = await fetch(self.port, path)
        assert answer.status == 200, answer.body
        return answer

    async def replicas(self) -> dict[str, dict[str, Any]]:
        """What `/admin/api/replicas` shows, by URL."""
        listed = (await self.get("/admin/api/replicas")).json()["replicas"]
        return {one["url"]: one for one in listed}

    async def replica(self, url: str) -> dict[str, Any]:
        return (await self.replicas())[url]

    async def pool(self, model: str = MODEL) -> dict[str, Any]:
        """What `/admin/api/pools` shows of one."""
        listed = (await self.get("/admin/api/pools")).json()["pools"]
        found: dict[str, Any] = {one["model"]: one for one in listed}[model]
        return found

    async def until_state(self, url: str, *states: str, within_s: float = 5.0) -> None:
        """Wait until a replica is in one of these states."""

        async def is_so() -> bool:
            shown = (await self.replicas()).get(url)
            return shown is not None and shown["state"] in states

        await until_async(is_so, within_s)

    async def until_up(self, urls: Sequence[str], within_s: float = 5.0) -> None:
        """Wait until probes have found all of these, and no others are there."""

        async def is_so() -> bool:
            shown = await self.replicas()
            ready = (await fetch(self.port, "/readyz")).status == 200
            return ready and {u for u, one in shown.items() if one["state"] == "up"} == set(urls)

        await until_async(is_so, within_s)

    async def change(self, method: str, path: str, body: object) -> None:
        """Ask the admin API for a change."""
        answer = await fetch(self.port, path, method=method, body=body)
        assert answer.status in (200, 201), answer.body

    async def metric(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The samples of one metric, by their labels."""
        found: dict[tuple[tuple[str, str], ...], float] = {}
        for line in (await self.get("/metrics")).body.decode().splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                labels = re.findall(r'(\w+)="([^"]*)"', match[2] or "")
                found[tuple(labels)] = float(match[3])
        return found

    async def outcomes(self) -> dict[str, int]:
        """Model calls ended so far, by outcome, of all models."""
        counted: dict[str, int] = {}
        for labels, number in (await self.metric("triolet_requests_total")).items():
            outcome = dict(labels)["outcome"]
            counted[outcome] = counted.get(outcome, 0) + int(number)
        return counted

    async def assert_settled(self, *loads: Load) -> None:
        """Nothing is in flight, waiting or booked any more, and each call was counted once."""

        async def is_idle() -> bool:
            return not await self._remains()

        with trio.move_on_after(3):
            await until_async(is_idle)
        assert await self._remains() == []
        counted = await self.outcomes()
        assert sum(counted.values()) == sum(len(load.calls) for load in loads), counted
        assert sum(load.kinds["answered"] for load in loads) == counted.get("ok", 0), counted
        assert sum(load.kinds["left"] for load in loads) == counted.get("client_gone", 0), counted
        assert "Traceback" not in self.server.logged()

    async def _remains(self) -> list[str]:
        found = []
        for url, one in (await self.replicas()).items():
            found += [f"{url}: {one[key]} {key}" for key in _BOOKS if one[key]]
        for shown in (await self.get("/admin/api/pools")).json()["pools"]:
            found += [f"pool: {shown[key]} {key}" for key in ("in_flight", "waiting") if shown[key]]
            for tier in shown["tiers"]:
                found += [f"{tier['name']}: {key}" for key in _TIER_BOOKS if tier[key]]
        for name in ("triolet_replica_in_flight", "triolet_pool_in_flight", "triolet_pool_waiting"):
            found += [f"{name} {labels}" for labels, n in (await self.metric(name)).items() if n]
        return found


_BOOKS: Final = ("in_flight", "unread", "unread_tokens")
_TIER_BOOKS: Final = ("in_flight", "waiting")


@asynccontextmanager
async def drilled(directory: Path, *pools: str, up: Sequence[str] = ()) -> AsyncIterator[Drilled]:
    """Serve these pools; `up`: wait until probes have found these replicas. Bounds the drill."""
    file = directory / "triolet.toml"
    file.write_text("\n".join((_BASE, *pools)))
    with trio.fail_after(_DRILL_S):
        async with serving(directory) as server:
            service = Drilled(server, file)
            if up:
                await service.until_up(up)
            yield service
            assert server.process.poll() is None
