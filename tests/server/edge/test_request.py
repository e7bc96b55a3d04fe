"""Requests out of bytes: the same however they are cut, within bounds, refused for a reason."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.edge.request import HeadLimits, Incoming, RequestParser
from tests.server.edge.loopback import GET, POST_CHUNKED, POST_HELLO, Recorder, Seen, serving

LIMITS: Final = HeadLimits(header_bytes=4096, header_count=20, body_bytes=1000)


def parsed(*pieces: bytes, limits: HeadLimits = LIMITS) -> RequestParser:
    """A parser that was fed these pieces."""
    parser = RequestParser(limits)
    for piece in pieces:
        parser.feed(piece)
    return parser


def refused_status(*pieces: bytes, limits: HeadLimits = LIMITS) -> int | None:
    refusal = parsed(*pieces, limits=limits).refusal
    return refusal.status if refusal else None


class Request(NamedTuple):
    """A request and how it is put on the wire."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    chunks: list[int] | None
    """Sizes of the chunks of the body; None: content-length. The rest goes into a last chunk."""

    def wire(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self.method.encode(), self.target, self.version.encode())]
        lines += [b"%b: %b" % header for header in self.headers]
        lines.append(b"Host: example")
        if self.chunks is None:
            if self.body:
                lines.append(b"Content-Length: %d" % len(self.body))
            return b"\r\n".join([*lines, b"", self.body])
        lines.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join([*lines, b"", self._chunked()])

    def _chunked(self) -> bytes:
        assert self.chunks is not None
        wire, left = b"", self.body
        for size in (*self.chunks, len(self.body)):
            piece, left = left[:size], left[size:]
            if piece:
                wire += b"%X;name=value\r\n%b\r\n" % (len(piece), piece)
        return wire + b"0\r\nTrailer: x\r\n\r\n"

    def framing(self) -> list[tuple[bytes, bytes]]:
        """The headers as an app should see them."""
        expected = [(name.lower(), value) for name, value in self.headers]
        expected.append((b"host", b"example"))
        if self.chunks is not None:
            expected.append((b"transfer-encoding", b"chunked"))
        elif self.body:
            expected.append((b"content-length", b"%d" % len(self.body)))
        return expected


_TOKEN: Final = st.text("abcdefXYZ-_!#$%&'*+.^`|~019", min_size=1, max_size=12)
_NAMES: Final = _TOKEN.map(lambda name: b"x-" + name.encode())
_VALUES: Final = (
    st.binary(max_size=20)
    .map(lambda raw: bytes(byte for byte in raw if byte == 9 or (byte >= 32 and byte != 127)))
    .map(lambda value: value.strip(b" \t"))
)
_PATHS: Final = st.text("abcz/?&=%+:@!$'()*,;~.-_0", max_size=30).map(
    lambda path: b"/" + path.encode()
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    version = draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    headers = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=5))
    body = draw(st.binary(max_size=200))
    chunked = version == "1.1" and draw(st.booleans())
    sizes = draw(st.lists(st.integers(1, 60), max_size=4)) if chunked else None
    if version == "1.0":
        headers = [*headers, (b"Connection", b"keep-alive")]
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"]))
    return Request(method, draw(_PATHS), version, headers, body, sizes)


@st.composite
def cut(draw: st.DrawFn) -> tuple[list[Request], list[bytes]]:
    """Some requests one after another, and their bytes cut at random."""
    several = draw(st.lists(requests(), min_size=1, max_size=3))
    whole = b"".join(request.wire() for request in several)
    places = sorted(draw(st.sets(st.integers(1, len(whole) - 1), max_size=30)))
    ends = [0, *places, len(whole)]
    return several, [whole[a:b] for a, b in pairwise(ends)]


def facts(incoming: Incoming) -> tuple[object, ...]:
    return (
        incoming.method,
        incoming.target,
        incoming.version,
        incoming.headers,
        incoming.take_body(),
        incoming.complete,
        incoming.keep_alive,
    )


def expected_facts(request: Request) -> tuple[object, ...]:
    return (
        request.method,
        request.target,
        request.version,
        request.framing(),
        request.body,
        True,
        True,
    )


@pytest.mark.slow
@given(cut())
@settings(max_examples=150)
def test_cuts_change_nothing(sent: tuple[list[Request], list[bytes]]) -> None:
    """Any requests, cut anywhere, come out as they went in; cut at every byte they do too."""
    several, pieces = sent
    expected = [expected_facts(request) for request in several]
    for way in (pieces, [bytes([byte]) for byte in b"".join(pieces)]):
        parser = parsed(*way)
        assert parser.refusal is None
        assert [facts(incoming) for incoming in parser.ready] == expected


def seen_as(request: Request) -> Seen:
    path, _, query = request.target.partition(b"?")
    return Seen(
        request.method, path.decode(), query, request.framing(), request.version, request.body
    )


@pytest.mark.slow
@given(cut())
@settings(max_examples=40)
async def test_cuts_change_nothing_on_a_socket(sent: tuple[list[Request], list[bytes]]) -> None:
    """The same through a real connection: an app sees the same requests and bodies."""
    several, pieces = sent
    if any(b"%" in request.target for request in several):
        return  # what an app sees of escapes is another test's business
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(*pieces)
        for request in several:
            got = await client.answer(request.method)
            assert (got.status, got.body) == (200, request.body)
    for seen in recorder.seen:
        seen.pieces, seen.complete = 0, False
    assert recorder.seen == [seen_as(request) for request in several]


@given(st.binary(max_size=300), st.sampled_from([b"", GET, POST_HELLO[:30], POST_CHUNKED[:-9]]))
@settings(max_examples=150)
def test_garbage_never_raises(garbage: bytes, before: bytes) -> None:
    """Whatever comes is requests or a refusal; and what was cut off is not complete."""
    parser = parsed(before, garbage)
    for incoming in parser.ready:
        assert isinstance(incoming.take_body(), bytes)
    if parser.refusal is not None:
        assert parser.refusal.status in (400, 405, 413, 417, 431, 501, 505)


def test_nothing_is_taken_after_a_refusal() -> None:
    """Not in the same piece, and not in a later one."""
    parser = parsed(b"GET / HTTP/1.1\r\n\r\n" + GET, GET)
    assert parser.refusal is not None
    assert not parser.ready


@pytest.mark.parametrize(
    ("count", "status"), [(LIMITS.header_count, None), (LIMITS.header_count + 1, 431)]
)
def test_header_count(count: int, status: int | None) -> None:
    """As many fields as allowed, Host among them, and not one more."""
    fields = b"".join(b"x-%d: 1\r\n" % number for number in range(count - 1))
    assert refused_status(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n") == status


@pytest.mark.parametrize(("size", "status"), [(4000, None), (4096, 431)])
@pytest.mark.parametrize("where", ["target", "name", "value"])
def test_header_bytes(size: int, status: int | None, where: str) -> None:
    """A head just below the limit passes, one above is refused, wherever its bytes are."""
    target = b"a" * size if where == "target" else b""
    name = b"n" * size if where == "name" else b"x"
    value = b"v" * size if where == "value" else b""
    head = b"GET /%b HTTP/1.1\r\nHost: a\r\n%b: %b\r\n\r\n" % (target, name, value)
    assert refused_status(*(head[at : at + 100] for at in range(0, len(head), 100))) == status
    assert refused_status(head) == status


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * 10_000,
        b"GET / HTTP/1.1\r\n" + b"n" * 10_000,
        b"GET / HTTP/1.1\r\nHost: " + b"v" * 10_000,
    ],
)
def test_a_head_without_end_is_refused_before_its_end(endless: bytes) -> None:
    """No line end has to come for a head to be too large; nor for a second one."""
    assert refused_status(endless) == 431
    assert refused_status(GET, endless) == 431


@pytest.mark.parametrize("length", [LIMITS.body_bytes, LIMITS.body_bytes + 1])
def test_body_bytes_by_length(length: int) -> None:
    """A length over the limit is refused before a byte of the body has come."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length
    assert refused_status(head) == (413 if length > LIMITS.body_bytes else None)


@pytest.mark.parametrize("chunk", [b"a", b"a" * 100, b"a" * 1001])
def test_body_bytes_by_growth(chunk: bytes) -> None:
    """A chunked body is refused when it has grown over the limit, and not before."""
    parser = parsed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while parser.refusal is None:
        assert sent <= LIMITS.body_bytes
        parser.feed(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        sent += len(chunk)
    assert sent > LIMITS.body_bytes
    assert parser.refusal.status == 413
    assert not parser.ready[0].complete
    assert parser.ready[0].body_bytes <= LIMITS.body_bytes + len(chunk)


def test_trailers_are_bounded() -> None:
    """Fields after the last chunk count as header bytes do: they must not grow without end."""
    parser = parsed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    for number in range(1000):
        parser.feed(b"x-%d: %b\r\n" % (number, b"v" * 100))
    assert parser.refusal is not None
    assert parser.refusal.status in (400, 413, 431)


def test_a_trailer_without_end_is_bounded() -> None:
    """Nor may one of them go on for ever: llhttp's wrapper would keep all of it."""
    parser = parsed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: ")
    for _ in range(100):
        parser.feed(b"v" * 1000)
    assert parser.refusal is not None


def test_in_head_says_that_a_head_has_begun() -> None:
    """True between the first byte of a head and its end, also behind a pipelined request."""
    parser, states = RequestParser(LIMITS), []
    for piece in (b"", GET[:1], GET[1:10], GET[10:], b"\r\n", GET + GET[:10], GET[10:]):
        parser.feed(piece)
        states.append(parser.in_head)
    assert states == [False, True, True, False, False, True, False]


@pytest.mark.parametrize(
    ("request_bytes", "keep_alive"),
    [
        (GET, True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_keep_alive(request_bytes: bytes, keep_alive: bool) -> None:
    """What version and Connection together say of the connection's future."""
    assert parsed(request_bytes).ready[0].keep_alive is keep_alive


def test_only_100_continue_can_be_expected() -> None:
    """417 for what nobody understands; the known one in any case of letters."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: %b\r\n\r\n"
    assert parsed(head % b"100-Continue").ready[0].expects_continue
    assert refused_status(head % b"a-pony") == 417


def test_refusals_tell_what_to_do() -> None:
    """A limit that was hit is named, with its value."""
    refusal = parsed(b"GET /" + b"a" * 5000).refusal
    assert refusal is not None
    assert "4096 bytes" in refusal.message
    assert "limits.header_bytes" in refusal.message
