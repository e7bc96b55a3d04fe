"""Responses into bytes: a strict client parser reads what the app said; bad ones are refused."""

from __future__ import annotations

from typing import Final, NamedTuple

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.edge.response import FramingError, ResponseFramer, simple_response
from tests.server.edge.loopback import Answer

GET_PLAIN: Final = ("GET", "1.1", True)


class Said(NamedTuple):
    """What an app says, and to whom."""

    method: str
    version: str
    keep_alive: bool
    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: list[bytes]
    sized: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


_NAMES: Final = st.text("abcXYZ-_!#$%&'*+.^`|~09", min_size=1, max_size=10).map(
    lambda name: b"x-" + name.encode()
)
_VALUES: Final = (
    st.binary(max_size=20)
    .map(lambda raw: bytes(byte for byte in raw if byte == 9 or (byte >= 32 and byte != 127)))
    .map(lambda value: value.strip(b" \t"))
)
SAID: Final = st.builds(
    Said,
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    version=st.sampled_from(["1.1", "1.1", "1.0"]),
    keep_alive=st.booleans(),
    status=st.sampled_from([200, 201, 202, 206, 204, 304, 400, 404, 418, 429, 500, 503, 599]),
    headers=st.lists(st.tuples(_NAMES, _VALUES), max_size=5),
    pieces=st.lists(st.binary(max_size=50), min_size=1, max_size=5),
    sized=st.booleans(),
)


def framed(said: Said) -> tuple[list[bytes], ResponseFramer]:
    """The bytes of each message."""
    framer = ResponseFramer(method=said.method, version=said.version, keep_alive=said.keep_alive)
    headers = list(said.headers)
    if said.sized and said.status not in (204, 304):
        headers.append((b"Content-Length", b"%d" % len(said.body)))
    first, *rest = said.pieces
    wire = [framer.start(said.status, headers, first, more=bool(rest))]
    for left, piece in zip(range(len(rest), 0, -1), rest, strict=True):
        wire.append(framer.body(piece, more=left > 1))
    return wire, framer


def read_strictly(wire: bytes, method: str, *, closes: bool) -> tuple[Answer, bytes]:
    """The response, and what is left behind it."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(wire)
    if closes:
        parser.receive_data(b"")
    answer = Answer(0, "", [], b"", [])
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Response):
            answer.status, answer.headers = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        else:
            assert isinstance(event, h11.EndOfMessage), event
            return answer, parser.trailing_data[0]


@pytest.mark.slow
@given(SAID)
@settings(max_examples=200)
def test_what_the_app_says_arrives(said: Said) -> None:
    """Any status, headers and pieces arrive the same, for every version and method."""
    wire, framer = framed(said)
    assert framer.ended
    marker = b"" if not framer.keep_alive else b"HTTP/1.1 200 next"
    got, behind = read_strictly(b"".join(wire) + marker, said.method, closes=not framer.keep_alive)
    assert behind == marker, "the response ends where the next one begins"
    assert got.status == said.status
    bodiless = said.method == "HEAD" or said.status in (204, 304)
    assert got.body == (b"" if bodiless else said.body)
    lowered = [(name.lower(), value) for name, value in said.headers]
    assert [header for header in got.headers if header[0].startswith(b"x-")] == lowered
    assert framer.keep_alive or got.header(b"connection") == b"close"
    assert said.keep_alive or not framer.keep_alive


@given(SAID)
@settings(max_examples=100)
def test_pieces_are_not_held_back(said: Said) -> None:
    """Each message's bytes are on the wire before the next message: streams stream."""
    wire, _ = framed(said)
    if said.method != "HEAD" and said.status not in (204, 304):
        for piece, sent in zip(said.pieces, wire, strict=True):
            assert piece in sent


def test_http10_never_gets_chunks() -> None:
    """Unknown length in HTTP/1.0 is ended by closing."""
    framer = ResponseFramer(method="GET", version="1.0", keep_alive=True)
    wire = framer.start(200, [], b"a", more=True) + framer.body(b"b", more=False)
    assert b"transfer-encoding" not in wire
    assert wire.endswith(b"\r\n\r\nab")
    assert not framer.keep_alive


def test_framing_headers_of_the_app_are_ours() -> None:
    """The app's transfer-encoding and keep-alive are dropped: what goes out is what is done."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    headers = [(b"Transfer-Encoding", b"chunked"), (b"Keep-Alive", b"timeout=5")]
    wire = framer.start(200, headers, b"ab", more=False)
    assert b"chunked" not in wire
    assert b"timeout" not in wire
    assert b"content-length: 2\r\n" in wire


@pytest.mark.parametrize("value", [b"close", b"Close", b"x, close"])
def test_an_app_may_ask_for_the_end(value: bytes) -> None:
    """`connection: close` from the app closes, and is said once."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    wire = framer.start(200, [(b"connection", value)], b"", more=False)
    assert not framer.keep_alive
    assert wire.count(b"connection: close\r\n") == 1


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nset-cookie: b"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x\r\ny", b"a"),
        (b"x: 1\r\ny", b"a"),
        (b"x", b"a\r\n\r\nHTTP/1.1 200 OK"),
    ],
)
def test_header_injection_is_refused(header: tuple[bytes, bytes]) -> None:
    """A line end in a header would be another header or another response."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    with pytest.raises(FramingError, match="CR, LF or NUL"):
        framer.start(200, [header], b"", more=False)


@pytest.mark.parametrize("pieces", [[b"abcdef"], [b"abc", b"def"], [b"abcd"], [b"abc", b""]])
def test_a_body_of_another_length_is_refused(pieces: list[bytes]) -> None:
    """Longer or shorter than its content-length: an error, and never a response that ended."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    first, *rest = pieces

    def send() -> None:
        framer.start(200, [(b"content-length", b"5")], first, more=bool(rest))
        framer.body(rest[0], more=False)

    with pytest.raises(FramingError, match="content-length"):
        send()
    assert not framer.ended, "a response that is not whole counts as ended"


def test_two_lengths_are_refused() -> None:
    """An app's two content-lengths that differ: the client could not know which to believe."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    headers = [(b"content-length", b"2"), (b"content-length", b"1")]
    with pytest.raises((FramingError, ValueError)):
        framer.start(200, headers, b"a", more=False)


@pytest.mark.parametrize("length", [b"+5", b" 5", b"5_0", b"-1", b"five", b"", b"5, 5"])
def test_a_bad_length_is_refused(length: bytes) -> None:
    """A content-length that is not digits does not go out."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    body = b"a" * (50 if length == b"5_0" else 5)
    with pytest.raises((FramingError, ValueError)):
        framer.start(200, [(b"content-length", length)], body, more=False)


def test_no_body_after_the_end() -> None:
    """The bytes would be taken for the next response."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    framer.start(200, [], b"a", more=False)
    with pytest.raises(FramingError, match="after the end"):
        framer.body(b"b", more=False)


def test_no_length_on_204() -> None:
    """RFC 9110 (8.6): 204 has no Content-Length, even if the app says so."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    wire = framer.start(204, [(b"content-length", b"0")], b"", more=False)
    assert b"content-length" not in wire


def test_a_status_without_a_name() -> None:
    """A status nobody named has an empty reason, and its space."""
    framer = ResponseFramer(method="GET", version="1.1", keep_alive=True)
    assert framer.start(299, [], b"", more=False).startswith(b"HTTP/1.1 299 \r\n")


def test_simple_response_closes() -> None:
    """What answers refusals is one whole response that says it is the last."""
    got, behind = read_strictly(simple_response(503, [(b"x-a", b"b")], b"full"), "GET", closes=True)
    assert (got.status, got.body, behind) == (503, b"full", b"")
    assert (got.header(b"connection"), got.header(b"x-a")) == (b"close", b"b")
