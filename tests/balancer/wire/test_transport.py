"""Transports and pollers on real sockets, with epoll and without."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from balancer.errors import ConnectionLost
from balancer.wire.poller import EpollPoller, Poller, TaskPoller, open_poller
from balancer.wire.transport import Transport

BIG = bytes(range(256)) * 8192
"""More than two sockets' buffers hold."""

Pair = tuple[Transport, socket.socket]


@pytest.fixture(params=[EpollPoller, TaskPoller])
async def poller(request: pytest.FixtureRequest, nursery: trio.Nursery) -> EpollPoller | TaskPoller:
    """Each poller, running. A test that waits for ever fails instead."""

    async def watch() -> None:
        await trio.sleep(5)
        raise trio.TooSlowError("nothing comes any more")

    nursery.start_soon(watch)
    if request.param is EpollPoller and not hasattr(select, "epoll"):
        pytest.skip("this platform has no epoll")
    made: EpollPoller | TaskPoller = request.param()
    await nursery.start(made.run)
    return made


@pytest.fixture
async def pair(poller: Poller) -> AsyncIterator[Pair]:
    """A transport and the socket at its other end, which blocks for at most 5 s."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    transport = Transport(ours, poller)
    yield transport, theirs
    transport.close()
    theirs.close()


async def settle(condition: Callable[[], bool]) -> None:
    """Wait until the kernel and the poller have done their part; 5 s at most."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the kernel sets no event
            await trio.sleep(0.001)


def test_open_poller() -> None:
    """The best that there is."""
    best = EpollPoller if hasattr(select, "epoll") else TaskPoller
    assert isinstance(open_poller(), best)


async def test_receive_what_is_there_and_what_comes(pair: Pair) -> None:
    """At once if something is there, else when it comes, over and over."""
    transport, theirs = pair
    theirs.sendall(b"early")
    assert await transport.receive() == b"early"
    for number in range(20):
        word = b"%d" % number
        async with trio.open_nursery() as nursery:

            async def expect(word: bytes = word) -> None:
                assert await transport.receive() == word

            nursery.start_soon(expect)
            await trio.testing.wait_all_tasks_blocked()
            theirs.sendall(word)


async def test_receive_nowait(pair: Pair) -> None:
    """None while there is nothing; what came later is there after the poller's turn."""
    transport, theirs = pair
    assert transport.receive_nowait() is None
    theirs.sendall(b"x")
    found = None

    def came() -> bool:
        nonlocal found
        found = transport.receive_nowait()
        return found is not None

    await settle(came)
    assert found == b"x"


async def test_everything_arrives(pair: Pair) -> None:
    """More than one read's worth, in order, then the end for good."""
    transport, theirs = pair

    def write() -> None:
        theirs.sendall(BIG)
        theirs.shutdown(socket.SHUT_WR)

    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, write)
        while data := await transport.receive():
            received += data
    assert received == BIG
    assert await transport.receive() == b""
    await settle(lambda: transport.hung_up)
    assert await transport.receive() == b""


async def test_backpressure_and_partial_sends(pair: Pair) -> None:
    """A peer that does not read stops the sender; all of it arrives once it reads."""
    transport, theirs = pair
    taken = transport.send_nowait(BIG)
    assert 0 < taken < len(BIG)
    assert transport.send_nowait(BIG) < len(BIG)
    while transport.send_nowait(b"x"):
        pass
    assert transport.send_nowait(b"x") == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.wait_writable)
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.recv(1 << 20)


async def test_send_all(pair: Pair) -> None:
    """In order and whole, through many waits for room."""
    transport, theirs = pair
    received = bytearray()

    def read() -> None:
        while data := theirs.recv(50_000):
            received.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, read)
        await transport.send_all(BIG)
        await transport.send_all(b"")
        await transport.send_all(memoryview(BIG))
        transport.finish_sending()
    assert received == BIG * 2


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Connected over loopback, for what only TCP has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.settimeout(5)
    return ours, theirs


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("how", ["shutdown", "close"])
async def test_hang_up(how: str, pair: Pair) -> None:
    """Seen when it happens, told once, also by who is not reading."""
    transport, theirs = pair
    told: list[bool] = []
    transport.on_hang_up = lambda: told.append(transport.hung_up)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert told == []
    if how == "shutdown":
        theirs.shutdown(socket.SHUT_WR)
    else:
        theirs.close()
    await settle(lambda: told == [True])
    assert await transport.receive() == b""
    transport.close()
    assert told == [True]


async def test_reset_by_the_peer(poller: Poller) -> None:
    """Is a hang-up, and no clean end: an answer without a length would look whole."""
    ours, theirs = tcp_pair()
    transport = Transport(ours, poller)
    try:
        await trio.testing.wait_all_tasks_blocked(0.01)
        reset(theirs)
        await settle(lambda: transport.hung_up)
        with pytest.raises(ConnectionLost):
            await transport.receive()
    finally:
        transport.close()


async def test_bytes_before_the_hang_up_are_read(pair: Pair) -> None:
    """The last words are not lost to the news."""
    transport, theirs = pair
    theirs.sendall(b"last words")
    theirs.close()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert await transport.receive() == b"last words"
    assert await transport.receive() == b""
    await settle(lambda: transport.hung_up)


async def test_on_readable(pair: Pair) -> None:
    """Called for each arrival, instead of waking anybody."""
    transport, theirs = pair
    received: list[bytes | None] = []
    assert transport.receive_nowait() is None
    transport.on_readable = lambda: received.append(transport.receive_nowait())
    for count in range(1, 4):
        theirs.sendall(b"x")
        await settle(lambda count=count: received.count(b"x") == count)  # type: ignore[misc]
    transport.on_readable = None
    theirs.sendall(b"y")
    assert await transport.receive() == b"y"


async def test_a_callback_may_close(pair: Pair) -> None:
    """The relay does so when the replica or the client is gone."""
    transport, theirs = pair
    assert transport.receive_nowait() is None
    transport.on_readable = transport.close
    theirs.sendall(b"x")
    await settle(lambda: transport.closed)


async def test_a_failing_callback_stops_nobody(
    poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a bug, logged as one; the other sockets are served on."""
    transports, others = [], []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        transports.append(Transport(ours, poller))
        others.append(theirs)
    bad, good = transports
    for transport in transports:
        assert transport.receive_nowait() is None

    def fail() -> None:
        raise ZeroDivisionError

    bad.on_readable = fail
    others[0].sendall(b"x")
    await settle(lambda: "a readiness callback failed" in caplog.text)
    others[1].sendall(b"y")
    assert await good.receive() == b"y"
    for transport, other in zip(transports, others, strict=True):
        transport.close()
        other.close()


@pytest.mark.parametrize("read_first", [False, True])
async def test_close_while_waiting_to_read(read_first: bool, pair: Pair) -> None:
    """Who waits learns that it was closed by us."""
    transport, theirs = pair
    if read_first:
        theirs.sendall(b"x")
        await transport.receive()
    with trio.fail_after(0.2):
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await transport.receive()

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            transport.close()
    assert theirs.recv(1) == b""


async def test_close_while_waiting_to_write(pair: Pair) -> None:
    """The same for a sender."""
    transport, _ = pair
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.send_all(BIG)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.01)
        transport.close()


async def test_close_with_bytes_unread(pair: Pair, poller: Poller) -> None:
    """A socket that is closed behind the poller's news does no harm to the others."""
    transport, theirs = pair
    theirs.sendall(b"unread")
    await trio.testing.wait_all_tasks_blocked(0.01)
    transport.close()
    await trio.testing.wait_all_tasks_blocked(0.01)
    ours, other = socket.socketpair()
    ours.setblocking(False)
    another = Transport(ours, poller)
    other.sendall(b"fine")
    assert await another.receive() == b"fine"
    another.close()
    other.close()


async def test_after_close(pair: Pair) -> None:
    """Everything says so; closing again is nothing."""
    transport, _ = pair
    transport.close()
    transport.close(reset=True)
    assert transport.closed
    transport.finish_sending()
    with pytest.raises(trio.ClosedResourceError):
        transport.send_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive()


async def test_cancelled_while_reading(pair: Pair) -> None:
    """The transport is as good as before, and no byte is lost."""
    transport, theirs = pair
    for number in range(3):
        with trio.move_on_after(0.005) as scope:
            await transport.receive()
        assert scope.cancelled_caught
        theirs.sendall(b"%d" % number)
        assert await transport.receive() == b"%d" % number


async def test_cancelled_while_writing(pair: Pair) -> None:
    """The same for a sender: it can wait for room again, and is told."""
    transport, theirs = pair
    while transport.send_nowait(BIG):
        pass
    for _ in range(3):
        with trio.move_on_after(0.005) as scope:
            await transport.wait_writable()
        assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.wait_writable)
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.recv(1 << 20)
    assert transport.send_nowait(b"x") == 1


async def test_one_reader_one_writer(pair: Pair) -> None:
    """A second one is told that it must not."""
    transport, _ = pair
    while transport.send_nowait(BIG):
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.receive)
        nursery.start_soon(transport.wait_writable)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio.BusyResourceError, match="reading"):
            await transport.receive()
        with pytest.raises(trio.BusyResourceError, match="sending"):
            await transport.wait_writable()
        nursery.cancel_scope.cancel()


async def test_sending_to_a_closed_peer(pair: Pair) -> None:
    """Sooner or later says that it is gone."""
    transport, theirs = pair
    theirs.close()

    async def insist() -> None:
        for _ in range(3):
            await transport.send_all(b"x")

    with pytest.raises(ConnectionLost):
        await insist()


async def test_reset_drops_what_is_unsent(poller: Poller) -> None:
    """The peer sees a reset instead of the end of what it has not read."""
    ours, theirs = tcp_pair()
    transport = Transport(ours, poller)
    transport.close(reset=True)
    with theirs, pytest.raises(ConnectionResetError):
        theirs.recv(1)


async def test_many_sockets(poller: Poller) -> None:
    """More than one batch at once: each gets its own bytes."""
    pairs = []
    for _ in range(100):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pairs.append((Transport(ours, poller), theirs))
    async with trio.open_nursery() as nursery:

        async def expect(transport: Transport, word: bytes) -> None:
            assert await transport.receive() == word

        for number, (transport, _) in enumerate(pairs):
            nursery.start_soon(expect, transport, b"%d" % number)
        await trio.testing.wait_all_tasks_blocked(0.01)
        for number, (_, theirs) in enumerate(pairs):
            theirs.sendall(b"%d" % number)
    for transport, theirs in pairs:
        transport.close()
        theirs.close()
    await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("make", [TaskPoller, open_poller])
async def test_registered_before_the_poller_runs(make: Callable[[], Poller]) -> None:
    """Listeners may be opened first: what came meanwhile is told when it starts."""
    poller = make()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = Transport(ours, poller)
    assert transport.receive_nowait() is None
    theirs.sendall(b"x")
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        assert await transport.receive() == b"x"
        nursery.cancel_scope.cancel()
    transport.close()
    theirs.close()
