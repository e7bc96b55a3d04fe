"""Requests that are at fault: each is told what is wrong, and no replica is asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from server.config import LimitsConfig
from tests.e2e.faults.client import post, post_body
from tests.e2e.faults.scripted import FakeReplica
from tests.e2e.kit import relaying


class Fault(NamedTuple):
    """A request and what is said of it: status, code, param, a part of the message, outcome."""

    request: bytes
    status: int
    code: str
    param: str | None
    message: str
    outcome: str | None = "bad_request"
    """None for what is not counted as a model call."""


def bad_body(body: bytes, code: str, param: str | None, message: str) -> Fault:
    return Fault(post_body(body), 400, code, param, message)


def unsupported(kind: bytes) -> Fault:
    request = post().replace(b"content-type: application/json\r\n", kind)
    shown = kind.removeprefix(b"content-type: ").partition(b";")[0].strip().decode() or "missing"
    return Fault(request, 415, "unsupported_media_type", None, shown, "unsupported_media_type")


GET = b"GET %b HTTP/1.1\r\nhost: triolet\r\n\r\n"
MISSING = ("missing_required_parameter", "model", "`model` is missing")
FORM = b"content-type: multipart/form-data; boundary=b\r\n"


def form(body: bytes) -> bytes:
    path = "/v1/audio/transcriptions"
    return post_body(body, path).replace(b"content-type: application/json\r\n", FORM)


FAULTS = {
    "empty body": bad_body(b"", "invalid_json", None, "not valid JSON"),
    "cut JSON": bad_body(b'{"model":"m"', "invalid_json", None, "truncated"),
    "bad JSON": bad_body(b'{"model": m}', "invalid_json", None, "byte 10"),
    "JSON and more": bad_body(b'{"model":"m"} oops', "invalid_json", None, "byte 15"),
    "not UTF-8": bad_body(b'{"model":"\xff"}', "invalid_json", None, "byte 10"),
    "a NaN": bad_body(b'{"model":"m","top_p":NaN}', "invalid_json", None, "byte 21"),
    "a list": bad_body(b"[]", "invalid_type", None, "Expected `object`, got `array`"),
    "a number": bad_body(b"1", "invalid_type", None, "Expected `object`, got `int`"),
    "model a number": bad_body(b'{"model":1}', "invalid_type", "model", "got `int`"),
    "model a list": bad_body(b'{"model":["m"]}', "invalid_type", "model", "got `array`"),
    "stream a string": bad_body(
        b'{"model":"m","stream":"yes"}', "invalid_type", "stream", "got `str`"
    ),
    "stream a number": bad_body(b'{"model":"m","stream":1}', "invalid_type", "stream", "got `int`"),
    "no model": bad_body(b'{"messages":[]}', *MISSING),
    "null model": bad_body(b'{"model":null}', *MISSING),
    "empty model": bad_body(b'{"model":""}', *MISSING),
    "form without model": Fault(form(b"--b\r\n\r\n\r\n--b--\r\n"), 400, *MISSING),
    "unknown model": Fault(
        post(model="gpt-x"), 404, "model_not_found", "model", "the models are: m", "model_not_found"
    ),
    "plain text": unsupported(b"content-type: text/plain\r\n"),
    "curl's default": unsupported(b"content-type: application/x-www-form-urlencoded\r\n"),
    "no content type": unsupported(b""),
    "form for chat": unsupported(FORM),
    "JSON for audio": Fault(
        post("/v1/audio/transcriptions"),
        415,
        "unsupported_media_type",
        None,
        "expected multipart/form-data",
        "unsupported_media_type",
    ),
    "GET a call": Fault(
        GET % b"/v1/chat/completions", 405, "method_not_allowed", None, "allowed: POST", None
    ),
    "POST a list": Fault(post("/v1/models"), 405, "method_not_allowed", None, "GET, HEAD", None),
    "unknown path": Fault(post("/v1/chat"), 404, "not_found", None, "/v1/chat", None),
    "unknown path at all": Fault(GET % b"/favicon.ico", 404, "not_found", None, "/favicon", None),
    "unknown model's page": Fault(
        GET % b"/v1/models/x", 404, "model_not_found", "model", "the models are: m", None
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_fault(fault: Fault) -> None:
    """The connection stays usable: the fault is in the request, not in its framing."""
    fake = FakeReplica()
    async with relaying(fake) as triolet, triolet.client() as client:
        await client.send(fault.request)
        answer = await client.answer()
        assert answer.whole
        assert (answer.status, answer.headers["content-type"]) == (fault.status, "application/json")
        assert answer.error["type"] == "invalid_request_error"
        assert (answer.error["code"], answer.error["param"]) == (fault.code, fault.param)
        assert fault.message in answer.error["message"]
        line = await triolet.logged()
        assert line["status"] == fault.status
        assert line["request_id"] == answer.headers["x-request-id"]
        assert line["outcome"] == (fault.outcome or fault.code)
        assert triolet.outcomes() == ({fault.outcome: 1} if fault.outcome else {})
        assert fake.requests == []
        await client.send(post())
        assert (await client.answer()).text == "Hello"


@pytest.mark.parametrize(
    ("request_", "allow"),
    [(GET % b"/v1/embeddings", "POST"), (post("/healthz"), "GET, HEAD")],
    ids=["call", "page"],
)
async def test_wrong_method_says_which_are_right(request_: bytes, allow: str) -> None:
    """In the Allow header, as HTTP wants it of a 405."""
    async with relaying(FakeReplica()) as triolet:
        answer = await triolet.call(request_)
        assert (answer.status, answer.headers["allow"]) == (405, allow)


HURRIED = LimitsConfig(body_s=0.5)
SMALL = LimitsConfig(header_bytes=400, header_count=8, body_bytes=200, body_s=0.5)
BODY, HEADERS = (413, "request_too_large"), (431, "request_headers_too_large")
HEAD = post().partition(b"content-length")[0]
CHUNK = b"64\r\n" + b" " * 100 + b"\r\n"
OVERSIZE: dict[str, tuple[object, ...]] = {
    "body by length": (post(x="x" * 200), *BODY),
    "length and no body": (HEAD + b"content-length: 999999999999\r\n\r\n", *BODY),
    "body in chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNK * 3, *BODY),
    "a chunk": (HEAD + b"transfer-encoding: chunked\r\n\r\nfff\r\n" + b" " * 300, *BODY),
    "one long header": (post(headers=b"x-l: " + b"x" * 500 + b"\r\n"), *HEADERS),
    "many headers": (post(headers=b"x: y\r\n" * 9), *HEADERS),
    "a long path": (post("/v1/" + "x" * 500), *HEADERS),
    "a head without end": (b"POST / HTTP/1.1\r\nx: " + b"x" * 500, *HEADERS),
}


def params(cases: dict[str, tuple[object, ...]]) -> list[Any]:
    """The cases by name."""
    return [pytest.param(*values, id=name) for name, values in cases.items()]


@pytest.mark.parametrize(("sent", "status", "code"), params(OVERSIZE))
async def test_oversize(sent: bytes, status: int, code: str) -> None:
    """Refused as soon as it is too much; the rest is not waited for, so the connection ends."""
    fake = FakeReplica()
    async with relaying(fake, limits=SMALL) as triolet, triolet.client() as client:
        await client.send(sent)
        answer = await client.answer()
        assert (answer.status, answer.whole) == (status, True)
        assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", code)
        assert "(limits." in answer.error["message"]
        assert answer.headers["connection"] == "close"
        assert await client.closed()
        assert fake.requests == []
        assert "ok" not in triolet.outcomes()


AMBIGUOUS = {
    "both lengths": post(headers=b"transfer-encoding: chunked\r\n"),
    "two lengths": post(headers=b"content-length: 5\r\n"),
    "negative length": HEAD + b"content-length: -1\r\n\r\n",
    "folded header": post(headers=b"x: y\r\n folded\r\n"),
    "bare LF": post().replace(b"\r\n", b"\n"),
    "space before colon": post(headers=b"x : y\r\n"),
    "NUL": post(headers=b"x: a\0b\r\n"),
    "no host": post().replace(b"host: triolet\r\n", b""),
    "bad chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("sent", params({name: (sent,) for name, sent in AMBIGUOUS.items()}))
async def test_not_well_formed(sent: bytes) -> None:
    """What two parsers could read differently reaches no replica; the connection ends."""
    fake = FakeReplica()
    async with relaying(fake, limits=HURRIED) as triolet, triolet.client() as client:
        await client.send(sent)
        answer = await client.answer()
        assert (answer.status, answer.error["code"]) == (400, "bad_request")
        assert answer.headers["connection"] == "close"
        assert await client.closed()
        assert fake.requests == []
        assert "ok" not in triolet.outcomes()


async def test_odd_bytes_in_fields_nobody_reads() -> None:
    """They are the replica's business; only the model's name is changed on the way."""
    fake = FakeReplica()
    body = b'{"model":"m", "x":"\\n\xff", "\\u006dodel2":1e400}'
    async with relaying(fake, served_model="served") as triolet:
        assert (await triolet.call(post_body(body))).status == 200
        assert fake.requests[0].body == body.replace(b'"m"', b'"served"')
