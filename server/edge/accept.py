"""Listening sockets, and accepting on them through everything that can go wrong there."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import trio

__all__ = ["accept", "bind"]

log = logging.getLogger("triolet.edge")

_BACKLOG: Final = 2048
_AT_ONCE: Final = 64
_OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# accept(2) hands over what already went wrong with that one connection.
_LOST_BEFORE_ACCEPT: Final = {
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EPERM",
        "EPROTO",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
}


def bind(host: str, port: int) -> socket.socket:
    """A listening, non-blocking socket. Raises OSError with the address in it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    sock = socket.socket(infos[0][0], socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(infos[0][4])
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on {host} port {port}: {exc.strerror}") from exc
    sock.setblocking(False)
    return sock


async def accept(listener: socket.socket, take: Callable[[socket.socket, Any], None]) -> None:
    """Hand every connection and its address to `take` until cancelled; then close `listener`.

    What goes wrong with one connection before it is accepted is that connection's end alone.
    """
    with listener:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(_AT_ONCE):
                    take(*listener.accept())
            except BlockingIOError:
                continue
            except OSError as exc:
                if exc.errno in _LOST_BEFORE_ACCEPT:
                    continue
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                # The waiting clients stay in the backlog until something is closed.
                log.warning("cannot accept: %s (raise `ulimit -n`)", exc.strerror)
                await trio.sleep(0.1)
