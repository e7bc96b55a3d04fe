"""The app that every server carries: paths, methods, ids, errors, a log line for each exchange."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from balancer.errors import ConnectionLost
from server.api.respond import respond_error, respond_json
from server.edge.app import App, Route
from server.edge.exchange import Message, Receive, Scope, Send
from server.errors import ApiError
from server.observe.log import AccessLog, LineWriter
from server.observe.record import Record
from tests.server.edge.loopback import serving


class Lines(LineWriter):
    """Log lines in a list."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


async def hello(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    await respond_json(send, record, 200, {"path": scope["path"]})


async def refuse(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError(409, "it is taken", code="taken", headers=[(b"x-why", b"because")])


async def crash(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a planned failure")


async def crash_late(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    record.status = 200
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    raise RuntimeError("a planned failure")


async def lose(record: Record, scope: Scope, receive: Receive, send: Send) -> None:
    raise ConnectionLost("gone")


def make_app() -> tuple[App, Lines]:
    lines = Lines()
    routes = {
        "/hello": Route(GET=hello, POST=hello),
        "/under/": Route(GET=hello),
        "/refuse": Route(GET=refuse),
        "/crash/": Route(GET=crash),
        "/crash": Route(GET=crash),
        "/crash-late": Route(GET=crash_late),
        "/lose": Route(GET=lose),
    }
    return App(routes, respond_error, AccessLog(lines, "json").write), lines


class Replies:
    """What an app sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def json(self) -> Any:
        return json.loads(b"".join(message["body"] for message in self.messages[1:]))


async def call(
    app: App, method: str, path: str, *headers: tuple[bytes, bytes], client: object = ("1.2.3.4", 5)
) -> Replies:
    """One exchange without a server."""
    replies = Replies()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [*headers],
        "client": client,
        "query_string": b"",
    }
    await app(scope, receive, replies.send)
    return replies


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/hello", 200),
        ("HEAD", "/hello", 200),
        ("POST", "/hello", 200),
        ("GET", "/under/", 200),
        ("GET", "/under/a/b", 200),
        ("GET", "/under", 404),
        ("GET", "/hello/", 404),
        ("GET", "/Hello", 404),
        ("GET", "/", 404),
        ("DELETE", "/hello", 405),
        ("POST", "/under/x", 405),
    ],
)
async def test_paths_and_methods(method: str, path: str, status: int) -> None:
    """Exact paths, paths that stand for all below, HEAD where there is GET, 404 and 405."""
    app, lines = make_app()
    replies = await call(app, method, path)
    assert replies.status == status
    assert [(line["status"], line["path"]) for line in lines.logged] == [(status, path)]
    if status == 405:
        assert replies.headers[b"allow"] in (b"GET, HEAD, POST", b"GET, HEAD")
        assert replies.json["error"]["code"] == "method_not_allowed"
    if status == 404:
        assert replies.json["error"]["code"] == "not_found"
        assert path in replies.json["error"]["message"]


async def test_an_api_error_is_told_in_the_apis_words() -> None:
    """Status, body, its own headers; the outcome in the log is its kind."""
    app, lines = make_app()
    replies = await call(app, "GET", "/refuse")
    assert (replies.status, replies.headers[b"x-why"]) == (409, b"because")
    assert replies.json["error"]["code"] == "taken"
    assert lines.logged[0]["outcome"] == "taken"


async def test_a_failure_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets an id and no detail; the log has the traceback under that id."""
    app, lines = make_app()
    replies = await call(app, "GET", "/crash", (b"x-request-id", b"abc"))
    assert replies.status == 500
    assert replies.headers[b"x-request-id"] == b"abc"
    assert replies.json["error"]["code"] == "internal_error"
    assert "planned" not in replies.json["error"]["message"]
    (line,) = lines.logged
    assert (line["status"], line["outcome"], line["request_id"]) == (500, "internal_error", "abc")
    assert "a planned failure" in caplog.text
    assert "abc" in caplog.text


async def test_a_failure_after_the_head_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """No second answer; the server under it breaks the connection off."""
    app, lines = make_app()
    async with serving(app) as served, await served.connect() as client:
        await client.send(b"GET /crash-late HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(Exception, match="broken"):
            await client.rest()
    assert lines.logged[0]["outcome"] == "internal_error"


async def test_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Its outcome says so, and nothing is logged besides."""
    app, lines = make_app()
    await call(app, "GET", "/lose")
    assert lines.logged[0]["outcome"] == "client_gone"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("given", [b"abc-123", b"!" * 128])
async def test_a_usable_request_id_is_echoed(given: bytes) -> None:
    """In the answer and in the log."""
    app, lines = make_app()
    replies = await call(app, "GET", "/hello", (b"x-request-id", given))
    assert replies.headers[b"x-request-id"] == given
    assert lines.logged[0]["request_id"] == given.decode()


@pytest.mark.parametrize("given", [None, b"", b"with space", b"\xff", b"x" * 129, b"a\tb"])
async def test_an_unusable_request_id_is_replaced(given: bytes | None) -> None:
    """A new one each time; nothing a client sends can break a log line or a header."""
    app, lines = make_app()
    headers = [] if given is None else [(b"x-request-id", given)]
    first = (await call(app, "GET", "/hello", *headers)).headers[b"x-request-id"]
    second = (await call(app, "GET", "/hello", *headers)).headers[b"x-request-id"]
    assert first.startswith(b"req_")
    assert len(first) == 28
    assert first != second
    assert [line["request_id"].encode() for line in lines.logged] == [first, second]


async def test_a_path_cannot_forge_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A failure's log message quotes the path: it stays one line whatever is in it."""
    app, _ = make_app()
    await call(app, "GET", "/crash/\n2026-01-01 root logged in\x1b[2J")
    message = caplog.records[0].getMessage()
    assert "\n" not in message
    assert "\x1b" not in message


async def test_a_client_without_an_address() -> None:
    """Over a Unix socket there is none."""
    app, lines = make_app()
    assert (await call(app, "GET", "/hello", client=None)).status == 200
    assert lines.logged[0]["client"] == ""


async def test_other_protocols_are_declined() -> None:
    """A websocket scope is an error of the server above, said plainly."""
    app, _ = make_app()
    with pytest.raises(NotImplementedError, match="websocket"):
        await app({"type": "websocket"}, None, None)  # type: ignore[arg-type]


async def test_lifespan_is_answered() -> None:
    """Startup and shutdown are complete at once: other servers may carry this app."""
    app, _ = make_app()
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    replies = Replies()

    async def receive() -> Message:
        return messages.pop(0)

    await app({"type": "lifespan"}, receive, replies.send)
    assert [message["type"] for message in replies.messages] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
