"""What a request asks for: model and stream, from JSON and from forms; which headers go on."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.call import ENDPOINTS, Endpoint, ModelCall, passed_headers, read_call
from server.errors import ApiError

JSON: Final = [(b"content-type", b"application/json")]
CHAT: Final = ENDPOINTS["/v1/chat/completions"]
FORM: Final = ENDPOINTS["/v1/audio/transcriptions"]


def refused(endpoint: Endpoint, headers: list[tuple[bytes, bytes]], body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_call(endpoint, headers, body)
    return caught.value


def test_every_endpoint_of_the_relay() -> None:
    """The paths that are relayed, and the errors each of their clients understands."""
    dialects = {path: endpoint.dialect for path, endpoint in ENDPOINTS.items()}
    assert dialects == {
        "/v1/chat/completions": "openai",
        "/v1/completions": "openai",
        "/v1/embeddings": "openai",
        "/v1/rerank": "openai",
        "/v1/responses": "responses",
        "/v1/messages": "anthropic",
        "/v1/messages/count_tokens": "anthropic",
        "/v1/audio/speech": "openai",
        "/v1/audio/transcriptions": "openai",
        "/v1/audio/translations": "openai",
    }
    assert {path for path, endpoint in ENDPOINTS.items() if endpoint.form} == {
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
    }


# JSON


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model": "m"}', "m", False),
        (b'{"model": "m", "stream": true}', "m", True),
        (b'{"model": "m", "stream": false}', "m", False),
        (b'{"model": "m", "stream": null}', "m", False),
        (b' {"messages": [{"model": "deeper", "stream": true}], "model": "m"} ', "m", False),
        ('{"model": "qwen/qwén-8b"}'.encode(), "qwen/qwén-8b", False),
    ],
)
def test_json(body: bytes, model: str, stream: bool) -> None:
    """Model and stream are read, and the body is kept as it is."""
    assert read_call(CHAT, JSON, body) == ModelCall(model, body, stream)


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "words"),
    [
        (b"", 400, "invalid_json", None, "not valid JSON"),
        (b"{", 400, "invalid_json", None, "not valid JSON"),
        (b'{"model": "m",}', 400, "invalid_json", None, "byte 14"),
        (b'{"model": "m"} x', 400, "invalid_json", None, "not valid JSON"),
        (b'{"model": "\xff"}', 400, "invalid_json", None, "not valid JSON"),
        (b"[]", 400, "invalid_type", None, "object"),
        (b'"m"', 400, "invalid_type", None, "object"),
        (b'{"model": 1}', 400, "invalid_type", "model", "$.model"),
        (b'{"model": "m", "stream": "yes"}', 400, "invalid_type", "stream", "$.stream"),
        (b"{}", 400, "missing_required_parameter", "model", "`model`"),
        (b'{"model": ""}', 400, "missing_required_parameter", "model", "`model`"),
        (b'{"model": null}', 400, "missing_required_parameter", "model", "`model`"),
    ],
)
def test_bad_json(body: bytes, status: int, code: str, param: str | None, words: str) -> None:
    """A 400 that names the place, in words and in the field that clients read."""
    error = refused(CHAT, JSON, body)
    assert (error.status, error.code, error.param) == (status, code, param)
    assert words in error.message
    assert error.type == "invalid_request_error"


def test_deep_json_is_refused() -> None:
    """Brackets without end are an error of the client, and not of the server."""
    assert refused(CHAT, JSON, b'{"model": "m", "x": ' + b"[" * 100_000).status == 400


@pytest.mark.parametrize(
    "media_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/json;charset=utf-8",
        b" application/json ",
        b"application/vnd.api+json",
    ],
)
def test_content_types_of_json(media_type: bytes) -> None:
    """JSON under its names, with parameters, in any case."""
    headers = [(b"content-type", media_type)]
    assert read_call(CHAT, headers, b'{"model": "m"}').model == "m"


@pytest.mark.parametrize(
    "media_type", [None, b"", b"text/plain", b"application/x-www-form-urlencoded", b"json"]
)
def test_other_content_types_are_415(media_type: bytes | None) -> None:
    """Told which it was and which it should be; a form's endpoint wants a form."""
    headers = [] if media_type is None else [(b"content-type", media_type)]
    error = refused(CHAT, headers, b'{"model": "m"}')
    assert (error.status, error.code) == (415, "unsupported_media_type")
    assert "application/json" in error.message
    assert (media_type or b"missing").decode() in error.message
    error = refused(FORM, headers or JSON, b"")
    assert error.status == 415
    assert "multipart/form-data" in error.message


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda key: key not in ("model", "stream")),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["model", "x"]), inner, max_size=2)
            ),
            max_leaves=10,
        ),
        max_size=5,
    ),
    st.text(min_size=1, max_size=20),
    st.text(min_size=1, max_size=20),
)
def test_only_the_models_name_changes(others: dict[str, Any], model: str, alias: str) -> None:
    """For an alias the name is exchanged, and every other byte stays."""
    body = json.dumps({**others, "model": model}).encode()
    call = read_call(CHAT, JSON, body)
    assert call.model == model
    renamed = call.body_for(alias)
    assert json.loads(renamed) == {**others, "model": alias}
    assert (
        read_call(CHAT, JSON, renamed).body_for(model)
        == json.dumps({**others, "model": ""}).encode()[:-3]
        + json.dumps(model, ensure_ascii=False).encode()
        + b"}"
    )


# forms


def form(
    *parts: tuple[bytes, bytes], boundary: bytes = b"frontier"
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of multipart/form-data with these heads and contents."""
    body = b"".join(
        b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, content) for head, content in parts
    )
    headers = [(b"content-type", b"multipart/form-data; boundary=" + boundary)]
    return headers, body + b"--" + boundary + b"--\r\n"


def field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return b'Content-Disposition: form-data; name="%b"' % name, value


def a_file(content: bytes, filename: bytes = b"a.wav") -> tuple[bytes, bytes]:
    head = b'Content-Disposition: form-data; name="file"; filename="%b"\r\nContent-Type: audio/wav'
    return head % filename, content


@given(st.binary(max_size=300), st.booleans(), st.text("abc-9./", min_size=1, max_size=10))
def test_the_model_is_found_beside_a_file(content: bytes, after: bool, alias: str) -> None:
    """Whatever the file holds, in either order; and only the model's name changes."""
    if b"\r\n--frontier" in b"\r\n" + content:
        return
    parts = [a_file(content), field(b"model", b"whisper"), field(b"language", b"en")]
    headers, body = form(*(parts if after else reversed(parts)))
    call = read_call(FORM, headers, body)
    assert (call.model, call.stream, call.body) == ("whisper", False, body)
    expected = [a_file(content), field(b"model", alias.encode()), field(b"language", b"en")]
    assert call.body_for(alias) == form(*(expected if after else reversed(expected)))[1]


@pytest.mark.parametrize(
    "content",
    [
        b"--frontier",
        b"\r\n--frontie",
        b"\n--frontier\n",
        b"--frontier--\r\n",
        b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nevil\r\n',
        b"\r\n\r\n\r\n",
        b"",
    ],
)
def test_a_file_that_looks_like_a_form(content: bytes) -> None:
    """Only a boundary at the start of a line ends a part."""
    if content.startswith(b"--frontier"):
        content = b"x" + content  # at the very start of a part it would be one
    headers, body = form(a_file(content), field(b"model", b"whisper"))
    call = read_call(FORM, headers, body)
    assert call.model == "whisper"
    assert call.body_for("x") == form(a_file(content), field(b"model", b"x"))[1]


@pytest.mark.parametrize(
    "filename",
    [
        b"a; name=model; b.wav",
        b"my name=model.wav",
        b'a\\"; name=\\"model',
        b"name=model",
        b"a;b.wav",
        "späße.wav".encode(),
    ],
)
def test_a_files_name_is_not_a_field(filename: bytes) -> None:
    """What stands within the quotes of `filename` names no field."""
    head = b'Content-Disposition: form-data; filename="%b"; name="file"' % filename
    headers, body = form((head, b"audio"), field(b"model", b"whisper"))
    assert read_call(FORM, headers, body).model == "whisper"


def test_another_headers_name_is_not_a_field() -> None:
    """A part is named by its Content-Disposition alone."""
    head = b'Content-Type: audio/wav; name="model"\r\nContent-Disposition: form-data; name="file"'
    headers, body = form((head, b"audio"), field(b"model", b"whisper"))
    assert read_call(FORM, headers, body).model == "whisper"


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="model"',
        b"Content-Disposition: form-data; name=model",
        b'content-disposition:form-data;name="model"',
        b'CONTENT-DISPOSITION: FORM-DATA; NAME="model"',
        b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain',
        b'Content-Disposition: form-data; name="model"; filename="x"',
        b'Content-Disposition: form-data ; name="model" ; x=y',
    ],
)
def test_ways_to_name_a_field(head: bytes) -> None:
    """As browsers, curl and the SDKs write it."""
    headers, body = form((head, b"whisper"))
    assert read_call(FORM, headers, body).model == "whisper"


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data; boundary=frontier",
        b'multipart/form-data; boundary="frontier"',
        b"Multipart/Form-Data; charset=utf-8; Boundary=frontier",
        b"multipart/form-data;boundary=frontier;x=y",
    ],
)
def test_ways_to_name_a_boundary(content_type: bytes) -> None:
    """Quoted or not, in any case, between other parameters."""
    _, body = form(field(b"model", b"whisper"))
    assert read_call(FORM, [(b"content-type", content_type)], body).model == "whisper"


def test_a_boundary_of_odd_characters() -> None:
    """It is text to be found, and no pattern."""
    headers, body = form(field(b"model", b"whisper"), boundary=b"--.*+(?'_,-./:=)")
    assert read_call(FORM, headers, body).model == "whisper"


@pytest.mark.parametrize(
    ("value", "stream"),
    [(b"true", True), (b"True", True), (b"1", True), (b"false", False), (b"", False)],
)
def test_a_form_may_ask_for_a_stream(value: bytes, stream: bool) -> None:
    """As FastAPI's engines read it."""
    headers, body = form(field(b"model", b"whisper"), field(b"stream", value))
    assert read_call(FORM, headers, body).stream is stream


@pytest.mark.parametrize(
    ("headers", "body", "param"),
    [
        (*form(a_file(b"audio")), "model"),
        (*form(field(b"model", b"")), "model"),
        (*form(field(b"model", b"\xff")), "model"),
        ([(b"content-type", b"multipart/form-data")], form(field(b"model", b"m"))[1], None),
        (form()[0], b"", "model"),
        (form()[0], b"--frontier", "model"),
        (
            form()[0],
            b'--frontier\r\nContent-Disposition: form-data; name="model"\r\n\r\nm',
            "model",
        ),
        (form()[0], b'--frontier\r\nContent-Disposition: form-data; name="model"\r\n', "model"),
        (form(boundary=b"other")[0], form(field(b"model", b"m"))[1], "model"),
    ],
)
def test_bad_forms(headers: list[tuple[bytes, bytes]], body: bytes, param: str | None) -> None:
    """A form that is not whole, or names no model: a 400 that says so."""
    error = refused(FORM, headers, body)
    assert (error.status, error.param) == (400, param)


def test_many_parts_take_no_longer_than_their_bytes() -> None:
    """A form made to be searched from each part to its end: linear, and not quadratic."""
    body = b"--b" + b"\r\n--b" * 200_000 + b"\r\n\r\n"
    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    started = time.thread_time()
    refused(FORM, headers, body)
    assert time.thread_time() - started < 2.0, "quadratic, it takes five times that and more"


@pytest.mark.parametrize("filler", [b"; ", b";  x", b'; x="y"', b"; x=y", b";" + b" " * 50, b'"'])
def test_an_odd_part_takes_no_longer_than_its_bytes(filler: bytes) -> None:
    """No parameter list makes the search try every way to read it."""
    head = b"Content-Disposition: form-data" + filler * 3000
    headers, body = form((head, b"x"), field(b"model", b"whisper"))
    started = time.thread_time()
    assert read_call(FORM, headers, body).model == "whisper"
    assert time.thread_time() - started < 1.0


@given(st.binary(max_size=200))
def test_no_form_is_too_odd(body: bytes) -> None:
    """Whatever comes is a call or a refusal."""
    with contextlib.suppress(ApiError):
        read_call(FORM, form()[0], b"--frontier\r\n" + body)


# headers


def test_headers_that_go_on() -> None:
    """The client's own, in their order; not those of this hop nor those set anew; and our id."""
    headers = [
        (b"host", b"triolet"),
        (b"authorization", b"Bearer x"),
        (b"content-length", b"3"),
        (b"x-a", b"1"),
        (b"connection", b"keep-alive"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"AAA"),
        (b"proxy-authorization", b"Basic x"),
        (b"proxy-connection", b"close"),
        (b"expect", b"100-continue"),
        (b"accept-encoding", b"gzip"),
        (b"x-request-id", b"theirs"),
        (b"x-a", b"2"),
        (b"content-type", b"application/json"),
    ]
    assert passed_headers(headers, "ours") == [
        (b"authorization", b"Bearer x"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"content-type", b"application/json"),
        (b"x-request-id", b"ours"),
    ]


@pytest.mark.parametrize(
    "connection",
    [
        [b"x-hop"],
        [b"X-Hop, close"],
        [b"keep-alive , x-hop"],
        [b"close", b"x-hop"],
        [b"keep-alive", b"x-other", b"x-hop"],
    ],
)
def test_what_connection_names_stays_here(connection: list[bytes]) -> None:
    """RFC 9110 (7.6.1), in one field or in several."""
    headers = [(b"x-hop", b"secret"), (b"x-on", b"1")]
    headers += [(b"connection", value) for value in connection]
    assert passed_headers(headers, "id") == [(b"x-on", b"1"), (b"x-request-id", b"id")]


def test_the_clients_headers_are_not_changed() -> None:
    """A new list: the scope's own stays for the log and the retries."""
    headers = [(b"x-a", b"1")]
    passed_headers(headers, "id")
    assert headers == [(b"x-a", b"1")]
