"""Which path goes where: the ASGI app that every server of Triolet carries."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from balancer.errors import ConnectionLost
from server.edge.exchange import EXTENSION, Exchange, Receive, Scope, Send
from server.errors import ApiError
from server.observe.record import Record

__all__ = ["App", "ErrorResponder", "Handler", "Route"]

log = logging.getLogger("triolet.app")

Handler = Callable[[Record, Scope, Receive, Send], Awaitable[None]]
ErrorResponder = Callable[[Send, Record, ApiError], Awaitable[None]]

_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")


class Route:
    """The handlers of one path by method; a path ending in `/` stands for all that begin so."""

    __slots__ = ("handlers",)

    def __init__(self, **handlers: Handler) -> None:
        self.handlers = dict(handlers)
        if "GET" in self.handlers:
            self.handlers.setdefault("HEAD", self.handlers["GET"])

    @property
    def allow(self) -> bytes:
        """For the Allow header."""
        return ", ".join(sorted(self.handlers)).encode()


class App:
    """Routes exchanges, gives each its id and its record, and settles the record at the end."""

    def __init__(
        self,
        routes: dict[str, Route],
        respond_error: ErrorResponder,
        settle: Callable[[Record], None],
    ) -> None:
        """`settle` is given each record, once, when its exchange is over."""
        self._exact = {path: route for path, route in routes.items() if not path.endswith("/")}
        self._prefixes = [(path, route) for path, route in routes.items() if path.endswith("/")]
        self._respond_error = respond_error
        self._settle = settle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            raise NotImplementedError(f"ASGI {scope['type']!r} is not served here")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = trio.current_time()
        client = scope["client"]
        record = Record(
            method=scope["method"],
            path=scope["path"],
            client=client[0] if client else "",
            request_id=_request_id(scope),
            started=started,
        )
        try:
            await self._find(scope)(record, scope, receive, send)
        except ApiError as error:
            await self._respond_error(send, record, error)
        except ConnectionLost:
            record.outcome = "client_gone"
        except Exception:
            record.outcome = "internal_error"
            log.exception("%s %r failed (%s)", record.method, record.path, record.request_id)
            if record.status == 0:
                await self._respond_error(send, record, _internal_error())
        except BaseException:  # cancelled, perhaps in a group
            exchange = scope["extensions"].get(EXTENSION)
            if isinstance(exchange, Exchange):
                status, record.outcome = exchange.fate()
                record.status = record.status or status
            else:
                record.outcome = "aborted"
            raise
        finally:
            if record.duration_s is None:
                record.duration_s = trio.current_time() - started
            self._settle(record)

    def _find(self, scope: Scope) -> Handler:
        path, method = scope["path"], scope["method"]
        route = self._exact.get(path) or self._by_prefix(path)
        if route is None:
            raise ApiError(404, f"there is nothing at {path}", code="not_found")
        handler = route.handlers.get(method)
        if handler is None:
            raise ApiError(
                405,
                f"{method} is not allowed for {path}; allowed: {route.allow.decode()}",
                code="method_not_allowed",
                headers=[(b"allow", route.allow)],
            )
        return handler

    def _by_prefix(self, path: str) -> Route | None:
        for prefix, route in self._prefixes:
            if path.startswith(prefix):
                return route
        return None


def _request_id(scope: Scope) -> str:
    """The client's own id if it sent a usable one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            text: str = value.decode("ascii")
            return text
    return f"req_{random.getrandbits(96):024x}"


def _internal_error() -> ApiError:
    return ApiError(
        500,
        "the server failed to answer this request; its log says why",
        type="server_error",
        code="internal_error",
    )


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop: `server.main` owns everything that outlives an exchange."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
