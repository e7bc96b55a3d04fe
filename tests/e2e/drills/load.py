"""Many clients at once, and an account of every request they sent.

    async with under_load(port, clients=24) as load:
        ...                                      # what the drill does
    load.assert_accounted()

At the end of the block each client finishes the call it is at. Each call has an id of its own,
which the replicas of the drills repeat in every event: so an answer that is somebody else's, or
comes twice, is seen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from itertools import count
from typing import Any, Final, Literal

import httptools
import trio

from tests.e2e.faults.client import Answer, post

__all__ = ["ADMIN_KEY", "Call", "Kind", "Load", "fetch", "under_load"]

Kind = Literal["answered", "refused", "told", "left", "broken"]
"""answered: whole and right; refused: an error instead of an answer; told: an error within a
stream; left: the client went away. Nothing may be broken."""

ADMIN_KEY: Final = "drill-key"
"""What `fetch` shows to the admin API."""
_CALL_S: Final = 20.0
"""No call of a drill takes so long; if one does, its client is stuck."""
_AFTER_REFUSAL_S: Final = 0.02
_USUAL: Final = {"max_tokens": 8, "ignore_eos": True, "stream_options": {"include_usage": True}}

_numbers: Final = count()


class Call:
    """One request and what became of it. Times are those of `trio.current_time`."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.id = f"call-{next(_numbers)}"
        self.tokens: int = fields["max_tokens"]
        self.text: str = fields["messages"][-1]["content"]
        self.sent_at = trio.current_time()
        self.head_at: float | None = None
        """When its client had the first bytes."""
        self.ended_at: float | None = None
        self.answer = Answer()
        self.left = False

    @property
    def begun(self) -> bool:
        """Whether a stream has reached the client."""
        return self.answer.status == 200 and bool(self.answer.body)

    @property
    def replica(self) -> str:
        """Who answered, as the head says."""
        return self.answer.headers.get("x-triolet-replica", "")

    @property
    def took_s(self) -> float:
        assert self.ended_at is not None
        return self.ended_at - self.sent_at

    @cached_property
    def kind(self) -> Kind:
        """What became of it; to be asked once it has ended."""
        answer = self.answer
        if self.left:
            return "left"
        if not answer.whole:
            return "broken"
        if answer.status != 200:
            return "refused" if _is_error(answer.body) else "broken"
        return self._kind_of_stream()

    @cached_property
    def usage(self) -> dict[str, Any]:
        """As the replica reported it at the end; empty if it did not."""
        for event in reversed(self._data()):
            if event.startswith(b"{") and (usage := json.loads(event).get("usage")):
                return dict(usage)
        return {}

    def _data(self) -> list[bytes]:
        events = self.answer.body.split(b"\n\n")[:-1]
        return [event.removeprefix(b"data: ") for event in events]

    def _kind_of_stream(self) -> Kind:
        data = self._data()
        if not self.answer.body.endswith(b"\n\n") or not data:
            return "broken"
        *events, last = data
        told = last != b"[DONE]"
        if told and not _is_error(last):
            return "broken"
        for event in events:
            if json.loads(event).get("id") != f"chatcmpl-{self.id}":
                return "broken"
        if told:
            return "told"
        return "answered" if self.usage.get("completion_tokens") == self.tokens else "broken"

    def __repr__(self) -> str:
        head = f"{self.id} {self.answer.status} from {self.replica or 'nobody'}"
        return f"<{head}: {self.answer.body[:200]!r} ... {self.answer.body[-200:]!r}>"


def _is_error(body: bytes) -> bool:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(error["message"] and error["type"] and error["code"])


class _Line:
    """A connection that one client keeps for its calls as long as it is good."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock: trio.socket.SocketType | None = None

    async def open(self) -> trio.socket.SocketType:
        if self._sock is None:
            self._sock = trio.socket.socket()
            await self._sock.connect(("127.0.0.1", self._port))
        return self._sock

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class Load:
    """Clients of one Triolet, and every call they made."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.calls: list[Call] = []
        """All, in the order in which they were sent."""
        self.ended: list[Call] = []
        """Those that are over, in that order."""
        self.kinds: Counter[Kind] = Counter()
        self.stopped = False

    @property
    def in_flight(self) -> list[Call]:
        return [call for call in self.calls if call.ended_at is None]

    def of(self, kind: Kind) -> list[Call]:
        """The calls that ended so."""
        return [call for call in self.ended if call.kind == kind]

    def by_replica(self, since: float = 0.0) -> Counter[str]:
        """The calls answered since then, by who answered."""
        return Counter(
            call.replica for call in self.ended if call.kind == "answered" and call.sent_at >= since
        )

    async def call(self, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Call:
        """One call on a connection of its own."""
        line = _Line(self.port)
        try:
            return await self._call(line, 0, fields, headers or {})
        finally:
            line.close()

    async def keep_calling(
        self,
        client: int,
        fields: Callable[[int], dict[str, Any]],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Call again and again until `stopped`."""
        line = _Line(self.port)
        try:
            while not self.stopped:
                call = await self._call(line, client, fields(client), headers or {})
                if call.kind == "refused":
                    await trio.sleep(_AFTER_REFUSAL_S)
        finally:
            line.close()

    async def _call(
        self, line: _Line, client: int, fields: dict[str, Any], headers: Mapping[str, str]
    ) -> Call:
        fields = {**_USUAL, "messages": _hello(client), **fields}
        call = Call(fields)
        self.calls.append(call)
        named = {"x-request-id": call.id, **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items()).encode()
        request = post(headers=lines, **fields)
        try:
            with trio.move_on_after(_CALL_S):
                await _converse(call, await line.open(), request)
        except OSError:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            call.left = True
            raise
        finally:
            call.ended_at = trio.current_time()
            self.ended.append(call)
            self.kinds[call.kind] += 1
            if not call.answer.whole or call.answer.headers.get("connection") == "close":
                line.close()
        return call

    def assert_accounted(self, *, refused: int | None = None, told: int | None = None) -> None:
        """Each call sent has ended, in one of the ways it may; in so many of each, if given."""
        assert not self.in_flight
        assert not self.of("broken"), self.of("broken")[:3]
        kinds = self.kinds
        assert len(self.calls) == sum(kinds.values())
        if refused is not None:
            assert kinds["refused"] == refused, self.of("refused")[:3]
        if told is not None:
            assert kinds["told"] == told, self.of("told")[:3]


def _hello(client: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Hello from client {client}!"}]


async def _converse(call: Call, sock: trio.socket.SocketType, request: bytes) -> None:
    answer = call.answer
    parser = httptools.HttpResponseParser(answer)
    await _send(sock, request)
    while not answer.whole:
        data = await sock.recv(65_536)
        if not data:
            return
        parser.feed_data(data)
        answer.status = parser.get_status_code()
        if call.head_at is None:
            call.head_at = trio.current_time()


async def _send(sock: trio.socket.SocketType, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[await sock.send(view) :]


def _usual(_: int) -> dict[str, Any]:
    return {}


@asynccontextmanager
async def under_load(
    port: int,
    *,
    clients: int = 24,
    fields: Callable[[int], dict[str, Any]] = _usual,
    headers: Mapping[str, str] | None = None,
    load: Load | None = None,
) -> AsyncIterator[Load]:
    """So many clients call one after the other; `fields` of the request by the client's number."""
    load = load or Load(port)
    async with trio.open_nursery() as nursery:
        for client in range(clients):
            nursery.start_soon(load.keep_calling, client, fields, headers)
        yield load
        load.stopped = True


async def fetch(
    port: int, path: str, *, method: str = "GET", body: object = None, within_s: float = 5.0
) -> Answer:
    """One exchange with Triolet's own API, on a connection of its own."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
    head += f"authorization: Bearer {ADMIN_KEY}\r\n"
    if body is not None:
        head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
    answer = Answer()
    parser = httptools.HttpResponseParser(answer)
    with trio.fail_after(within_s), trio.socket.socket() as sock:
        await sock.connect(("127.0.0.1", port))
        await _send(sock, head.encode() + b"\r\n" + data)
        while not answer.whole:
            parser.feed_data(await sock.recv(65_536))
        answer.status = parser.get_status_code()
    return answer
