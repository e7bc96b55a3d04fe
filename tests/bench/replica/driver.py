"""Drives the replica as a server would, in memory and in whatever clock Trio runs on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import trio

from bench.replica.asgi import Application, Event, Scope

JSON = ((b"content-type", b"application/json"),)


@dataclass
class Answer:
    """What came back: the head, and each body event with the time since the request began."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    head_s: float | None = None
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(chunk for _, chunk in self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[float, Any]]:
        """The JSON documents of the stream, with their times; the end mark must be there."""
        assert all(c.startswith(b"data: ") and c.endswith(b"\n\n") for _, c in self.chunks)
        assert self.chunks[-1][1] == b"data: [DONE]\n\n"
        return [(at, json.loads(chunk[6:])) for at, chunk in self.chunks[:-1]]

    def choices(self, index: int = 0) -> list[tuple[float, Any]]:
        """The events that carry choice `index`."""
        found = ((at, choice) for at, event in self.events() for choice in event["choices"])
        return [(at, choice) for at, choice in found if choice["index"] == index]

    def text(self, index: int = 0) -> str:
        """The text of choice `index`, streamed or not."""
        if self.headers["content-type"].startswith("text/event-stream"):
            choices = [choice for _, choice in self.choices(index)]
        else:
            choices = [self.json()["choices"][index]]
        parts = [c.get("delta") or c.get("message") or {"content": c["text"]} for c in choices]
        return "".join(part["content"] for part in parts)


def scope_of(method: str, path: str, headers: tuple[tuple[bytes, bytes], ...]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*headers],
    }


@dataclass
class _Client:
    """One exchange as the application sees it."""

    pieces: list[bytes]
    leaves_at_s: float | None
    answer: Answer = field(default_factory=Answer)
    begun_s: float = field(default_factory=trio.current_time)

    async def receive(self) -> Event:
        await trio.lowlevel.checkpoint()
        if self.pieces:
            body = self.pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self.pieces)}
        if self.leaves_at_s is None:
            await trio.sleep_forever()
        else:
            await trio.sleep_until(self.begun_s + self.leaves_at_s)
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        now_s = trio.current_time() - self.begun_s
        if event["type"] == "http.response.start":
            assert self.answer.head_s is None
            self.answer.head_s = now_s
            self.answer.status = event["status"]
            pairs = ((k.decode(), v.decode()) for k, v in event["headers"])
            self.answer.headers = dict(pairs)
        else:
            assert self.answer.head_s is not None
            assert not self.answer.complete
            self.answer.chunks.append((now_s, event["body"]))
            self.answer.complete = not event.get("more_body", False)
        await trio.lowlevel.checkpoint()


async def call(
    app: Application,
    method: str,
    path: str,
    body: bytes | list[bytes] = b"",
    *,
    headers: tuple[tuple[bytes, bytes], ...] = JSON,
    leaves_at_s: float | None = None,
) -> Answer:
    """One exchange; the client leaves `leaves_at_s` after its beginning, if at all."""
    pieces = body if isinstance(body, list) else [body]
    client = _Client(pieces, leaves_at_s)
    await app(scope_of(method, path, headers), client.receive, client.send)
    return client.answer


async def post(app: Application, path: str, **fields: Any) -> Answer:
    """One complete exchange with a JSON body."""
    return await call(app, "POST", path, json.dumps(fields).encode())


async def chat(app: Application, said: str = "Hello there", **fields: Any) -> Answer:
    """One chat exchange with a single user message."""
    messages = [{"role": "user", "content": said}]
    return await post(app, "/v1/chat/completions", model="demo", messages=messages, **fields)
