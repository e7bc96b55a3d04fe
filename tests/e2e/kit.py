"""A whole Triolet in front of scripted replicas, and the proof that nothing of an exchange stays.

    async with relaying(FakeReplica([REQUEST, RESET]), retries=0) as triolet:
        answer = await triolet.call(post())

At the end of the block everything must be clear (see `assert_all_clear`), and the log must hold no
warning but those that the test expects (`triolet.expected_warnings`).
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import trio

from balancer.replica import Replica
from server.config import (
    AdminConfig,
    Config,
    HealthConfig,
    LimitsConfig,
    PoolConfig,
    ProbeConfig,
    ReplicaConfig,
    TimeoutConfig,
)
from server.main import Triolet
from tests.e2e.faults.client import MODEL, Answer, RawClient, connected
from tests.e2e.faults.scripted import FakeReplica

__all__ = [
    "ADMIN_KEY",
    "PATIENT",
    "Running",
    "asked",
    "assert_all_clear",
    "assert_failed",
    "assert_served",
    "config_of",
    "eventually",
    "relaying",
    "running_triolet",
]

_TEST_S = 5.0
"""No drill takes a second: what takes this long is stuck."""
_ALL_CLEAR_S = 1.0
_NEVER_S = 3600.0
ADMIN_KEY = "s3cret"

PATIENT = TimeoutConfig(connect_s=3, first_byte_s=3, idle_s=3, total_s=4)
"""For tests that are not about time."""


async def eventually(is_so: Callable[[], bool], within_s: float = 2.0) -> bool:
    """Wait for what only can be asked, not waited for. False if it is not so in time."""
    with trio.move_on_after(within_s):
        while not is_so():  # noqa: ASYNC110 - what is asked for sets no event
            await trio.sleep(0.001)
    return is_so()


async def asked(fake: FakeReplica, requests: int = 1) -> None:
    """Wait until this many requests have reached the replica."""
    assert await eventually(lambda: len(fake.requests) == requests)


class Running:
    """A Triolet that serves `fakes`, and what a test wants to know of it."""

    def __init__(
        self,
        triolet: Triolet,
        url: str,
        log: io.BytesIO,
        fakes: tuple[FakeReplica, ...],
        ended: trio.Event,
        nursery: trio.Nursery,
    ) -> None:
        self.triolet = triolet
        self.port = int(url.rpartition(":")[2])
        self.fakes = fakes
        self.ended = ended
        """Set when the server has stopped by itself."""
        self.expected_warnings: list[str] = []
        """Regular expressions; each must be matched by a line of the log."""
        self._log = log
        self._nursery = nursery
        self._idle_tasks = 0

    async def settle(self) -> None:
        """Wait until start-up is over; what runs then is what may run when all is clear."""
        probed = await eventually(lambda: all(r.probed_up is not None for r in self.replicas))
        assert probed, "the health probes have no answer"
        assert await eventually(lambda: not any(fake.open for fake in self.fakes))
        self._idle_tasks = self._own_tasks()

    def stop(self) -> None:
        """As on SIGTERM."""
        self.triolet.stop(self._nursery)

    def _own_tasks(self) -> int:
        fake_tasks = sum(fake.open for fake in self.fakes)
        return trio.lowlevel.current_statistics().tasks_living - fake_tasks

    @property
    def replicas(self) -> list[Replica]:
        return self.triolet.catalog.replicas

    @property
    def connections(self) -> int:
        """Client connections now."""
        return sum(counts().connections for counts in self.triolet.metrics.edges)

    @property
    def waiting(self) -> int:
        """Calls that wait for a replica with room."""
        return sum(pool.statistics().waiting for pool in self.triolet.catalog.pools.values())

    async def queued(self, calls: int) -> None:
        """Wait until this many calls wait for a replica, and one works at another."""
        assert await eventually(lambda: self.waiting == calls)
        assert await eventually(lambda: self.triolet.relay.in_flight > calls)

    def client(self, *, receive_bytes: int | None = None) -> AbstractAsyncContextManager[RawClient]:
        """`async with triolet.client() as client`: a raw connection."""
        return connected(self.port, receive_bytes=receive_bytes)

    async def call(self, request: bytes) -> Answer:
        """One request on a connection of its own; the answer, or what came of it."""
        async with connected(self.port) as client:
            await client.send(request)
            return await client.answer()

    def failed_attempts(self) -> dict[str, int]:
        """Tries at one replica that failed so far, by kind."""
        return self._by("triolet_attempts_failed_total", "kind")

    def outcomes(self) -> dict[str, int]:
        """Model calls ended so far, by outcome."""
        return self._by("triolet_requests_total", "outcome")

    def _by(self, name: str, label: str) -> dict[str, int]:
        return {
            sample.labels[label]: int(sample.value)
            for family in self.triolet.metrics.families()
            for sample in family.samples
            if sample.name == name
        }

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    async def logged(self, number: int = 1) -> dict[str, Any]:
        """The log line of exchange `number`, once it is written."""

        def exchanges() -> list[dict[str, Any]]:
            return [line for line in self.lines() if line["event"] == "exchange"]

        assert await eventually(lambda: len(exchanges()) >= number), "nothing logged"
        return exchanges()[number - 1]

    def remains(self) -> list[str]:
        """What is still there though nothing is going on; empty when all is clear."""
        idle = sum(replica.connections.idle for replica in self.replicas)
        counted = {
            "calls in flight": self.triolet.relay.in_flight,
            "leases": sum(replica.in_flight for replica in self.replicas),
            "requests waiting for a replica": self.waiting,
            "client connections": self.connections,
            "connections to replicas in use": sum(fake.open for fake in self.fakes) - idle,
        }
        if not self.ended.is_set():
            counted["tasks"] = self._own_tasks() - self._idle_tasks
        return [f"{count} {name}" for name, count in counted.items() if count]

    def unexpected(self) -> list[str]:
        """Log lines that nobody would want, and warnings that did not come."""
        warnings = [
            f"{line['level']}: {line['message']}"
            for line in self.lines()
            if line["level"] not in ("debug", "info")
        ]
        expected = self.expected_warnings
        wrong = [text for text in warnings if not any(re.search(e, text) for e in expected)]
        return wrong + [f"no {e!r}" for e in expected if not any(re.search(e, w) for w in warnings)]


async def assert_all_clear(triolet: Running) -> None:
    """Counters, leases, queues, connections and tasks are back to what they were when idle."""
    await eventually(lambda: not triolet.remains(), _ALL_CLEAR_S)
    assert triolet.remains() == []


async def assert_failed(
    triolet: Running, answer: Answer, status: int, code: str, kind: str, *, attempts: int = 1
) -> None:
    """The only call so far ended in an error answer of ours, and is logged and counted as such."""
    assert answer.whole
    assert (answer.status, answer.error["code"]) == (status, code), answer.body
    assert answer.error["type"] == "server_error"
    assert answer.error["param"] is None
    assert answer.error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-triolet-attempts"] == str(attempts)
    line = await triolet.logged()
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["status"], line["outcome"], line["attempts"]) == (status, kind, attempts)
    assert triolet.outcomes() == {kind: 1}


async def assert_served(
    triolet: Running, answer: Answer, by: FakeReplica, *, attempts: int = 1
) -> None:
    """The only call so far was answered well by that replica, and is logged and counted as such."""
    assert answer.whole
    assert (answer.status, answer.headers["x-triolet-replica"]) == (200, by.url), answer.body
    assert answer.headers["x-triolet-attempts"] == str(attempts)
    line = await triolet.logged()
    assert (line["status"], line["outcome"], line["attempts"]) == (200, "ok", attempts)
    assert line["replica"] == by.url
    assert triolet.outcomes() == {"ok": 1}


@contextmanager
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


async def _run(
    triolet: Triolet, ended: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    await triolet.run(out=io.StringIO(), task_status=task_status)
    ended.set()


@asynccontextmanager
async def running_triolet(config: Config, *fakes: FakeReplica) -> AsyncIterator[Running]:
    """Serve with `config` in front of `fakes`; everything must be clear at the end."""
    log = io.BytesIO()
    with _own_logging(), trio.fail_after(_TEST_S):
        async with trio.open_nursery() as replicas:
            for fake in fakes:
                await replicas.start(fake.run)
            triolet = Triolet(config, log_stream=log)
            async with trio.open_nursery() as nursery:
                ended = trio.Event()
                urls = await nursery.start(_run, triolet, ended)
                running = Running(triolet, urls[0], log, fakes, ended, nursery)
                await running.settle()
                yield running
                await assert_all_clear(running)
                nursery.cancel_scope.cancel("the test is over")
            replicas.cancel_scope.cancel("the test is over")
    assert running.unexpected() == []


def config_of(
    *pools: PoolConfig, limits: LimitsConfig | None = None, drain_s: float = 30.0
) -> Config:
    """A configuration that listens anywhere and probes each replica once."""
    return Config(
        listen=("http://127.0.0.1:0",),
        pool=pools,
        limits=limits or LimitsConfig(),
        health=HealthConfig(interval_s=_NEVER_S),
        admin=AdminConfig(key=ADMIN_KEY),
        probes=ProbeConfig(engine_s=0.0, gpu_s=0.0),
        drain_s=drain_s,
        log_format="json",
    )


@asynccontextmanager
async def relaying(
    *fakes: FakeReplica,
    limits: LimitsConfig | None = None,
    drain_s: float = 30.0,
    max_in_flight: int | None = None,
    **pool: Any,
) -> AsyncIterator[Running]:
    """One pool of `fakes` in that order; `pool` and the others as in the configuration."""
    replicas = tuple(ReplicaConfig(url=fake.url, max_in_flight=max_in_flight) for fake in fakes)
    options = {"timeouts": PATIENT, "policy": "round_robin", **pool}
    served = PoolConfig(model=MODEL, replicas=replicas, **options)
    config = config_of(served, limits=limits, drain_s=drain_s)
    async with running_triolet(config, *fakes) as running:
        yield running
