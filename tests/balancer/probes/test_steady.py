"""No answer of a replica, and no error of ours in reading it, ends the process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from balancer.probes import foreign, gpu, health
from balancer.probes.dns import NameWatch
from balancer.probes.engine_asking import EngineAsked
from balancer.probes.foreign import ForeignWatch
from balancer.probes.gauges import GaugeProbes
from balancer.probes.gpu import GpuPlace, GpuProbes
from balancer.probes.health import HealthProbes
from balancer.probes.per_replica import TaskPerReplica
from balancer.probes.steady import keep_going
from balancer.replica import Replica
from balancer.wire.memory import MemoryDialer, memory_network

Clock = trio.testing.MockClock


class Work:
    """Fails for so long, then goes on for ever."""

    def __init__(self, failures: int = 2**30) -> None:
        self.at: list[float] = []
        self._failures = failures

    async def __call__(self) -> None:
        self.at.append(trio.current_time())
        if len(self.at) <= self._failures:
            raise RuntimeError("nobody foresaw this")
        await trio.sleep_forever()


async def test_what_fails_is_started_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Soon, then more rarely up to a minute; each time the log says where it failed."""
    work = Work()
    with trio.move_on_after(600):
        await keep_going("this work", work)
    gaps = [later - at for at, later in zip(work.at, work.at[1:], strict=False)]
    assert 0.8 <= gaps[0] <= 1.2
    assert 48 <= gaps[-1] <= 72
    assert caplog.text.count("this work failed unexpectedly") == len(work.at)
    assert "nobody foresaw this" in caplog.text


async def test_what_ends_is_over() -> None:
    """What returns is not started again, and cancelling ends it."""
    await keep_going("this work", trio.lowlevel.checkpoint)
    with trio.move_on_after(0) as scope:
        await keep_going("this work", trio.sleep_forever)
    assert scope.cancelled_caught


class Tasks:
    """What runs for which replica, and with which settings."""

    def __init__(self) -> None:
        self.settings: dict[Replica, str] = {}
        self.running: list[tuple[str, str]] = []
        self.started = 0
        self.tasks = TaskPerReplica("watching", self._work, self.settings.get)

    async def _work(self, replica: Replica) -> None:
        self.started += 1
        now = (replica.name, self.settings.get(replica, ""))
        self.running.append(now)
        try:
            await trio.sleep_forever()
        finally:
            self.running.remove(now)


async def test_other_settings_mean_another_task() -> None:
    """Only of the replica whose settings changed; the others' tasks go on."""
    async with memory_network() as network:
        a, b = Replica("http://a", network), Replica("http://b", network)
        made = Tasks()
        made.settings |= {a: "old", b: "old"}
        async with trio.open_nursery() as nursery:
            await nursery.start(made.tasks.run, [a, b])
            await trio.testing.wait_all_tasks_blocked()
            made.tasks.watch([b, a])
            await trio.testing.wait_all_tasks_blocked()
            assert made.started == 2
            made.settings[a] = "new"
            made.tasks.watch([a, b])
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(made.running) == [("http://a", "new"), ("http://b", "old")]
            assert made.started == 3
            made.tasks.watch([a])
            await trio.testing.wait_all_tasks_blocked()
            assert made.running == [("http://a", "new")]
            nursery.cancel_scope.cancel()


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("nobody foresaw this")


async def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("nobody foresaw this")


@asynccontextmanager
async def each_loop(
    network: MemoryDialer, monkeypatch: pytest.MonkeyPatch, which: str
) -> AsyncIterator[None]:
    """One of the probes, at work on a replica."""
    replica = Replica("http://a", network)
    async with trio.open_nursery() as nursery:
        if which == "health":
            monkeypatch.setattr(health, "fetch", _fail)
            await nursery.start(HealthProbes(network).run, [replica])
        elif which == "gauges":
            monkeypatch.setattr(EngineAsked, "ask", _fail)
            await nursery.start(GaugeProbes(network).run, [replica])
        elif which == "exporter":
            monkeypatch.setattr(gpu, "fetch", _fail)
            place = GpuPlace(exporter="http://b:1")
            await nursery.start(GpuProbes(network, place_of=lambda _: place).run, [replica])
        elif which == "gpus":
            monkeypatch.setattr(gpu, "_locate_all", _fail)
            await nursery.start(GpuProbes(network).run, [replica])
        elif which == "foreign":
            monkeypatch.setattr(foreign.ForeignWatch, "_look", fail)
            nursery.start_soon(ForeignWatch(lambda: 1.0, 1.0).run, lambda: [replica])
        elif which == "names":
            names = NameWatch(fail, look_up=_addresses)
            names.watch(["many"])
            nursery.start_soon(names.run)
        yield
        nursery.cancel_scope.cancel()


async def _addresses(_: str) -> tuple[str, ...]:
    return ("10.0.0.1",)


@pytest.mark.parametrize("which", ["health", "gauges", "exporter", "gpus", "foreign", "names"])
async def test_no_probe_ends_the_process(
    which: str,
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of them is tried again after an error that it does not know."""
    async with memory_network() as network, each_loop(network, monkeypatch, which):
        await trio.sleep(20)
    assert caplog.text.count("nobody foresaw this") >= 2
    assert {one.levelno for one in caplog.records} == {logging.ERROR}
