"""Small GETs from replicas."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from balancer.errors import AnswerInvalid, AnswerLost, ConnectFailed, Overdue
from balancer.wire.connect import Origin
from balancer.wire.fetch import FetchFailed, fetch
from balancer.wire.memory import memory_network
from tests.balancer.scripted import Act, ScriptedReplica, Step, answer

Clock = trio.testing.MockClock
HERE = Origin.parse("http://here:81/base")


async def fetched(steps: Sequence[Step], *, connect_s: float = 0) -> tuple[int, bytes] | Exception:
    """What `fetch` gives or raises for a replica that plays this; leaves no connection behind."""
    async with memory_network() as network:
        network.serve("http://here:81", ScriptedReplica(steps), connect_s=connect_s)
        try:
            return await fetch(network, HERE, "/v1/models", limit_s=2)
        except FetchFailed as exc:
            return exc
        finally:
            assert network.open == 0


async def test_fetch(autojump_clock: Clock) -> None:
    """Status and body, whole, on a connection that is closed afterwards."""
    body = b"x" * 200_000
    assert await fetched([answer(body, status=404)]) == (404, body)
    assert await fetched([b"HTTP/1.1 200 OK\r\n\r\nx", 0.1, b"y", Act.CLOSE]) == (200, b"xy")


async def test_what_is_asked(autojump_clock: Clock) -> None:
    """The base path, the host, the headers of the replica's configuration."""
    async with memory_network() as network:
        scripted = ScriptedReplica([answer(b"")])
        network.serve("http://here:81", scripted)
        own = [(b"authorization", b"Bearer key")]
        await fetch(network, HERE, "/v1/models", limit_s=2, headers=own)
        assert scripted.requests == [
            b"GET /base/v1/models HTTP/1.1\r\nhost: here:81\r\naccept: application/json\r\n"
            b"authorization: Bearer key\r\nconnection: close\r\n\r\n"
        ]


@pytest.mark.parametrize(
    ("steps", "connect_s", "error"),
    [
        ([Act.HANG], 0, Overdue),
        ([b"HTTP/1.1 200 OK\r\n\r\n", Act.HANG], 0, Overdue),
        ([], 9, Overdue),
        ([Act.RESET], 0, AnswerLost),
        ([answer(b"abc")[:-1], Act.CLOSE], 0, AnswerLost),
        ([b"SSH-2.0-x\r\n"], 0, AnswerInvalid),
        ([answer(b"x" * 4_194_305)], 0, AnswerInvalid),
    ],
)
async def test_failures(
    steps: list[Step], connect_s: float, error: type[Exception], autojump_clock: Clock
) -> None:
    """Each is one of `FetchFailed`; nothing takes longer than `limit_s`."""
    assert isinstance(await fetched(steps, connect_s=connect_s), error)
    assert trio.current_time() == pytest.approx(2 if error is Overdue else 0)


async def test_refused(autojump_clock: Clock) -> None:
    """Nobody listens."""
    async with memory_network() as network:
        with pytest.raises(ConnectFailed):
            await fetch(network, HERE, "/", limit_s=2)
