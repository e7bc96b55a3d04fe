"""A Starlette app is served unchanged: what it promises its users holds here."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.server.edge.loopback import GET, PATIENCE_S, Served, serving

WEBSOCKET: Final = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Notes:
    """What happened inside the app."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.happened = trio.Event()

    def note(self, event: str) -> None:
        self.events.append(event)
        self.happened.set()


def make_app(notes: Notes) -> Starlette:
    """An app with one of everything."""

    async def home(request: Request) -> Response:
        return JSONResponse({"state": request.state.greeting, "q": dict(request.query_params)})

    async def item(request: Request) -> Response:
        return JSONResponse({"id": request.path_params["id"], "by": request.method})

    async def stream(request: Request) -> Response:
        async def numbers() -> AsyncIterator[bytes]:  # noqa: ASYNC900 - as its users write it
            for number in range(int(request.query_params["n"])):
                yield b"%d\n" % number
                await trio.sleep(0.001)

        return StreamingResponse(numbers(), media_type="text/plain")

    async def upload(request: Request) -> Response:
        size = 0
        try:
            async for piece in request.stream():
                size += len(piece)
        except ClientDisconnect:
            notes.note("left")
            raise
        return JSONResponse({"size": size})

    async def boom(request: Request) -> Response:
        raise RuntimeError("a planned failure")

    async def later(request: Request) -> Response:
        return PlainTextResponse("now", background=BackgroundTask(notes.note, "later"))

    async def moved(request: Request) -> Response:
        return RedirectResponse("/items/1")

    async def talk(socket: WebSocket) -> None:
        raise AssertionError("no websocket may get here")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        notes.note("up")
        yield {"greeting": "hi"}
        notes.note("down")

    return Starlette(
        routes=[
            Route("/", home),
            Route("/items/{id:int}", item, methods=["GET", "PUT"]),
            Route("/stream", stream),
            Route("/upload", upload, methods=["POST"]),
            Route("/boom", boom),
            Route("/later", later),
            Route("/moved", moved),
            WebSocketRoute("/ws", talk),
        ],
        lifespan=lifespan,
    )


@asynccontextmanager
async def starlette(notes: Notes) -> AsyncIterator[Served]:
    """The app, started, served and stopped."""
    app = make_app(notes)
    async with serving(app, lifespan=True) as served:
        yield served


def get(path: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    return head % (method, path, len(body)) + body


async def test_routing_json_and_state() -> None:
    """Paths, parameters, methods, HEAD, 404, 405, redirects, and the lifespan's state."""
    notes = Notes()
    async with starlette(notes) as served, await served.connect() as client:
        asked = (
            (get(b"/?a=b%20c"), "GET", 200, b'{"state":"hi","q":{"a":"b c"}}'),
            (get(b"/items/7", b"PUT", b"x"), "PUT", 200, b'{"id":7,"by":"PUT"}'),
            (get(b"/items/7", b"HEAD"), "HEAD", 200, b""),
            (get(b"/items/x"), "GET", 404, b"Not Found"),
            (get(b"/items/7", b"DELETE"), "DELETE", 405, b"Method Not Allowed"),
            (get(b"/moved"), "GET", 307, b""),
        )
        await client.send(b"".join(request for request, *_ in asked))  # pipelined
        for _, method, status, body in asked:
            got = await client.answer(method)
            assert (got.status, got.body) == (status, body)
    assert notes.events == ["up", "down"]


async def test_streaming() -> None:
    """Pieces of a StreamingResponse come as they are made, to their end."""
    async with starlette(Notes()) as served, await served.connect() as client:
        await client.send(get(b"/stream?n=20"))
        got = await client.answer()
        assert got.header(b"transfer-encoding") == b"chunked"
        assert got.body == b"".join(b"%d\n" % number for number in range(20))


# Starlette does not close the generator of a stream that broke off.
@pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")
async def test_a_streams_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette ends the stream by an exception of its own: not worth an error in the log."""
    async with starlette(Notes()) as served:
        async with await served.connect() as client:
            await client.send(get(b"/stream?n=100000"))
            await client.read_until(b"10\n")
        await served.until_empty()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_file_is_uploaded() -> None:
    """A large body, taken in pieces."""
    async with starlette(Notes()) as served, await served.connect() as client:
        await client.send(get(b"/upload", b"POST", bytes(99_999)))
        assert (await client.answer()).body == b'{"size":99999}'


async def test_an_uploads_client_leaves() -> None:
    """The view gets Starlette's ClientDisconnect."""
    notes = Notes()
    async with starlette(notes) as served:
        notes.happened = trio.Event()
        async with await served.connect() as client:
            await client.send(get(b"/upload", b"POST", bytes(1000))[:-500])
            await trio.sleep(0.02)
        with trio.fail_after(PATIENCE_S):
            await notes.happened.wait()
    assert "left" in notes.events


async def test_a_websocket_is_declined() -> None:
    """No upgrade: an ordinary 404 from Starlette's routing, and the connection goes on."""
    async with starlette(Notes()) as served, await served.connect() as client:
        await client.send(WEBSOCKET + GET)
        assert (await client.answer()).status == 404
        assert (await client.answer()).status == 200


async def test_a_background_task_does_not_hold_up_the_answer() -> None:
    """It runs after the answer; the next request on the connection comes after it."""
    notes = Notes()
    async with starlette(notes) as served, await served.connect() as client:
        await client.send(get(b"/later") + GET)
        assert (await client.answer()).body == b"now"
        assert (await client.answer()).status == 200
        assert notes.events == ["up", "later"]


async def test_an_exception_in_a_view(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette's own 500, the traceback in the log, and the next request is served."""
    async with starlette(Notes()) as served, await served.connect() as client:
        await client.send(get(b"/boom") + GET)
        got = await client.answer()
        assert (got.status, got.body) == (500, b"Internal Server Error")
        assert (await client.answer()).status == 200
    assert "a planned failure" in caplog.text
