"""The network without sockets behaves as sockets do, where the relay can tell."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
import trio
import trio.testing

from balancer.errors import ConnectFailed, ConnectionLost
from balancer.wire.connect import Origin
from balancer.wire.memory import MemoryPoller, MemorySocket, memory_network
from balancer.wire.poller import HUNG_UP, READABLE, WRITABLE
from balancer.wire.transport import Transport

HERE = Origin.parse("http://here:1")


def test_bounded_buffers_and_partial_sends() -> None:
    """A send takes what there is room for, then would block, until the peer reads."""
    one, other = MemorySocket.pair(capacity_bytes=4)
    with pytest.raises(BlockingIOError):
        other.recv(9)
    assert one.send(b"abcdef") == 4
    with pytest.raises(BlockingIOError):
        one.send(b"ef")
    assert other.recv(3) == b"abc"
    assert one.send(b"efgh") == 3
    assert other.recv(9) == b"defg"


def test_the_end_comes_behind_the_last_byte() -> None:
    """After a shutdown the peer reads what was sent, then b"" again and again, and may answer."""
    one, other = MemorySocket.pair()
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        one.send(b"more")
    assert [other.recv(9), other.recv(9), other.recv(9)] == [b"last", b"", b""]
    assert other.send(b"answer") == 6
    assert one.recv(9) == b"answer"


def test_a_closed_peer_swallows_one_send() -> None:
    """As in TCP: the first send to a closed peer succeeds and brings the reset back."""
    one, other = MemorySocket.pair()
    other.close()
    assert one.recv(9) == b""
    assert one.send(b"into the void") == 13
    with pytest.raises(ConnectionResetError):
        one.recv(9)
    with pytest.raises(BrokenPipeError):
        one.send(b"again")
    with pytest.raises(OSError, match="not connected"):
        one.shutdown(socket.SHUT_WR)


def test_closing_with_unread_bytes_resets() -> None:
    """What was sent but not read is lost, and so is what the closing side had sent."""
    one, other = MemorySocket.pair()
    one.send(b"unread")
    other.send(b"lost with the reset")
    other.close()
    with pytest.raises(ConnectionResetError):
        one.recv(9)


def test_linger_of_no_time_resets() -> None:
    """The option that `Transport.close(reset=True)` sets has its effect."""
    one, other = MemorySocket.pair()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    other.close()
    with pytest.raises(ConnectionResetError):
        one.recv(9)


def test_closed_sockets_have_no_descriptor() -> None:
    """Every use of a closed socket fails with EBADF; its number is never another's."""
    one, other = MemorySocket.pair()
    assert one.fileno() != other.fileno()
    one.close()
    assert one.fileno() == -1
    for use in (lambda: one.recv(1), lambda: one.send(b"x"), lambda: one.shutdown(2)):
        with pytest.raises(OSError) as caught:
            use()
        assert caught.value.errno == errno.EBADF


async def test_events_are_told_by_the_poller_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing is called from inside send or close; changes since the last turn come together."""
    one, other = MemorySocket.pair(capacity_bytes=2)
    poller, told = MemoryPoller(), list[int]()
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        poller.register(other, told.append)  # type: ignore[arg-type]
        one.send(b"ab")
        one.close()
        assert told == []
        await trio.testing.wait_all_tasks_blocked()
        assert told == [READABLE | HUNG_UP]
        poller.forget(other)  # type: ignore[arg-type]
        other.recv(9)
        nursery.cancel_scope.cancel()
    assert poller.watched == 0


async def test_writable_is_told_once_to_who_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Room is news only for a socket that was full; there at once if there is room already."""
    one, other = MemorySocket.pair(capacity_bytes=2)
    poller, told = MemoryPoller(), list[int]()
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        poller.register(one, told.append)  # type: ignore[arg-type]
        one.send(b"ab")
        poller.want_write(one)  # type: ignore[arg-type]
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        other.recv(1)
        other.recv(1)
        await trio.testing.wait_all_tasks_blocked()
        assert told == [WRITABLE]
        poller.want_write(one)  # type: ignore[arg-type]
        await trio.testing.wait_all_tasks_blocked()
        assert told == [WRITABLE, WRITABLE]
        nursery.cancel_scope.cancel()


async def test_dialer_connects_to_handlers(autojump_clock: trio.testing.MockClock) -> None:
    """A handler is served a connection after `connect_s`; both directions work; it is counted."""

    async def shout(stream: Transport) -> None:
        while data := await stream.receive():
            await stream.send_all(data.upper())

    async with memory_network(capacity_bytes=3) as network:
        network.serve("http://here:1/v1", shout, connect_s=2)
        transport = await network.dial(HERE)
        assert trio.current_time() == pytest.approx(2)
        assert network.open == 1
        await transport.send_all(b"abc")
        assert await transport.receive() == b"ABC"
        transport.close()
        assert (network.open, network.dialed) == (0, 1)


async def test_dialer_refuses_where_nobody_listens(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No handler, or one that was taken away, also while connecting: refused."""

    async def serve(stream: Transport) -> None:
        await stream.receive()

    async with memory_network() as network:
        with pytest.raises(ConnectFailed, match="here:1: connection refused"):
            await network.dial(HERE)
        network.serve("http://here:1", serve, connect_s=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            with trio.move_on_after(1):
                await network.dial(HERE)
            network.refuse("http://here:1")
        with pytest.raises(ConnectFailed):
            await network.dial(HERE)
        assert (network.open, network.dialed) == (0, 3)


async def test_a_handler_that_ends_closes(autojump_clock: trio.testing.MockClock) -> None:
    """What it sent is still read; a handler left by its client is no failure."""

    async def greet(stream: Transport) -> None:
        await stream.send_all(b"bye")

    async def insist(stream: Transport) -> None:
        while True:
            await stream.send_all(b"x" * 100)

    async with memory_network(capacity_bytes=10) as network:
        network.serve("http://here:1", greet)
        transport = await network.dial(HERE)
        assert await transport.receive() == b"bye"
        assert await transport.receive() == b""
        transport.close()
        network.serve("http://here:1", insist)
        transport = await network.dial(HERE)
        await transport.receive()
        transport.close(reset=True)
        await trio.testing.wait_all_tasks_blocked()


async def test_a_handler_that_fails_fails_the_test(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Only `ConnectionLost` is a handler's everyday life."""

    async def fail(stream: Transport) -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with memory_network() as network:
            network.serve("http://here:1", fail)
            transport = await network.dial(HERE)
            assert await transport.receive() == b""
            await transport.send_all(b"swallowed")
            with pytest.raises(ConnectionLost):
                await transport.receive()
            await trio.sleep_forever()
