"""Replicas that nobody would write on purpose: none costs more than its own exchange."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest
import trio
import trio.testing

from balancer.dispatch import HELD_BYTES, Dispatch, Request, Trace
from balancer.errors import ConnectFailed, Overdue, ReplicaRefused
from balancer.policies.round_robin import RoundRobin
from balancer.pool import Pool, PoolSettings, Timeouts
from balancer.replica import Replica
from balancer.wire import connect
from balancer.wire.connect import Origin, TcpDialer
from balancer.wire.memory import Handler, memory_network
from balancer.wire.openai import Usage, answer_error, answer_usage, read_usage, stream_error
from balancer.wire.poller import open_poller
from balancer.wire.transport import Transport
from tests.balancer.scripted import (
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    NotingClient,
    ScriptedReplica,
    answer,
    chunk,
    event,
    read_request,
)

Clock = trio.testing.MockClock
FIRST_BYTE_S: Final = 5.0
TIMEOUTS: Final = Timeouts(connect_s=1, first_byte_s=FIRST_BYTE_S, idle_s=4, total_s=60)


@asynccontextmanager
async def dispatching(
    replica: Handler, client: NotingClient, *, capacity_bytes: int = 65_536
) -> AsyncIterator[Dispatch]:
    """One request, not yet run, for this only replica; no retries."""
    async with memory_network(capacity_bytes=capacity_bytes) as network:
        network.serve("http://r", replica)
        replicas = [Replica("http://r", network)]
        pool = Pool(
            "m", replicas, RoundRobin(), settings=PoolSettings(retries=0), timeouts=TIMEOUTS
        )

        async def request(pool: Pool) -> Request:
            return Request("POST", b"/v1/chat/completions", [], b"{}")

        yield Dispatch([pool], request, client, now=trio.current_time())
        assert replicas[0].in_flight == 0


async def answered(replica: Handler, client: NotingClient) -> Trace:
    async with dispatching(replica, client) as dispatch:
        await dispatch.run()
    return dispatch.trace


# Connecting.


@pytest.fixture
async def dialer(nursery: trio.Nursery) -> TcpDialer:
    poller = open_poller()
    await nursery.start(poller.run)
    return TcpDialer(poller)


def reset_next(listener: socket.socket) -> None:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()


# The ssl module itself drops the socket in that case: it is closed when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
async def test_a_reset_before_the_handshake(
    dialer: TcpDialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between connecting and the first TLS byte the other side may be gone already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        class TooLate(ssl.SSLContext):
            def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
                reset_next(listener)
                return super().wrap_socket(*args, **kwargs)

        monkeypatch.setattr(connect, "tls_context", lambda: TooLate(ssl.PROTOCOL_TLS_CLIENT))
        port = listener.getsockname()[1]
        with trio.fail_after(5), pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: ."):
            await dialer.dial(Origin.parse(f"https://127.0.0.1:{port}"))


async def test_a_reset_in_the_handshake(dialer: TcpDialer) -> None:
    """Accepted, greeted, reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, reset_next, listener)
            with trio.fail_after(5), pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: ."):
                await dialer.dial(Origin.parse(f"https://127.0.0.1:{port}"))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["a" * 64, f"replica.{'b' * 64}.example", "a..b"])
async def test_a_name_that_is_none(scheme: str, host: str, dialer: TcpDialer) -> None:
    """A label over 63 characters, or an empty one, cannot be looked up: no connection."""
    with trio.fail_after(5), pytest.raises(ConnectFailed, match=host):
        await dialer.dial(Origin.parse(f"{scheme}://{host}:8000"))


# Comments before the first event.

PINGS: Final = b": ping\n\n" * 8_000
"""As many keep-alives as one receive brings."""
ROUNDS: Final = 50


def assert_event_only(client: NotingClient) -> None:
    """But for comments that came in one receive with it."""
    assert client.body.endswith(event("a") + DONE)
    assert len(client.body) <= 65_536


class PingingReplica:
    """Says `rounds` times `PINGS` before its only event."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    async def __call__(self, source: Transport) -> None:
        await read_request(source)
        await source.send_all(STREAM_HEAD)
        for _ in range(self._rounds):
            await source.send_all(chunk(PINGS))
        await source.send_all(chunk(event("a") + DONE) + LAST_CHUNK)
        await trio.sleep_forever()


@contextmanager
def traced_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


async def test_comments_before_the_first_event_are_not_kept() -> None:
    """Megabytes of them, and the client gets the event; at no time was half of them held."""
    client = NotingClient()
    async with dispatching(PingingReplica(ROUNDS), client) as dispatch:
        with traced_memory():
            await dispatch.run()
            _, peak = tracemalloc.get_traced_memory()
    assert_event_only(client)
    assert dispatch.trace.attempts == 1
    assert peak < ROUNDS * len(PINGS) / 2


async def test_others_get_turns_between_comments() -> None:
    """Also when there is always more to read."""
    turns = 0
    enough = 2 * ROUNDS * len(PINGS)
    client = NotingClient()
    async with dispatching(PingingReplica(ROUNDS), client, capacity_bytes=enough) as dispatch:

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            await dispatch.run()
            nursery.cancel_scope.cancel()
    assert_event_only(client)
    assert turns >= ROUNDS


async def test_comments_are_no_first_event(autojump_clock: Clock) -> None:
    """Whoever says nothing but `: ping` is given up after first_byte_s like the silent."""
    pings = [part for _ in range(100) for part in (chunk(b": ping\n\n"), 0.5)]
    client = NotingClient()
    async with dispatching(ScriptedReplica([STREAM_HEAD, *pings]), client) as dispatch:
        with pytest.raises(Overdue) as failure:
            await dispatch.run()
        assert trio.current_time() - dispatch.trace.started == pytest.approx(FIRST_BYTE_S)
    assert failure.value.phase == "first_byte"
    assert client.head is None


# JSON beyond reason.

DEEP: Final = b"[" * 5_000 + b"]" * 5_000
DIGITS: Final = b"4" * 5_000


def test_nested_beyond_reason() -> None:
    """What cannot be decoded is no error; its usage is found where engines put it, or not."""
    assert answer_usage(b'{"x":%b,"usage":{"prompt_tokens":1}}' % DEEP) == Usage(1)
    # Python 3.12 and later decode deeper than 3.11 does.
    assert answer_usage(b'{"usage":{"prompt_tokens":1},"x":%b}' % DEEP) in (Usage(), Usage(1))
    assert read_usage(b'{"x":%b}' % DEEP) == Usage()
    assert answer_error(b'{"error":null,"x":%b}' % DEEP) is None
    assert stream_error(b'data: {"error":null,"x":%b}\n\n' % DEEP) is None


ODD_CODES: Final = [b'"%b"' % DIGITS, b'"\xc2\xb2"', b'"\xd9\xa4\xd9\xa0\xd9\xa0\xd9\xa0"', b"-1"]


@pytest.mark.parametrize("code", ODD_CODES, ids=["long", "superscript", "arabic", "negative"])
def test_codes_that_are_no_status(code: bytes) -> None:
    """An error it stays, of the kind that has no better number."""
    assert answer_error(b'{"error":{"code":%b}}' % code) == 500
    assert stream_error(b'data: {"error":{"code":%b}}\n\n' % code) == 500


def test_a_number_of_5000_digits() -> None:
    """Is no status either, and nothing is raised for it."""
    assert answer_error(b'{"error":{"code":%b}}' % DIGITS) in (500, None)


async def test_a_deep_answer_is_relayed(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole, as an answer like any other."""
    body = b'{"error":null,"choices":%b,"usage":{"prompt_tokens":1}}' % DEEP
    client = NotingClient()
    with caplog.at_level(logging.WARNING):
        trace = await answered(ScriptedReplica([answer(body)]), client)
    assert (client.body, client.ended) == (body, True)
    assert client.head is not None
    assert (client.head.status, trace.attempts, trace.failures) == (200, 1, [])
    assert trace.usage == Usage(1)
    assert caplog.records == []


@pytest.mark.parametrize(("status", "told"), [(200, 500), (400, 400)])
async def test_an_error_with_a_code_beyond_reason(
    status: int, told: int, autojump_clock: Clock
) -> None:
    """The replica's words are kept, and its status if it gave one."""
    body = b'{"error":{"message":"no","code":"%b"}}' % DIGITS
    replica = ScriptedReplica([answer(body, status=status)])
    async with dispatching(replica, NotingClient()) as dispatch:
        with pytest.raises(ReplicaRefused) as refused:
            await dispatch.run()
    assert (refused.value.status, refused.value.body) == (told, body)


# Large JSON answers.


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("extra", [1, 40, 100, 20_000, 70_000, 200_000, 1_500_000])
async def test_the_usage_of_a_large_answer(extra: int, fast: bool, autojump_clock: Clock) -> None:
    """Embeddings say it at the very end, long after the head went to the client."""
    usage = b'],"usage":{"prompt_tokens":7,"total_tokens":7}}'
    data = b"1," * ((HELD_BYTES + extra) // 2) + b"1"
    body = b'{"object":"list","data":[' + data + usage
    client = NotingClient(fast=fast)
    trace = await answered(ScriptedReplica([answer(body)]), client)
    assert client.body == body
    assert trace.usage is not None
    assert trace.usage.prompt_tokens == 7


@pytest.mark.parametrize("numbers", [HELD_BYTES, HELD_BYTES // 2])
async def test_a_usage_cut_in_two(numbers: int, autojump_clock: Clock) -> None:
    """The end may come in small pieces, and the head may be sent between two of them."""
    usage = b'],"usage":{"prompt_tokens":7,"total_tokens":7}}'
    body = b'{"object":"list","data":[' + b"1," * numbers + b"1" + usage
    whole = answer(body)
    client = NotingClient()
    replica = ScriptedReplica([whole[:-40], 1.0, whole[-40:]])
    trace = await answered(replica, client)
    assert client.body == body
    assert trace.usage is not None
    assert trace.usage.prompt_tokens == 7
