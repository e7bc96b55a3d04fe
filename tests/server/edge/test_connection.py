"""One connection: keep-alive, pipelining, bodies, Expect, HEAD, HTTP/1.0, upgrades."""

from __future__ import annotations

from typing import Final

import pytest
import trio

from balancer.wire.poller import EpollPoller, Poller, TaskPoller
from server.edge.exchange import Receive, Scope, Send
from tests.server.edge.loopback import (
    GET,
    HEAD,
    LIMITS,
    POST_CHUNKED,
    POST_HELLO,
    Recorder,
    answer,
    quick,
    serving,
)

GET_CLOSE: Final = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
GET_OLD: Final = b"GET /old HTTP/1.0\r\n\r\n"
GET_OLD_KEPT: Final = b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
POST_OLD: Final = b"POST /old HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"
MALFORMED: Final = b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"
EXPECTING: Final = (
    b"POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
)
UPGRADE_H2C: Final = (
    b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
)
UPGRADE_WITH_BODY: Final = (
    b"POST /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
)
UPGRADE_SIZED: Final = UPGRADE_WITH_BODY + b"Content-Length: 5\r\n\r\nhello"
UPGRADE_CHUNKED: Final = (
    UPGRADE_WITH_BODY + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
UPGRADE_SMUGGLING: Final = (
    UPGRADE_WITH_BODY
    + b"Content-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX: aaa\r\n\r\n"
)


@pytest.fixture(params=["epoll", "tasks"])
def poller(request: pytest.FixtureRequest) -> Poller:
    """Each kind of poller: the one of Linux, and the one that works anywhere."""
    return EpollPoller() if request.param == "epoll" else TaskPoller()


async def stream_back(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body piece by piece, as it comes, without saying how long it is."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def test_a_connection_serves_one_request_after_another(poller: Poller) -> None:
    """Keep-alive: three requests, one connection, each answered before the next is sent."""
    recorder = Recorder()
    async with serving(recorder, poller=poller) as served, await served.connect() as client:
        for request, body in ((GET, b""), (POST_HELLO, b"hello"), (POST_CHUNKED, b"hello")):
            await client.send(request)
            got = await client.answer()
            assert (got.status, got.body, got.version) == (200, body, "1.1")
            assert got.header(b"connection") is None
        assert served.server.counts().accepted == 1
    assert recorder.paths == ["/", "/sized", "/chunked"]


async def test_connection_close_is_honoured() -> None:
    """The client asks for the end: told so in the answer, and the connection is closed."""
    async with serving(quick) as served, await served.connect() as client:
        await client.send(GET_CLOSE)
        got = await client.answer()
        assert (got.body, got.header(b"connection")) == (b"/last", b"close")
        assert await client.rest() == b""


async def test_nothing_is_served_after_connection_close() -> None:
    """A request behind one that said `close` is not served, whether it came with it or later."""
    recorder = Recorder()
    async with serving(recorder) as served:
        raw = await served.ask(GET_CLOSE + GET)
        assert raw.count(b"HTTP/1.1 ") == 1
    assert recorder.paths == ["/last"]


async def test_pipelined_requests_are_answered_in_order(poller: Poller) -> None:
    """Requests with and without bodies in one segment: as many answers, in their order."""
    recorder = Recorder()
    burst = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(20)]
    burst[5:5] = [POST_HELLO, POST_CHUNKED, POST_HELLO]
    async with serving(recorder, poller=poller) as served, await served.connect() as client:
        await client.send(b"".join(burst))
        bodies = [(await client.answer()).body for _ in burst]
    expected = [f"/{number}" for number in range(20)]
    expected[5:5] = ["/sized", "/chunked", "/sized"]
    assert recorder.paths == expected
    assert bodies == [b"hello" if path in ("/sized", "/chunked") else b"" for path in expected]


async def test_pipelined_requests_run_one_at_a_time() -> None:
    """The second request does not start before the first is answered."""
    running = 0
    started: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running
        running += 1
        assert running == 1
        started.append(scope["path"])
        await trio.sleep(0.01)
        await answer(send, 200, scope["path"].encode())
        running -= 1

    async with serving(app) as served, await served.connect() as client:
        await client.send(GET + POST_HELLO + GET)
        assert [(await client.answer()).body for _ in range(3)] == [b"/", b"/sized", b"/"]
    assert started == ["/", "/sized", "/"]


@pytest.mark.parametrize("first", [GET, POST_HELLO, POST_CHUNKED])
async def test_a_malformed_request_does_not_spoil_those_before_it(first: bytes) -> None:
    """The good request is answered in full, the bad one behind it refused, then it is over."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(first + MALFORMED + GET)
        assert (await client.answer()).status == 200
        refused = await client.answer()
        assert (refused.status, refused.header(b"connection")) == (400, b"close")
        assert await client.rest() == b""
    assert len(recorder.seen) == 1


async def test_a_body_the_app_did_not_read_does_not_become_a_request() -> None:
    """The unread body is skipped if it is here; if it is not, the connection ends."""
    async with serving(quick) as served, await served.connect() as client:
        await client.send(POST_HELLO + GET)
        assert [(await client.answer()).body for _ in range(2)] == [b"/sized", b"/"]
        await client.send(POST_HELLO[:-2])
        assert (await client.answer()).body == b"/sized"
        await client.send(b"lo" + GET)
        assert await client.rest() == b""


async def test_a_body_comes_as_it_is_sent_and_goes_as_the_app_sends_it() -> None:
    """Chunked both ways, in full duplex: each piece is answered before the next is sent."""
    async with serving(stream_back) as served, await served.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await client.send(b"4\r\nnr %d\r\n" % number)
            raw = await client.read_until(b"nr %d\r\n" % number)
            assert raw.endswith(b"4\r\nnr %d\r\n" % number)
        await client.send(b"0\r\n\r\n" + GET)
        assert await client.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"
        assert (await client.answer()).status == 200


async def test_a_length_the_app_gives_is_kept() -> None:
    """With content-length from the app the body is not chunked, in several messages too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"6"), (b"date", b"then")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        for piece in (b"ab", b"", b"cdef"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async with serving(app) as served, await served.connect() as client:
        await client.send(GET + GET)
        for _ in range(2):
            got = await client.answer()
            assert (got.status, got.body) == (201, b"abcdef")
            assert got.header(b"transfer-encoding") is None
            assert got.header(b"date") == b"then"


async def test_answers_have_a_date() -> None:
    """RFC 9110 (6.6.1): an origin server with a clock says when."""
    async with serving(quick) as served, await served.connect() as client:
        await client.send(GET)
        date = (await client.answer()).header(b"date")
    assert date is not None
    assert date.endswith(b" GMT")


async def test_continue_is_sent_when_the_app_reads() -> None:
    """Expect: 100-continue: the client is told to go on when, and not before, the app reads."""
    let_go = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await let_go.wait()
        message = await receive()
        await answer(send, 200, message["body"])

    async with serving(app) as served, await served.connect() as client:
        await client.send(EXPECTING)
        assert await client.silent(0.05)
        let_go.set()
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        got = await client.answer()
        assert (got.status, got.body, got.informational) == (200, b"hello", [])


async def test_continue_is_sent_once_for_a_body_in_pieces() -> None:
    """However often the app reads, there is one 100."""
    async with serving(Recorder()) as served, await served.connect() as client:
        await client.send(EXPECTING)
        await client.read_until(b"\r\n\r\n")
        for byte in b"hello":
            await client.send(bytes([byte]))
            await trio.sleep(0.002)
        assert (await client.answer()).informational == []


async def test_no_continue_if_the_app_answers_without_reading() -> None:
    """The answer comes at once, no 100 before it, and the body that never came ends it all."""
    async with serving(quick) as served:
        raw = await served.ask(EXPECTING)
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"100 Continue" not in raw
    assert b"connection: close" in raw.lower()


async def test_no_continue_if_the_body_is_here_already() -> None:
    """A client that did not wait needs not be told to go on."""
    async with serving(Recorder()) as served, await served.connect() as client:
        await client.send(EXPECTING + b"hello")
        got = await client.answer()
        assert (got.body, got.informational) == (b"hello", [])


async def test_no_continue_within_an_answer() -> None:
    """Reading after the answer has begun must not write a second status line into its body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"early", "more_body": True})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"late"})

    async with serving(app) as served, await served.connect() as client:
        await client.send(EXPECTING)
        assert (await client.answer()).body == b"earlylate"


async def test_head_has_the_head_of_get_and_no_body() -> None:
    """HEAD: the same length as GET's, and what follows on the connection is the next answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 200, b"12345")

    async with serving(app) as served, await served.connect() as client:
        await client.send(HEAD + GET)
        head = await client.answer("HEAD")
        assert (head.status, head.body, head.header(b"content-length")) == (200, b"", b"5")
        assert (await client.answer()).body == b"12345"


async def test_head_of_a_streamed_answer() -> None:
    """A body of unknown length that HEAD does not get: no chunk of it is on the wire."""
    async with serving(stream_back) as served, await served.connect() as client:
        await client.send(HEAD + GET)
        assert (await client.answer("HEAD")).status == 200
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("more", [False, True])
async def test_statuses_without_a_body(status: int, more: bool) -> None:
    """204 and 304 have neither body nor chunks, whatever the app sends, and no false length."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"ignored", "more_body": more})
        if more:
            await send({"type": "http.response.body", "body": b"also ignored"})

    async with serving(app) as served, await served.connect() as client:
        await client.send(GET + GET)
        raw = await client.read_until(b"\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 %d " % status)
        assert b"transfer-encoding" not in raw
        assert b"content-length" not in raw
        assert (await client.answer()).status == status


async def test_http10_is_answered_and_closed() -> None:
    """HTTP/1.0: no chunks; the end of the connection is the end of the body."""
    async with serving(stream_back) as served:
        raw = await served.ask(POST_OLD)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"hello"


async def test_http10_with_keep_alive_goes_on() -> None:
    """An HTTP/1.0 client that asks for keep-alive gets it, and is told so."""
    async with serving(quick) as served, await served.connect() as client:
        for _ in range(2):
            await client.send(GET_OLD_KEPT)
            got = await client.answer()
            assert (got.body, got.header(b"connection")) == (b"/old", b"keep-alive")
        await client.send(GET_OLD)
        assert (await client.answer()).header(b"connection") == b"close"
        assert await client.rest() == b""


async def test_http10_without_a_length_cannot_be_kept() -> None:
    """Keep-alive was asked for, but nothing but the end can tell where the body ends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"to the ", "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async with serving(app) as served:
        raw = await served.ask(GET_OLD_KEPT)
    assert b"connection: close" in raw
    assert raw.endswith(b"\r\n\r\nto the end")


async def test_http10_gets_no_continue() -> None:
    """100 Continue does not exist in HTTP/1.0."""
    request = b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    async with serving(Recorder()) as served, await served.connect() as client:
        await client.send(request)
        assert await client.silent(0.05)
        await client.send(b"hello")
        assert (await client.rest()).endswith(b"\r\n\r\nhello")


async def test_an_upgrade_is_declined_by_going_on() -> None:
    """`Upgrade: h2c` is a wish: the answer is HTTP/1.1, and so is the next request."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(UPGRADE_H2C + GET)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        await client.send(UPGRADE_H2C)
        assert (await client.answer()).status == 200
    assert recorder.paths == ["/up", "/", "/up"]


@pytest.mark.parametrize("request_bytes", [UPGRADE_SIZED, UPGRADE_CHUNKED])
@pytest.mark.parametrize("cut", [0, 1, 3])
async def test_a_declined_upgrade_keeps_its_body(request_bytes: bytes, cut: int) -> None:
    """Java's HttpClient asks for h2c on every POST: the app gets the body all the same."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        whole = request_bytes + GET
        await client.send(
            whole[: len(whole) - len(GET) - cut], whole[len(whole) - len(GET) - cut :]
        )
        assert (await client.answer()).body == b"hello"
        assert (await client.answer()).status == 200
    assert recorder.paths == ["/up", "/"]


async def test_the_body_of_a_declined_upgrade_is_not_a_request() -> None:
    """Bytes that the head calls a body never reach the app as another request."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(UPGRADE_SMUGGLING)
        await client.answer()
        await client.silent(0.02)
    assert recorder.paths == ["/up"]


async def test_targets_in_every_form() -> None:
    """Origin, absolute (as to a proxy) and asterisk form; escapes decoded once, query left."""
    recorder = Recorder()
    targets = (
        (b"/a%20b%2520?q=%20", "/a b%20", b"q=%20"),
        (b"http://other/abs?x", "/abs", b"x"),
        (b"http://other", "/", b""),
        (b"*", "*", b""),
        (b"//double", "//double", b""),
        (b"/?", "/", b""),
    )
    async with serving(recorder) as served, await served.connect() as client:
        for target, _, _ in targets:
            await client.send(b"OPTIONS %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
            assert (await client.answer()).status == 200
    assert [(seen.path, seen.query) for seen in recorder.seen] == [
        (path, query) for _, path, query in targets
    ]


async def test_the_scope_of_an_exchange() -> None:
    """What ASGI promises an app, and state that is its own to write to."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        scope["state"]["mine"] = True
        await answer(send, 200, b"")

    state = {"shared": object()}
    async with serving(app, state=state) as served, await served.connect() as client:
        await client.send(b"GET /%C3%A9?a HTTP/1.1\r\nHoSt: a\r\nX-A: 1\r\nx-a: 2\r\n\r\n" + GET)
        for _ in range(2):
            await client.answer()
        port = served.port
    first, second = scopes
    assert first["type"] == "http"
    assert first["asgi"]["version"] == "3.0"
    assert (first["method"], first["scheme"], first["http_version"]) == ("GET", "http", "1.1")
    assert (first["path"], first["raw_path"], first["query_string"]) == ("/é", b"/%C3%A9", b"a")
    assert first["headers"] == [(b"host", b"a"), (b"x-a", b"1"), (b"x-a", b"2")]
    assert first["server"] == ("127.0.0.1", port)
    assert first["client"][0] == "127.0.0.1"
    assert first["root_path"] == ""
    assert second["state"] == {"shared": state["shared"], "mine": True}
    assert "mine" not in state, "the state of one exchange leaked into the server's"


async def test_receive_after_the_answer_says_disconnect() -> None:
    """As ASGI has it: nothing more will come for this exchange; the connection lives on."""
    kinds: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kinds.append((await receive())["type"])
        await answer(send, 200, b"")
        kinds.append((await receive())["type"])

    async with serving(app) as served, await served.connect() as client:
        await client.send(GET + GET)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        client.leave()
        await served.until_empty()
    assert kinds == ["http.request", "http.disconnect"] * 2


async def test_empty_lines_before_a_request_are_skipped() -> None:
    """RFC 9112 (2.2): some clients send a CRLF after a body."""
    async with serving(Recorder()) as served, await served.connect() as client:
        await client.send(POST_HELLO + b"\r\n" + GET)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_many_connections_at_once() -> None:
    """A hundred clients, each with its own answer."""

    async def ask(number: int) -> None:
        path = b"/%d" % number
        with_path = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path
        assert (await served.ask(with_path)).endswith(b"\r\n\r\n" + path)

    async with serving(quick, LIMITS._replace(connections=1000)) as served:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
        assert served.server.counts().accepted == 100
