"""A Quart-Trio app is served unchanged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio
from quart import Response, request
from quart_trio import QuartTrio

from tests.server.edge.loopback import GET, LIMITS, PATIENCE_S, Served, serving

FILE: Final = bytes(range(256)) * 40
FORM: Final = (
    b'--frontier\r\nContent-Disposition: form-data; name="title"\r\n\r\nsong\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n" + FILE + b"\r\n--frontier--\r\n"
)
UPLOAD: Final = (
    b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=frontier\r\n"
    b"Content-Length: %d\r\n\r\n" % len(FORM) + FORM
)


def make_app(events: list[str]) -> QuartTrio:
    """An app with views of every kind."""
    app = QuartTrio("quart-under-test")

    @app.before_serving
    async def up() -> None:
        events.append("up")

    @app.after_serving
    async def down() -> None:
        events.append("down")

    @app.route("/")
    async def home() -> dict[str, Any]:
        return {"hello": request.args.get("name", "world"), "up": "up" in events}

    @app.route("/echo", methods=["POST"])
    async def echo() -> Response:
        body = await request.get_data(as_text=False)
        return Response(body, 201, {"x-length": str(len(body))})

    @app.route("/upload", methods=["POST"])
    async def upload() -> dict[str, Any]:
        files = await request.files
        form = await request.form
        return {"title": form["title"], "same": files["file"].read() == FILE}

    @app.route("/stream")
    async def stream() -> Response:
        count = int(request.args["n"])

        async def numbers() -> AsyncIterator[bytes]:  # noqa: ASYNC900 - as its users write it
            try:
                for number in range(count):
                    yield b"%d\n" % number
                    await trio.sleep(0.001)
            finally:
                events.append("closed")

        return Response(numbers(), mimetype="text/plain")

    @app.route("/boom")
    async def boom() -> str:
        raise RuntimeError("a planned failure")

    return app


@asynccontextmanager
async def quart(events: list[str]) -> AsyncIterator[Served]:
    """The app, started, served and stopped."""
    app = make_app(events)
    async with serving(app, lifespan=True) as served:  # type: ignore[arg-type]
        yield served


async def test_views_and_lifespan() -> None:
    """before_serving has run, views answer, bodies both ways, several on one connection."""
    events: list[str] = []
    async with quart(events) as served, await served.connect() as client:
        await client.send(b"GET /?name=Trio HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await client.answer()
        assert (got.status, got.body.split()) == (200, b'{"hello":"Trio","up":true}'.split())
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        got = await client.answer()
        assert (got.status, got.body, got.header(b"x-length")) == (201, b"abc", b"3")
        await client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).status == 404
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await client.answer("HEAD")
        assert (got.status, got.body) == (200, b"")
    assert events == ["up", "down"]


async def test_a_file_in_a_form() -> None:
    """multipart/form-data with a binary file arrives as it is."""
    async with quart([]) as served, await served.connect() as client:
        await client.send(UPLOAD)
        got = await client.answer()
        assert got.status == 200
        assert b'"same":true' in got.body.replace(b" ", b"")


async def test_streaming() -> None:
    """An async generator as the body."""
    events: list[str] = []
    async with quart(events) as served, await served.connect() as client:
        await client.send(b"GET /stream?n=20 HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        assert (await client.answer()).body == b"".join(b"%d\n" % number for number in range(20))
        assert (await client.answer()).status == 200
    assert "closed" in events


async def test_a_streams_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    """Quart-Trio is told, ends the generator, and nothing is logged."""
    events: list[str] = []
    async with quart(events) as served:
        async with await served.connect() as client:
            await client.send(b"GET /stream?n=100000 HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.read_until(b"10\n")
        with trio.fail_after(PATIENCE_S):
            await served.until_empty()
    assert "closed" in events
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_kept_connection_is_still_closed_when_idle() -> None:
    """After an answer Quart must not be told of a disconnect that keeps the timer from running."""
    app = make_app([])
    limits = LIMITS._replace(keep_alive_s=0.05)
    async with serving(app, limits) as served, await served.connect() as client:  # type: ignore[arg-type]
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_an_exception_in_a_view(caplog: pytest.LogCaptureFixture) -> None:
    """Quart's own 500; the next request is served."""
    async with quart([]) as served, await served.connect() as client:
        await client.send(b"GET /boom HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        assert (await client.answer()).status == 500
        assert (await client.answer()).status == 200
    assert "a planned failure" in caplog.text
