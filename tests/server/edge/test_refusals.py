"""Ambiguous framing is refused: told so, connection closed, and nothing behind it is served."""

from __future__ import annotations

import re
from typing import Final

import pytest
import trio

from tests.server.edge.loopback import LIMITS, Recorder, serving

POISON: Final = b"GET /poison HTTP/1.1\r\nHost: a\r\n\r\n"
"""Sent behind each bad request: it must never reach the app."""

HOST: Final = b"Host: a\r\n"
POST: Final = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"

BAD_HEADS: Final = {
    "length-then-encoding": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding-then-length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "length-twice-same": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length-twice-different": POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "length-plus": POST + b"Content-Length: +5\r\n\r\nhello",
    "length-minus": POST + b"Content-Length: -5\r\n\r\nhello",
    "length-hex": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "length-list": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "length-two-words": POST + b"Content-Length: 5 5\r\n\r\nhello",
    "length-underscore": POST + b"Content-Length: 1_0\r\n\r\nhellohello",
    "length-fraction": POST + b"Content-Length: 5.0\r\n\r\nhello",
    "length-other-digits": POST + b"Content-Length: \xd9\xa5\r\n\r\nhello",
    "length-empty": POST + b"Content-Length: \r\n\r\nhello",
    "length-over-64-bits": POST + b"Content-Length: 18446744073709551616\r\n\r\nhello",
    "length-very-huge": POST + b"Content-Length: %d\r\n\r\nhello" % 10**300,
    "encoding-gzip": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "encoding-identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "encoding-xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding-chunkedx": POST + b"Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n",
    "encoding-empty": POST + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n",
    "encoding-parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "encoding-chunked-list": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "encoding-chunked-twice": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding-gzip-chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding-chunked-gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "encoding-vertical-tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "encoding-spaced-name": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "encoding-in-1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding-in-1.0-kept": b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "fold-space": POST + b"X: a\r\n b\r\n\r\n",
    "fold-tab": POST + b"X: a\r\n\tb\r\n\r\n",
    "fold-encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "fold-first": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare-lf-everywhere": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare-lf-after-request-line": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "bare-lf-after-header": b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    "bare-lf-at-end-of-head": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "bare-cr-everywhere": b"GET / HTTP/1.1\rHost: a\r\r",
    "bare-cr-in-value": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "bare-cr-in-target": b"GET /\r HTTP/1.1\r\n" + HOST + b"\r\n",
    "space-before-colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "tab-before-colon": b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
    "space-in-name": POST + b"X Y: a\r\n\r\n",
    "no-name": POST + b": a\r\n\r\n",
    "no-colon": POST + b"Xyz\r\n\r\n",
    "separator-in-name": POST + b"X(y): a\r\n\r\n",
    "nul-in-name": POST + b"X\0: a\r\n\r\n",
    "nul-in-value": POST + b"X: a\0b\r\n\r\n",
    "nul-in-target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "control-in-name": POST + b"X\x01: a\r\n\r\n",
    "control-in-value": POST + b"X: a\x01b\r\n\r\n",
    "delete-in-value": POST + b"X: a\x7fb\r\n\r\n",
    "control-in-target": b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "high-byte-in-target": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "space-in-target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "relative-target": b"GET a HTTP/1.1\r\n" + HOST + b"\r\n",
    "host-twice": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "host-twice-in-1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "no-host": b"GET / HTTP/1.1\r\n\r\n",
    "version-0.9": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
    "version-none": b"GET /\r\n\r\n",
    "version-1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "version-2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "version-3": b"GET / HTTP/3\r\n" + HOST + b"\r\n",
    "version-long": b"GET / HTTP/1.10\r\n" + HOST + b"\r\n",
    "version-lower-case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x42" * 32,
    "connect": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "method-unknown": b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
    "method-lower-case": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "expectation-unknown": POST + b"Expect: a-pony\r\n\r\n",
    "not-http": b"\x00\x01\x02\x03 nonsense\r\n\r\n",
}

BAD_BODIES: Final = {
    "chunk-hex-prefix": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk-plus": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk-minus": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk-empty-size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk-space-before": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "chunk-space-after": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk-overflow": CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "chunk-not-hex": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "chunk-bare-lf-after-size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "chunk-bare-lf-after-data": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "chunk-bare-cr-after-size": CHUNKED + b"5\rhello\r\n0\r\n\r\n",
    "chunk-bare-lf-in-extension": CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "chunk-nul-in-extension": CHUNKED + b"5;a\0b\r\nhello\r\n0\r\n\r\n",
    "chunk-data-too-long": CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n",
    "chunk-data-without-end": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "trailer-length": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\nhello",
    "trailer-fold": CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer-space-before-colon": CHUNKED + b"0\r\nX : a\r\n\r\n",
    "trailer-nul": CHUNKED + b"0\r\nX: a\0\r\n\r\n",
    "encoding-tab-behind": POST + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
}


_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 \d{3} ")


def is_refusal(raw: bytes) -> bool:
    """One answer with a status that refuses, and notice that the connection is closed."""
    status = raw[9:12]
    refusing = status[:1] == b"4" or status in (b"501", b"505")
    once = len(_STATUS_LINE.findall(raw)) == 1
    return raw.startswith(b"HTTP/1.1 ") and refusing and once and b"connection: close" in raw


@pytest.mark.parametrize("bad", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_bad_head_never_reaches_the_app(bad: bytes) -> None:
    """Refused with a 4xx, 501 or 505 and closed; the request behind it is not served."""
    recorder = Recorder()
    async with serving(recorder) as served:
        raw = await served.ask(bad + POISON)
        assert served.server.counts().refused == {int(raw[9:12]): 1}
    assert is_refusal(raw)
    assert recorder.seen == []


@pytest.mark.parametrize("bad", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_bad_head_byte_by_byte(bad: bytes) -> None:
    """The same when no two bytes of it come together, and behind a good request."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        await client.send(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).status == 200
        try:
            for byte in bad[:400] + POISON:
                await client.send(bytes([byte]))
        except trio.BrokenResourceError:
            pass  # the server has had enough: what matters is below
        raw = await client.rest()
    assert is_refusal(raw)
    assert recorder.paths == ["/good"]


@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_bad_body_is_never_complete(bad: bytes) -> None:
    """The app may have begun to read; it sees no end, its client a 400; no smuggling."""
    recorder = Recorder()
    async with serving(recorder) as served, await served.connect() as client:
        for byte in bad + POISON:
            try:
                await client.send(bytes([byte]))
            except trio.BrokenResourceError:
                break
        raw = await client.rest()
    assert is_refusal(raw)
    assert [(seen.path, seen.complete) for seen in recorder.seen] in ([], [("/", False)])


@pytest.mark.parametrize("bad", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_bad_body_in_one_piece(bad: bytes) -> None:
    """The same when head and body come together: refused at once, not when time has passed."""
    recorder = Recorder()
    async with serving(recorder, LIMITS._replace(body_s=0.1)) as served:
        raw = await served.ask(bad + POISON)
    assert is_refusal(raw)
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert [(seen.path, seen.complete) for seen in recorder.seen] in ([], [("/", False)])
