"""SIGHUP in a running Triolet: what is served before, while and after the configuration is read."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from balancer.probes import steady
from balancer.probes.discovery import Found
from balancer.probes.models import ListedModel
from server import supply
from server.config import Config, HealthConfig, PoolConfig, ProbeConfig, ReplicaConfig
from server.main import Triolet

FOUND = [Found("vLLM", "http://127.0.0.1:9", (ListedModel("found"),))]


def config(*pools: PoolConfig, discovery_s: float = 3600.0) -> Config:
    return Config(
        listen=("http://127.0.0.1:0",),
        pool=pools,
        health=HealthConfig(interval_s=3600.0),
        probes=ProbeConfig(engine_s=0.0, gpu_s=0.0, discovery_s=discovery_s),
        drain_s=0.0,
    )


def pool(*replicas: ReplicaConfig | str, model: str = "m", file: Path | None = None) -> PoolConfig:
    listed = tuple(ReplicaConfig(url=one) if isinstance(one, str) else one for one in replicas)
    return PoolConfig(
        model=model, replicas=listed, replicas_file=None if file is None else str(file)
    )


def named(host: str = "many") -> ReplicaConfig:
    return ReplicaConfig(url=f"http://{host}:9", resolve=True)


class Running:
    """A Triolet that serves, and what a test changes."""

    def __init__(self, first: Config) -> None:
        self.next = first
        self.reading: Callable[[], None] = lambda: None
        self.slow = trio.Event()
        self.asked = trio.Event()
        self.ended = trio.Event()
        self.triolet = Triolet(first, reload=self._reload, log_stream=io.BytesIO())
        self.triolet.supply._names._look_up = self._look_up

    def _reload(self) -> Config:
        self.reading()
        return self.next

    async def _look_up(self, host: str) -> tuple[str, ...]:
        self.asked.set()
        if host != "quick":
            await self.slow.wait()
        return ("127.0.0.1", "127.0.0.2")

    async def run(self, task_status: trio.TaskStatus[list[str]]) -> None:
        await self.triolet.run(out=io.StringIO(), task_status=task_status)
        self.ended.set()

    def served(self) -> dict[str, list[str]]:
        pools = self.triolet.catalog.pools
        return {model: [one.name for one in pool.replicas] for model, pool in pools.items()}

    def reload(self, *pools: PoolConfig) -> None:
        self.next = config(*pools)
        os.kill(os.getpid(), signal.SIGHUP)

    async def until(self, served: dict[str, list[str]]) -> None:
        with trio.fail_after(5):
            while self.served() != served:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.005)


@asynccontextmanager
async def running(first: Config) -> AsyncIterator[Running]:
    made = Running(first)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            yield made
            nursery.cancel_scope.cancel()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    """What there is on this machine."""
    engines = list(FOUND)

    async def discover(_: object) -> list[Found]:
        await trio.lowlevel.checkpoint()
        return engines

    monkeypatch.setattr(supply, "discover", discover)
    return engines


async def test_from_what_was_found_to_what_is_configured(
    found: list[Found], tmp_path: Path
) -> None:
    """What is found later changes nothing any more; files and names are watched from then on."""
    file = tmp_path / "replicas.toml"
    file.write_text('replicas = ["http://127.0.0.1:7"]')
    async with running(config(discovery_s=0.05)) as made:
        assert made.served() == {"found": ["http://127.0.0.1:9"]}
        made.triolet.supply.refresh_members()
        assert made.triolet.supply._builder._replicas, "what was found is forgotten"
        made.reload(pool(named("quick"), file=file))
        names = ["http://127.0.0.1:9", "http://127.0.0.2:9"]
        await made.until({"m": [*names, "http://127.0.0.1:7"]})
        found.append(Found("SGLang", "http://127.0.0.1:8", (ListedModel("later"),)))
        await trio.sleep(0.2)
        assert made.served() == {"m": [*names, "http://127.0.0.1:7"]}
        file.write_text('replicas = ["http://127.0.0.1:7", "http://127.0.0.1:8"]')
        await made.until({"m": [*names, "http://127.0.0.1:7", "http://127.0.0.1:8"]})


async def test_a_search_that_is_under_way_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it finds while the configuration is taken is not served beside it."""
    asked = 0

    async def discover(_: object) -> list[Found]:
        nonlocal asked
        asked += 1
        if asked > 1:
            await made.asked.wait()
            with trio.CancelScope(shield=True):  # too late to be cancelled
                await trio.sleep(0.01)
        return FOUND

    monkeypatch.setattr(supply, "discover", discover)
    async with running(config(discovery_s=0.05)) as made:
        with trio.fail_after(5):
            while asked < 2:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.005)
        made.reload(pool(named("quick")))
        await made.until({"m": ["http://127.0.0.1:9", "http://127.0.0.2:9"]})
        await trio.sleep(0.1)
        assert list(made.served()) == ["m"]


async def test_a_search_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error that nobody foresaw: what runs goes on, and what is there later is found."""
    monkeypatch.setattr(steady, "_PAUSE_S", 0.01)
    answers: list[list[Found]] = [FOUND]

    async def discover(_: object) -> list[Found]:
        await trio.lowlevel.checkpoint()
        if not answers:
            answers.append([Found("SGLang", "http://127.0.0.1:8", (ListedModel("later"),))])
            raise RuntimeError("nobody foresaw this")
        return answers.pop()

    monkeypatch.setattr(supply, "discover", discover)
    async with running(config(discovery_s=0.05)) as made:
        later = {"found": ["http://127.0.0.1:9"], "later": ["http://127.0.0.1:8"]}
        await made.until(later)


async def test_pools_stay_full_while_names_are_looked_up() -> None:
    """The new pools come all at once when they are known; by hand the old ones can be changed."""
    async with running(config(pool("http://127.0.0.1:9"))) as made:
        triolet = made.triolet
        made.reload(pool(named(), model="m"), pool("http://127.0.0.1:5", model="n"))
        await made.asked.wait()
        assert made.served() == {"m": ["http://127.0.0.1:9"]}
        triolet.supply.membership.add("m", ReplicaConfig(url="http://127.0.0.1:6"))
        triolet.supply.refresh_members()
        assert made.served() == {"m": ["http://127.0.0.1:9", "http://127.0.0.1:6"]}
        made.slow.set()
        names = ["http://127.0.0.1:9", "http://127.0.0.2:9", "http://127.0.0.1:6"]
        await made.until({"m": names, "n": ["http://127.0.0.1:5"]})


async def test_a_reload_that_hangs_holds_up_no_end() -> None:
    """Neither a name that nobody answers for, nor a file that cannot be read to its end."""
    hangs = threading.Event()
    try:
        for what in ("name", "file"):
            async with running(config(pool("http://127.0.0.1:9"))) as made:
                reading = trio.Event()
                token = trio.lowlevel.current_trio_token()
                if what == "file":

                    def read(
                        token: trio.lowlevel.TrioToken = token, done: trio.Event = reading
                    ) -> None:
                        token.run_sync_soon(done.set)
                        hangs.wait()

                    made.reading = read
                made.reload(pool(named()))
                await (made.asked if what == "name" else reading).wait()
                os.kill(os.getpid(), signal.SIGTERM)
                with trio.fail_after(5):
                    await made.ended.wait()
    finally:
        hangs.set()


async def test_an_error_in_a_reload_is_logged_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody foresaw it; the process and its streams go on."""
    async with running(config(pool("http://127.0.0.1:9"))) as made:
        builder = made.triolet.supply._builder
        truly, failed = builder.configured, trio.Event()

        def configured(_: object) -> None:
            monkeypatch.setattr(builder, "configured", truly)
            failed.set()
            raise RuntimeError("nobody foresaw this")

        monkeypatch.setattr(builder, "configured", configured)
        made.reload(pool("http://127.0.0.1:8"))
        await failed.wait()
        made.reload(pool("http://127.0.0.1:7"))
        await made.until({"m": ["http://127.0.0.1:7"]})
