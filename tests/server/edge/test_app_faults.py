"""An app that fails ends its own exchange, and nothing else; its mistakes do not reach clients."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
import trio

from server.edge.exchange import ASGIApp, Receive, Scope, Send
from tests.server.edge.loopback import GET, HEAD, LIMITS, POST_HELLO, Served, answer, serving

START: Final[dict[str, Any]] = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Final[dict[str, Any]] = {"type": "http.response.body", "body": b"piece", "more_body": True}
END: Final[dict[str, Any]] = {"type": "http.response.body", "body": b"end"}


SHORT: Final = LIMITS._replace(keep_alive_s=0.5)


class Planned(Exception):
    """What the apps here fail with."""


async def fail(send: Send) -> None:
    raise Planned


async def fail_in_a_group(send: Send) -> None:
    async def child() -> None:
        raise Planned

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(trio.sleep_forever)


async def fail_with_an_os_error(send: Send) -> None:
    raise OSError("the app's own, not the client's")


async def fail_after_the_head(send: Send) -> None:
    await send(START)
    raise Planned


async def say_nothing(send: Send) -> None:
    pass


async def say_only_the_head(send: Send) -> None:
    await send(START)


def saying(*messages: Any) -> Callable[[Send], Awaitable[None]]:
    """An app that sends these."""

    async def say(send: Send) -> None:
        for message in messages:
            await send(message)

    return say


def head_with(*headers: tuple[Any, Any], status: Any = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


BEFORE_THE_HEAD: Final[dict[str, Callable[[Send], Awaitable[None]]]] = {
    "raises": fail,
    "raises-group": fail_in_a_group,
    "raises-os-error": fail_with_an_os_error,
    "raises-after-start": fail_after_the_head,
    "returns": say_nothing,
    "returns-after-start": say_only_the_head,
    "body-first": saying(END),
    "starts-twice": saying(START, START),
    "unknown-message": saying({"type": "http.response.pathsend", "path": "/etc/passwd"}),
    "websocket-message": saying({"type": "websocket.accept"}),
    "no-type": saying({}),
    "no-status": saying({"type": "http.response.start"}, END),
    "status-of-text": saying(head_with(status="200"), END),
    "header-of-text": saying(head_with(("x", "y")), END),
    "header-with-crlf": saying(head_with((b"x", b"a\r\nset-cookie: b")), END),
    "header-with-lf": saying(head_with((b"x", b"a\nset-cookie: b")), END),
    "header-with-cr": saying(head_with((b"x", b"a\rset-cookie: b")), END),
    "header-with-nul": saying(head_with((b"x", b"a\0b")), END),
    "header-name-with-crlf": saying(head_with((b"x: a\r\nset-cookie", b"b")), END),
    "header-splits-response": saying(head_with((b"x", b"\r\n\r\nset-cookie: b")), END),
    "length-not-a-number": saying(head_with((b"content-length", b"many")), END),
    "too-short-at-once": saying(head_with((b"content-length", b"5")), END),
    "too-long-at-once": saying(head_with((b"content-length", b"2")), END),
}

AFTER_THE_HEAD: Final[dict[str, Callable[[Send], Awaitable[None]]]] = {
    "returns": saying(START, PIECE),
    "starts-again": saying(START, PIECE, START, END),
    "unknown-message": saying(START, PIECE, {"type": "http.response.trailers", "headers": []}),
    "too-short": saying(head_with((b"content-length", b"50")), PIECE, END),
    "too-short-returns": saying(head_with((b"content-length", b"50")), PIECE),
    "too-long": saying(head_with((b"content-length", b"6")), PIECE, END),
    "too-long-with-more": saying(head_with((b"content-length", b"6")), PIECE, PIECE, PIECE),
}


async def raise_after_a_piece(send: Send) -> None:
    await saying(START, PIECE)(send)
    raise Planned


async def raise_a_group_after_a_piece(send: Send) -> None:
    await saying(START, PIECE)(send)
    await fail_in_a_group(send)


AFTER_THE_HEAD["raises"] = raise_after_a_piece
AFTER_THE_HEAD["raises-group"] = raise_a_group_after_a_piece


def failing_at_root(say: Callable[[Send], Awaitable[None]]) -> ASGIApp:
    """Fails as told at `/`; anywhere else it is a good app, `/wait` a slow one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await say(send)
        else:
            await receive()
            await trio.sleep(0.03 if scope["path"] == "/wait" else 0)
            await answer(send, 200, b"good")

    return app


async def others_are_served(served: Served) -> bool:
    async with await served.connect() as client:
        await client.send(POST_HELLO)
        return (await client.answer()).body == b"good"


@pytest.fixture(autouse=True)
def _nothing_is_said_to_be_our_bug(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An app's fault is told as the app's, and only by the edge's own logger."""
    yield
    assert not [record for record in caplog.records if "please report it" in record.getMessage()]


@pytest.mark.parametrize("say", BEFORE_THE_HEAD.values(), ids=BEFORE_THE_HEAD)
async def test_500_if_nothing_was_sent(
    say: Callable[[Send], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """A plain 500, nothing of what the app wanted to say, closed; others do not notice."""
    async with serving(failing_at_root(say), SHORT) as served, await served.connect() as other:
        await other.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        async with await served.connect() as client:
            await client.send(GET)
            got = await client.answer()
            assert (got.status, got.header(b"connection")) == (500, b"close")
            assert got.body == b"the server failed to answer this request"
            assert not {name for name, _ in got.headers} & {b"set-cookie", b"x"}
            assert await client.rest() == b""
        assert (await other.answer()).body == b"good"
        assert await others_are_served(served)
        assert served.server.counts().refused == {500: 1}
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == (0 if say in (say_nothing, say_only_the_head) else 1)


@pytest.mark.parametrize("say", AFTER_THE_HEAD.values(), ids=AFTER_THE_HEAD)
@pytest.mark.parametrize("behind", [b"", GET])
async def test_a_cut_if_something_was_sent(
    say: Callable[[Send], Awaitable[None]], behind: bytes
) -> None:
    """The client can tell that the answer is not whole, and nothing is put behind it."""
    async with serving(failing_at_root(say), SHORT) as served, await served.connect() as other:
        await other.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        async with await served.connect() as client:
            await client.send(GET + behind)
            got = await client.until_reset()
            assert got.count(b"HTTP/1.1 ") <= 1
            assert b"0\r\n\r\n" not in got
        assert (await other.answer()).body == b"good"
        assert await others_are_served(served)


@pytest.mark.parametrize("say", AFTER_THE_HEAD.values(), ids=AFTER_THE_HEAD)
async def test_http10_can_tell_a_cut(say: Callable[[Send], Awaitable[None]]) -> None:
    """Where only the connection's end tells the body's, a cut is a reset and not an end."""
    async with serving(failing_at_root(say), SHORT) as served, await served.connect() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.until_reset()


async def test_a_failure_after_a_whole_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The client has its answer and keeps its connection; the failure is logged."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 200, b"whole")
        raise Planned

    async with serving(app) as served, await served.connect() as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer()).body == b"whole"
    assert len([record for record in caplog.records if record.exc_info]) == 2


async def test_a_message_after_the_end_is_refused() -> None:
    """The app is told; the client sees one whole answer and, next, the next one."""
    told: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 200, b"whole")
        for message in (END, START):
            try:
                await send(message)
            except Exception as exc:
                told.append(exc)

    async with serving(app) as served, await served.connect() as client:
        await client.send(GET + GET)
        for _ in range(2):
            assert (await client.answer()).body == b"whole"
        assert await client.silent(0.02)
    assert len(told) == 4


async def test_head_of_a_failing_app() -> None:
    """The 500 for a HEAD is complete too: whoever reads it knows where it ends."""
    async with serving(failing_at_root(fail)) as served:
        raw = await served.ask(HEAD)
    assert raw.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close" in raw
    assert raw.endswith(b"\r\n\r\n"), "a response to HEAD has no body"


async def test_cancelling_inside_the_app_is_the_apps_business() -> None:
    """A cancelled scope within the app does not look like the end of the connection."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with trio.move_on_after(0.001) as moved:
            await trio.sleep_forever()
        assert moved.cancelled_caught
        await answer(send, 200, b"went on")

    async with serving(app) as served, await served.connect() as client:
        await client.send(GET + GET)
        assert [(await client.answer()).body for _ in range(2)] == [b"went on"] * 2


async def test_a_failing_app_with_an_unread_body() -> None:
    """A 500 while the client is still sending arrives, and is not lost in a reset."""
    async with serving(failing_at_root(fail)) as served, await served.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n")
        await client.send(b"x" * 50_000)
        assert (await client.answer()).status == 500
        await client.send(b"x" * 40_000)
        assert await client.rest() == b""
