"""HTTP/1.1 towards replicas: any framing in any chunking, and which connections are kept."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.errors import AnswerInvalid, AnswerLost, ConnectFailed
from balancer.wire.connect import Origin
from balancer.wire.http1 import Connection, ConnectionPool, Head, request_head
from balancer.wire.memory import MemoryDialer, memory_network
from tests.balancer.scripted import (
    Act,
    ScriptedReplica,
    Step,
    answer,
    chunk,
    in_virtual_time,
    read_request,
)

Clock = trio.testing.MockClock
HERE = Origin.parse("http://here")
REQUEST = request_head("GET", b"/", [b"host: here"])
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"


@asynccontextmanager
async def connected(*scripts: Sequence[Step]) -> AsyncIterator[Connection]:
    """A connection to a scripted replica."""
    async with memory_network() as network:
        network.serve("http://here", ScriptedReplica(*scripts))
        yield Connection(await network.dial(HERE), "http://here")


async def exchange(connection: Connection) -> tuple[Head, bytes]:
    """One request and its whole answer."""
    await connection.send(REQUEST)
    head, body = await connection.head(), b""
    while data := await connection.read():
        body += data
    assert connection.complete
    assert await connection.read() == b""
    return head, body


def test_request_head() -> None:
    """The line, the headers, an empty line."""
    head = request_head("POST", b"/v1/x?y=1", [b"host: h", b"a: b"])
    assert head == b"POST /v1/x?y=1 HTTP/1.1\r\nhost: h\r\na: b\r\n\r\n"


def test_head() -> None:
    """The first of a name; the length where there is one."""
    head = Head(200, [(b"a", b"1"), (b"a", b"2"), (b"content-length", b"7")])
    assert (head.get(b"a"), head.get(b"b"), head.length) == (b"1", None, 7)
    assert Head(200, []).length is None


@dataclass
class Answered:
    """An answer as it stands on the wire, and what should be read from it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    framing: str
    chunks: int
    interim: bytes

    @property
    def wire(self) -> bytes:
        lines = [b"HTTP/1.1 %d Reason phrase" % self.status]
        lines += [name + b": " + value for name, value in self.framed_headers]
        return self.interim + b"\r\n".join([*lines, b"", self.framed_body])

    @property
    def framed_headers(self) -> list[tuple[bytes, bytes]]:
        match self.framing:
            case "length":
                return [*self.headers, (b"Content-Length", b"%d" % len(self.body))]
            case "chunked":
                return [(b"Transfer-Encoding", b"chunked"), *self.headers]
            case _:
                return self.headers

    @property
    def framed_body(self) -> bytes:
        if self.framing != "chunked":
            return self.body
        size = max(1, len(self.body) // self.chunks)
        parts = [self.body[at : at + size] for at in range(0, len(self.body), size)]
        return b"".join(map(chunk, parts)) + b"0\r\ntrailer: ignored\r\n\r\n"

    @property
    def kept(self) -> bool:
        return self.framing != "close" and (b"Connection", b"close") not in self.headers


_headers = st.lists(
    st.sampled_from(
        [
            (b"Content-Type", b"text/plain"),
            (b"X-Twice", b"1"),
            (b"X-Twice", b"2"),
            (b"X-Empty", b""),
            (b"Connection", b"close"),
            (b"Connection", b"keep-alive"),
        ]
    ),
    max_size=4,
)
_answered = st.builds(
    Answered,
    st.sampled_from([200, 201, 299, 302, 400, 429, 500, 503]),
    _headers,
    st.binary(max_size=200),
    st.sampled_from(["length", "chunked", "close"]),
    st.integers(1, 5),
    st.sampled_from([b"", CONTINUE, HINTS, CONTINUE + HINTS]),
)


@given(_answered, st.lists(st.integers(0, 1000), max_size=12))
@settings(max_examples=100)
def test_any_framing_in_any_chunking(answered: Answered, cuts: list[int]) -> None:
    """Status, headers and body are the same however the bytes are cut on their way."""
    wire = answered.wire
    places = sorted({0, len(wire), *(cut % len(wire) for cut in cuts)})
    steps: list[Step] = []
    for start, end in itertools.pairwise(places):
        steps += [wire[start:end], 0.1]
    if answered.framing == "close":
        steps.append(Act.CLOSE)

    async def body() -> None:
        async with connected(steps) as connection:
            head, read = await exchange(connection)
            assert head.status == answered.status
            expected = [(name.lower(), value) for name, value in answered.framed_headers]
            assert head.headers == expected
            assert read == answered.body
            assert connection.delimited_by_close is (answered.framing == "close")
            assert connection.reusable is answered.kept

    in_virtual_time(body)


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(status: int, autojump_clock: Clock) -> None:
    """They end with their head, whatever it says."""
    head = b"HTTP/1.1 %d X\r\n\r\n" % status
    async with connected([head]) as connection:
        for _ in range(2):
            found, body = await exchange(connection)
            assert (found.status, body, connection.reusable) == (status, b"", True)


async def test_one_connection_many_exchanges(autojump_clock: Clock) -> None:
    """Each exchange begins anew: framing, headers and flags of the one before are forgotten."""
    chunked = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc") + b"0\r\n\r\n"
    )
    async with connected([answer(b"one")], [CONTINUE, chunked], [answer(b"", status=404)]) as c:
        assert [(await exchange(c))[1] for _ in range(3)] == [b"one", b"abc", b""]
        assert (c.used, c.reusable) == (3, True)


async def test_pull_never_waits(autojump_clock: Clock) -> None:
    """None while nothing is there, then what came, then the end."""
    whole = answer(b"abcdef")
    async with connected([whole[:-3], 1.0, whole[-3:]]) as connection:
        await connection.send(REQUEST)
        await connection.head()
        assert connection.pull() == b"abc"
        assert connection.pull() is None
        await trio.sleep(2)
        assert connection.pull() == b"def"
        assert connection.pull() == b""
        assert connection.complete


async def test_large_request_bodies(autojump_clock: Clock) -> None:
    """Head and body arrive as one request, whether sent at once or apart."""
    async with memory_network(capacity_bytes=1000) as network:
        scripted = ScriptedReplica([answer(b"")])
        network.serve("http://here", scripted)
        connection = Connection(await network.dial(HERE), "x")
        for size in (0, 65_536, 65_537):
            head = request_head("POST", b"/", [b"content-length: %d" % size])
            await connection.send(head, b"x" * size)
            await connection.head()
            assert scripted.requests[-1] == head + b"x" * size


GARBAGE: dict[str, bytes] = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "a bad status": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a bad chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk too long": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000,
    "an upgrade": b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage(name: str, autojump_clock: Clock) -> None:
    """Is `AnswerInvalid`, named after the replica; the connection is not used again."""
    async with connected([GARBAGE[name]]) as connection:
        with pytest.raises(AnswerInvalid, match="replica http://here: "):
            await exchange(connection)
        assert not connection.reusable


TRUNCATED: dict[str, tuple[bytes, Act]] = {
    "nothing": (b"", Act.CLOSE),
    "nothing, reset": (b"", Act.RESET),
    "half a head": (b"HTTP/1.1 200 OK\r\nco", Act.CLOSE),
    "only an interim answer": (CONTINUE, Act.CLOSE),
    "no body": (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Act.CLOSE),
    "half a body": (answer(b"abc")[:-1], Act.CLOSE),
    "half a body, reset": (answer(b"abc")[:-1], Act.RESET),
    "no last chunk": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc"),
        Act.CLOSE,
    ),
    "reset without a length": (b"HTTP/1.1 200 OK\r\n\r\nabc", Act.RESET),
}


@pytest.mark.parametrize("name", TRUNCATED)
async def test_truncated(name: str, autojump_clock: Clock) -> None:
    """A connection that ends too soon is `AnswerLost`; on its first use it is never stale."""
    sent, act = TRUNCATED[name]
    async with connected([sent, 1.0, act]) as connection:
        with pytest.raises(AnswerLost) as caught:
            await exchange(connection)
        assert not caught.value.stale
        assert not connection.reusable


@pytest.mark.parametrize("act", [Act.CLOSE, Act.RESET])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_stale(act: Act, sent: bytes, autojump_clock: Clock) -> None:
    """Told when a used connection ends without a byte of an answer, and only then."""
    async with connected([answer(b"x")], [sent, 1.0, act]) as connection:
        await exchange(connection)
        with pytest.raises(AnswerLost) as caught:
            await exchange(connection)
        assert caught.value.stale is (not sent)


async def test_stale_when_the_send_fails(autojump_clock: Clock) -> None:
    """The same if it is known to be gone before the request is out."""
    async with connected([answer(b"x"), Act.CLOSE]) as connection:
        await exchange(connection)
        await trio.sleep(1)
        connection.transport.send_nowait(b"swallowed")
        with pytest.raises(AnswerLost) as caught:
            await exchange(connection)
        assert caught.value.stale


STRAY = [
    pytest.param(b"garbage", id="garbage"),
    pytest.param(answer(b"evil")[:20], id="half an answer"),
    pytest.param(answer(b"evil"), id="an answer"),
    pytest.param(answer(b"evil") * 2, id="two answers"),
]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("stray", STRAY)
async def test_stray_bytes_behind_an_answer(
    stray: bytes, chunked: bool, autojump_clock: Clock
) -> None:
    """The answer counts as it is, nothing is added to it, and the connection is not kept."""
    whole = answer(b"good")
    if chunked:
        whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        whole += chunk(b"good") + b"0\r\n\r\n"
    async with connected([whole + stray]) as connection:
        assert (await exchange(connection))[1] == b"good"
        assert not connection.reusable


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=50)
def test_any_bytes_are_an_answer_or_an_error(wire: bytes) -> None:
    """Whatever comes, only the errors that are promised leave here."""

    async def body() -> None:
        for prefix in (b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"):
            async with connected([prefix + wire, Act.CLOSE]) as connection:
                try:
                    await exchange(connection)
                except (AnswerLost, AnswerInvalid):
                    assert not connection.reusable

    in_virtual_time(body)


# The connections kept of one replica.


@asynccontextmanager
async def pooled(
    *scripts: Sequence[Step], keep: int = 9
) -> AsyncIterator[tuple[ConnectionPool, MemoryDialer]]:
    async with memory_network() as network:
        network.serve("http://here", ScriptedReplica(*scripts))
        yield ConnectionPool(HERE, network, keep=keep), network


async def use(pool: ConnectionPool) -> Connection:
    connection = await pool.take(1)
    await exchange(connection)
    return connection


async def test_kept_after_a_clean_end(autojump_clock: Clock) -> None:
    """And taken again, the latest used first; `fresh` asks for a new one."""
    async with pooled([answer(b"x")]) as (pool, network):
        one, two = await use(pool), await use(pool)
        assert network.dialed == 2
        pool.give_back(one)
        pool.give_back(two)
        assert pool.idle == 2
        assert await pool.take(1) is two
        assert await pool.take(1, fresh=True) not in (one, two)
        assert await pool.take(1) is one
        assert (pool.idle, network.open, network.dialed) == (0, 3, 3)


@pytest.mark.parametrize(
    "script",
    [
        [answer(b"x", headers=[b"connection: close"])],
        [b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx"],
        [b"HTTP/1.1 200 OK\r\n\r\nx", Act.CLOSE],
        [answer(b"x") + b"HTTP/1.1"],
        [answer(b"x"), Act.CLOSE],
    ],
    ids=["connection: close", "HTTP/1.0", "ended by closing", "stray bytes", "closed after it"],
)
async def test_not_kept(script: list[Step], autojump_clock: Clock) -> None:
    """What the replica ends, or has begun to talk on, is closed when given back."""
    async with pooled(script) as (pool, network):
        connection = await use(pool)
        await trio.testing.wait_all_tasks_blocked()
        pool.give_back(connection)
        assert (pool.idle, network.open) == (0, 0)


async def test_not_kept_before_the_end(autojump_clock: Clock) -> None:
    """Given back in mid-answer, or unused: closed, which tells the replica to stop."""
    async with pooled([answer(b"xyz")[:-1]]) as (pool, network):
        connection = await pool.take(1)
        await connection.send(REQUEST)
        await connection.read()
        pool.give_back(connection)
        pool.give_back(await pool.take(1))
        assert (pool.idle, network.open) == (0, 0)


async def test_no_more_than_keep(autojump_clock: Clock) -> None:
    """The rest is closed."""
    async with pooled([answer(b"x")], keep=1) as (pool, network):
        for connection in [await use(pool) for _ in range(3)]:
            pool.give_back(connection)
        assert (pool.idle, network.open) == (1, 1)


@pytest.mark.parametrize("end", [b"HTTP/1.1 408 Timeout\r\n\r\n", b"x", Act.CLOSE, Act.RESET])
async def test_dropped_when_the_replica_stirs(end: Step, autojump_clock: Clock) -> None:
    """A kept connection that is closed, or on which something unasked comes, goes at once."""
    async with pooled([answer(b"x"), 1.0, end]) as (pool, network):
        pool.give_back(await use(pool))
        assert pool.idle == 1
        await trio.sleep(2)
        assert (pool.idle, network.open) == (0, 0)
        await pool.take(1)
        assert network.dialed == 2


async def test_taken_connections_are_let_alone(autojump_clock: Clock) -> None:
    """What comes on a connection in use is its user's: the pool does not drop it."""
    async with pooled([answer(b"x")]) as (pool, _):
        pool.give_back(await use(pool))
        for used in (2, 3, 4):
            connection = await pool.take(1)
            assert (await exchange(connection))[1] == b"x"
            assert connection.used == used
            pool.give_back(connection)


async def test_connect_s(autojump_clock: Clock) -> None:
    """A dial that takes too long is given up, and says which limit passed."""
    async with pooled([]) as (pool, network):
        network.serve("http://here", ScriptedReplica([]), connect_s=9)
        with pytest.raises(ConnectFailed, match=r"within connect_s \(1.5 s\)"):
            await pool.take(1.5)
        assert trio.current_time() == pytest.approx(1.5)
        network.refuse("http://here")
        with pytest.raises(ConnectFailed, match="refused"):
            await pool.take(1.5)


async def test_close(autojump_clock: Clock) -> None:
    """Kept ones go now, those in use when they are given back."""
    async with pooled([answer(b"x")]) as (pool, network):
        kept, used = await use(pool), await use(pool)
        pool.give_back(kept)
        pool.close()
        assert (pool.idle, network.open) == (0, 1)
        pool.give_back(used)
        assert (pool.idle, network.open) == (0, 0)


async def test_unread_requests_are_no_answer(autojump_clock: Clock) -> None:
    """A replica that reads a request and leaves is lost; the test's own reader sees it whole."""
    async with memory_network() as network:
        near, far = network.pair()
        connection = Connection(near, "x")
        await connection.send(REQUEST)
        assert await read_request(far) == REQUEST
        far.close()
        with pytest.raises(AnswerLost, match="before an answer"):
            await connection.head()
