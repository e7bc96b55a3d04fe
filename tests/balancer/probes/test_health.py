"""Probes find out who is up, in virtual time."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from balancer.errors import ConnectFailed
from balancer.probes.health import HealthProbes
from balancer.replica import Replica
from balancer.wire.memory import MemoryDialer, memory_network
from balancer.wire.transport import Transport
from tests.balancer.scripted import Act, ScriptedReplica, Step, answer, read_request

Clock = trio.testing.MockClock
UP = [answer(b'{"data":[]}')]


@asynccontextmanager
async def probing(
    *replicas: Replica, network: MemoryDialer, interval_s: float = 5, timeout_s: float = 2
) -> AsyncIterator[HealthProbes]:
    probes = HealthProbes(network, interval_s=interval_s, timeout_s=timeout_s)
    async with trio.open_nursery() as nursery:
        await nursery.start(probes.run, replicas)
        yield probes
        nursery.cancel_scope.cancel()


def found(replica: Replica) -> bool | None:
    """What the last probe found: None before the first."""
    return replica.probed_up


class Asked(ScriptedReplica):
    """Notes when it was asked."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        super().__init__(*scripts)
        self.at: list[float] = []

    async def __call__(self, source: Transport) -> None:
        self.at.append(trio.current_time())
        await super().__call__(source)

    @property
    def gaps(self) -> list[float]:
        return [later - at for at, later in zip(self.at, self.at[1:], strict=False)]


@pytest.mark.parametrize("status", [200, 401, 404, 429])
async def test_up(status: int, autojump_clock: Clock) -> None:
    """Any answer below 500 at once means up, and is no news; then asked at the interval."""
    async with memory_network() as network:
        asked = Asked([answer(b"", status=status)])
        network.serve("http://a", asked)
        replica = Replica("http://a/v1", network, headers={b"authorization": b"Bearer key"})
        async with probing(replica, network=network):
            await trio.testing.wait_all_tasks_blocked()
            assert found(replica) is True
            await trio.sleep(60)
        assert asked.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
        assert b"authorization: Bearer key\r\n" in asked.requests[0]
        assert all(4 <= gap <= 6 for gap in asked.gaps)
        assert len(set(asked.gaps)) > 1
        assert network.open == 0


@pytest.mark.parametrize(
    "steps",
    [
        [answer(b"", status=503)],
        [answer(b"", status=500)],
        [Act.RESET],
        [b"SSH-2.0-x\r\n"],
        [Act.HANG],
        [answer(b"abc")[:-1], Act.HANG],
        None,
    ],
)
async def test_down(steps: list[Step] | None, autojump_clock: Clock) -> None:
    """A bad answer, none within the timeout, or no connection: down."""
    async with memory_network() as network:
        if steps is not None:
            network.serve("http://a", ScriptedReplica(steps))
        replica = Replica("http://a", network)
        async with probing(replica, network=network):
            assert found(replica) is None
            await trio.sleep(2.1)
            assert found(replica) is False
        assert network.open == 0


async def test_down_and_up_again(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Noticed within a second or so of being back; each change is logged once."""
    caplog.set_level(logging.INFO, "triolet.health")
    async with memory_network() as network:
        replica = Replica("http://a", network)
        network.serve("http://a", ScriptedReplica(UP))
        async with probing(replica, network=network):
            await trio.sleep(1)
            network.refuse("http://a")
            await trio.sleep(6)
            assert found(replica) is False
            network.serve("http://a", ScriptedReplica(UP))
            await trio.sleep(6.1)
            assert found(replica) is True
            assert replica.up(trio.current_time())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "replica http://a is down: connection refused: nothing listens there",
        ),
        ("INFO", "replica http://a is up again: answered 200"),
    ]


async def test_down_is_asked_soon_then_less_often(autojump_clock: Clock) -> None:
    """After 0.5 s, then twice as long each time up to the interval, where it stays."""
    async with memory_network() as network:
        asked = Asked([answer(b"", status=503)])
        network.serve("http://a", asked)
        async with probing(Replica("http://a", network), network=network):
            await trio.sleep(60)
    expected = [0.5, 1, 2, 4, *[5] * 9]
    for gap, nominal in zip(asked.gaps, expected, strict=False):
        assert 0.8 * nominal <= gap <= 1.2 * nominal
    assert len(asked.gaps) >= 10


async def test_one_that_hangs_delays_no_other(autojump_clock: Clock) -> None:
    """Each replica is probed by itself."""
    async with memory_network() as network:
        network.serve("http://a", ScriptedReplica([Act.HANG]))
        network.serve("http://b", ScriptedReplica(UP))
        a, b = Replica("http://a", network), Replica("http://b", network)
        async with probing(a, b, network=network):
            await trio.testing.wait_all_tasks_blocked()
            assert (a.probed_up, b.probed_up) == (None, True)


async def test_watch(autojump_clock: Clock) -> None:
    """New ones are probed at once; those that left no more, also in mid-probe; may come back."""
    async with memory_network() as network:
        network.serve("http://a", ScriptedReplica([Act.HANG]))
        asked = Asked(UP)
        network.serve("http://b", asked)
        a, b = Replica("http://a", network), Replica("http://b", network)
        async with probing(a, network=network) as probes:
            await trio.testing.wait_all_tasks_blocked()
            assert network.open == 1
            probes.watch([b])
            await trio.testing.wait_all_tasks_blocked()
            assert (a.probed_up, b.probed_up, network.open) == (None, True, 0)
            probes.watch([])
            await trio.sleep(60)
            assert len(asked.at) == 1
            probes.watch([b, b])
            await trio.sleep(10)
            assert 1 <= len(asked.gaps) <= 3


async def test_a_probe_ends_a_rest(autojump_clock: Clock) -> None:
    """Requests found it unreachable; the probe that reaches it makes it eligible at once."""
    async with memory_network() as network:
        network.serve("http://a", ScriptedReplica(UP))
        replica = Replica("http://a", network)
        era = replica.breaker.begin(trio.current_time())
        replica.failed(ConnectFailed(replica.name, "refused"), era, trio.current_time())
        assert not replica.up(trio.current_time())
        async with probing(replica, network=network):
            await trio.testing.wait_all_tasks_blocked()
            assert replica.up(trio.current_time())


async def test_the_replica_sees_whole_requests(autojump_clock: Clock) -> None:
    """One connection for each probe, closed by whoever is first."""
    seen = []

    async def serve(stream: Transport) -> None:
        seen.append(await read_request(stream))
        await stream.send_all(UP[0])
        seen.append(await read_request(stream))

    async with memory_network() as network:
        network.serve("http://a", serve)
        async with probing(Replica("http://a", network), network=network):
            await trio.testing.wait_all_tasks_blocked()
        assert seen[0] is not None
        assert seen[1:] == [None]


async def test_one_slow_answer_takes_nobody_out(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked again soon; three in a row do, and that is logged."""
    caplog.set_level(logging.INFO, "triolet.health")
    async with memory_network() as network:
        asked = Asked(UP, [Act.HANG], UP, [Act.HANG])
        network.serve("http://a", asked)
        replica = Replica("http://a", network)
        async with probing(replica, network=network):
            await trio.sleep(12)
            assert len(asked.at) >= 3
            assert (found(replica), caplog.records) == (True, [])
            await trio.sleep(30)
            assert found(replica) is False
    assert len(caplog.records) == 1
