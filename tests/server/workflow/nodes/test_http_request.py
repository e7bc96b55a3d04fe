"""http-request: what is sent for each form of auth and body, and what comes of the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.workflow.app import VariableSpec
from server.workflow.node import NodeError, Run
from server.workflow.nodes.http_request import HttpRequest
from server.workflow.reading import GraphError
from server.workflow.services import ServiceFailed, WebFailed, WebRequest, WebResponse
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, app, execute, node, services

URL = "https://api.example/x"


class FakeWeb:
    """Takes a request and gives the answer that a test has put there."""

    def __init__(self, answer: WebResponse | WebFailed) -> None:
        self.answer = answer
        self.requests: list[WebRequest] = []

    async def send(self, request: WebRequest) -> WebResponse:
        self.requests.append(request)
        if isinstance(self.answer, WebFailed):
            raise self.answer
        return self.answer


class FakeFiles:
    """Files by their ids."""

    def __init__(self, **contents: bytes) -> None:
        self.contents = contents
        self.kept: list[tuple[bytes, str, str]] = []

    async def read(self, file: File, most_bytes: int) -> bytes:
        content = self.contents.get(file.related_id or "")
        if content is None:
            raise ServiceFailed("not here", "FileNotFound")
        return content

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        self.kept.append((content, name, mime_type))
        return File(type="custom", transfer_method="tool_file", name=name, mime_type=mime_type)


def response(
    content: bytes | str = b"",
    content_type: str = "text/plain",
    status: int = 200,
    **headers: str,
) -> WebResponse:
    data = content.encode() if isinstance(content, str) else content
    pairs = [("content-type", content_type)] if content_type else []
    pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return WebResponse(status=status, headers=pairs, content=data, url=URL)


def data(**fields: Any) -> dict[str, Any]:
    return {
        "method": "post",
        "url": URL,
        "authorization": {"type": "no-auth", "config": None},
        "headers": "",
        "params": "",
        "body": {"type": "none", "data": []},
    } | fields


PDF = File(
    type="document",
    transfer_method="local_file",
    name="a.pdf",
    mime_type="application/pdf",
    related_id="f1",
)
PNG = File(type="image", transfer_method="tool_file", name="b.png", related_id="f2")
VARIABLES: dict[str, dict[str, Any]] = {
    "n": {
        "text": 'say "hi"\n',
        "key": "k1",
        "num": 3,
        "obj": {"a": [1]},
        "file": PDF,
        "files": [PDF, PNG],
        "empty": "",
    },
    "env": {"TOKEN": "s3cr3t/tok en"},
}


class Sent:
    """A run of the node: the request, the result or the error."""

    def __init__(self, web: FakeWeb, files: FakeFiles, run: FakeRun) -> None:
        self.web, self.files, self.run = web, files, run
        self.outputs: dict[str, Any] = {}
        self.log = ""
        self.error: NodeError | None = None

    @property
    def request(self) -> WebRequest:
        return self.web.requests[0]

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.request.headers)


async def send(answer: WebResponse | WebFailed | None = None, **fields: Any) -> Sent:
    web, files = FakeWeb(answer or response("ok")), FakeFiles(f1=b"%PDF", f2=b"PNG")
    secret = VariableSpec(name="TOKEN", value_type="secret", value="x")
    run = FakeRun(
        VARIABLES,
        run=Run(id="r", app=app(environment=(secret,)), services=services(web=web, files=files)),
    )
    sent = Sent(web, files, run)
    try:
        result = await execute(node("http-request", data(**fields)), run)
        sent.outputs, sent.log = result.outputs, result.process_data["request"]
    except NodeError as error:
        sent.error = error
        sent.log = error.process_data.get("request", "")
    return sent


async def test_url_parameters_and_headers_are_templates() -> None:
    """Lines of `name: value`; parameters join those of the URL, names may repeat."""
    sent = await send(
        url="https://api.example/{{#n.key#}}?z=1",
        params="a: {{#n.text#}}\na:2\n\nb\n :no",
        headers="X-Key: {{#n.key#}}\nX-Empty:\n broken \nX-Colon: a:b",
    )
    assert sent.request.url == "https://api.example/k1?z=1&a=say+%22hi%22%0A&a=2&b="
    assert sent.headers == {"X-Key": "k1", "X-Empty": "", "broken": "", "X-Colon": "a:b"}
    assert sent.request.method == "POST"
    assert sent.outputs["status_code"] == 200


@pytest.mark.parametrize(
    ("config", "header", "value"),
    [
        ({"type": "bearer", "api_key": "{{#n.key#}}"}, "Authorization", "Bearer k1"),
        ({"type": "basic", "api_key": "u:p"}, "Authorization", "Basic dTpw"),
        ({"type": "basic", "api_key": "dTpw"}, "Authorization", "Basic dTpw"),
        ({"type": "custom", "api_key": "k", "header": "X-API-Key"}, "X-API-Key", "k"),
        ({"type": "custom", "api_key": "k", "header": ""}, "Authorization", "k"),
        ({"type": "bearer", "api_key": "k", "header": "X-Auth"}, "X-Auth", "Bearer k"),
    ],
)
async def test_authorization(config: dict[str, str], header: str, value: str) -> None:
    """Each form, over a header of the same name, and masked in the log."""
    sent = await send(
        authorization={"type": "api-key", "config": config}, headers=f"{header.lower()}: other"
    )
    assert sent.headers == {header: value}
    assert f"{header}: {'*' * len(value)}\r\n" in sent.log


@pytest.mark.parametrize("config", [None, {"type": "bearer", "api_key": " {{#n.empty#}}"}])
async def test_an_empty_key_is_an_error(config: dict[str, str] | None) -> None:
    """Nothing is sent without the key that the graph wants sent."""
    sent = await send(authorization={"type": "api-key", "config": config})
    assert sent.error is not None
    assert sent.error.type == "AuthorizationConfigError"
    assert sent.web.requests == []


@pytest.mark.parametrize(
    ("body", "content", "content_type"),
    [
        ({"type": "none"}, None, None),
        ({"type": "raw-text", "data": "n={{#n.num#}}"}, b"n=3", "text/plain"),
        (
            {"type": "raw-text", "data": [{"key": "", "type": "text", "value": "{{#n.key#}}"}]},
            b"k1",
            "text/plain",
        ),
        ({"type": "json", "data": '{"a": {{#n.obj#}}}'}, b'{"a":{"a":[1]}}', "application/json"),
        ({"type": "json", "data": "{a: '{{#n.key#}}',}"}, b'{"a":"k1"}', "application/json"),
        ({"type": "json", "data": '{"t":"{{#n.key#}}\n"}'}, b'{"t":"k1\\n"}', "application/json"),
        ({"type": "json", "data": '["\u4e2d"]'}, '["\u4e2d"]'.encode(), "application/json"),
        (
            {
                "type": "x-www-form-urlencoded",
                "data": [
                    {"key": "a {{#n.key#}}", "type": "text", "value": "{{#n.text#}}"},
                    {"key": "n", "value": 5},
                ],
            },
            b"a+k1=say+%22hi%22%0A&n=5",
            "application/x-www-form-urlencoded",
        ),
        ({"type": "binary", "data": [{"type": "file", "file": ["n", "file"]}]}, b"%PDF", None),
    ],
)
async def test_bodies(
    body: dict[str, Any], content: bytes | None, content_type: str | None
) -> None:
    """Each form, in the list of newer exports and the one text of older ones."""
    sent = await send(body=body)
    assert sent.error is None
    assert sent.request.content == content
    assert sent.headers.get("Content-Type") == content_type


async def test_a_content_type_of_the_graph_counts() -> None:
    """Whatever its case."""
    sent = await send(
        headers="content-type: application/vnd.x+json", body={"type": "json", "data": "{}"}
    )
    assert sent.headers == {"content-type": "application/vnd.x+json"}


async def test_a_form_with_files() -> None:
    """Fields first, then the files, a list of them under one name; the boundary is ours."""
    body = {
        "type": "form-data",
        "data": [
            {"key": "doc", "type": "file", "file": ["n", "files"]},
            {"key": 'na"me', "type": "text", "value": "{{#n.key#}}"},
            {"key": "gone", "type": "file", "file": ["n", "nothing"]},
        ],
    }
    sent = await send(headers="Content-Type: multipart/form-data", body=body)
    content_type = sent.headers["Content-Type"]
    mark = content_type.removeprefix("multipart/form-data; boundary=")
    assert (
        sent.request.content
        == (
            f'--{mark}\r\nContent-Disposition: form-data; name="na%22me"\r\n\r\nk1\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="doc"; filename="a.pdf"\r\n'
            "Content-Type: application/pdf\r\n\r\n%PDF\r\n"
            f'--{mark}\r\nContent-Disposition: form-data; name="doc"; filename="b.png"\r\n'
            "Content-Type: application/octet-stream\r\n\r\nPNG\r\n"
            f"--{mark}--\r\n"
        ).encode()
    )
    assert "<file_content_binary: 'a.pdf', type='application/pdf', size=4 bytes>" in sent.log


@pytest.mark.parametrize(
    ("fields", "type", "message"),
    [
        ({"url": ""}, "InvalidURLError", "url is required"),
        ({"url": "{{#n.key#}}"}, "InvalidURLError", "url should start with http"),
        ({"url": "http://[bad"}, "InvalidURLError", "is no URL"),
        ({"method": "options"}, "InvalidHttpMethodError", "Invalid http method options"),
        ({"body": {"type": "json", "data": ""}}, "RequestBodyError", "exactly one|Failed to parse"),
        ({"body": {"type": "json", "data": []}}, "RequestBodyError", "exactly one item"),
        ({"body": {"type": "raw-text", "data": []}}, "RequestBodyError", "exactly one item"),
        (
            {"body": {"type": "binary", "data": [{"type": "file", "file": ["n", "key"]}]}},
            "FileFetchError",
            "cannot fetch file with selector",
        ),
    ],
)
async def test_wrong_requests_are_not_sent(fields: Any, type: str, message: str) -> None:
    """Each with Dify's type and words."""
    sent = await send(**fields)
    assert sent.error is not None
    assert sent.error.type == type
    with pytest.raises(NodeError, match=message):
        raise sent.error
    assert sent.web.requests == []


@pytest.mark.parametrize(
    ("handled", "fails"),
    [
        ({}, False),
        ({"error_strategy": "none"}, False),
        ({"error_strategy": "fail-branch"}, True),
        ({"error_strategy": "default-value"}, True),
        ({"retry_config": {"retry_enabled": True, "max_retries": 1}}, True),
        ({"retry_config": {"retry_enabled": False}}, False),
    ],
)
async def test_a_status_is_an_error_only_where_it_is_handled(handled: Any, fails: bool) -> None:
    """As in Dify: otherwise the node succeeds, whatever the status."""
    sent = await send(response("no", status=503), **handled)
    if not fails:
        assert sent.error is None
        assert sent.outputs["status_code"] == 503
        return
    assert sent.error is not None
    assert sent.error.type == "HTTPResponseCodeError"
    assert sent.error.message == "Request failed with status code 503"
    assert sent.error.outputs["body"] == "no"
    assert sent.log.startswith("POST /x HTTP/1.1\r\n")


async def test_headers_and_text_of_an_answer() -> None:
    """Repeated headers are joined; the body is text unless it is a file."""
    answer = response('{"a": 1}', "application/json", x_a="1")
    answer.headers.append(("x-a", "2"))
    sent = await send(answer)
    assert sent.outputs == {
        "status_code": 200,
        "body": '{"a": 1}',
        "headers": {"content-type": "application/json", "x-a": "1, 2"},
        "files": [],
    }


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        ("é".encode(), "text/plain", "é"),
        ("é".encode("latin-1"), "text/plain; charset=iso-8859-1", "é"),
        ("中文".encode("gbk"), "text/html; charset=GB2312", "中文"),
        ("中".encode("gbk"), 'text/html; charset="gbk"', "中"),
        (b'<html><meta charset="shift_jis">' + "日本".encode("shift_jis"), "text/html", "日本"),
        (b'<?xml version="1.0" encoding="euc-jp"?>' + "日".encode("euc-jp"), "text/xml", "日"),
        (b"\xef\xbb\xbfhi", "text/plain; charset=latin-1", "hi"),
        (b"\xff", "text/plain", "\ufffd"),
        (b"xn--", "text/plain; charset=punycode", "xn--"),
        (b"abc", "text/plain; charset=nonsense", "abc"),
        (b"68", "text/plain; charset=hex", "68"),
    ],
)
async def test_encodings(content: bytes, content_type: str, text: str) -> None:
    """The header's, the document's, else UTF-8; encodings that are no texts are not used."""
    sent = await send(response(content, content_type))
    assert sent.outputs["body"].endswith(text)


@pytest.mark.parametrize(
    ("answer", "name", "mime_type"),
    [
        (response(b"\x89PNG", "image/png"), "x", "image/png"),
        (response(b"\x00", "application/pdf"), "x", "application/pdf"),
        (response(b"\x00", "audio/x-unknown-thing"), "x", "audio/x-unknown-thing"),
        (response("a,b", "text/csv", content_disposition="attachment"), "x", "text/csv"),
        (
            response("hi", "text/plain", content_disposition='inline; filename="a.zip"'),
            "a.zip",
            "application/zip",
        ),
    ],
)
async def test_files_are_kept(answer: WebResponse, name: str, mime_type: str) -> None:
    """The body is then empty and `files` has one."""
    sent = await send(answer)
    assert sent.outputs["body"] == ""
    assert sent.files.kept == [(answer.content, name, mime_type)]
    assert [file.name for file in sent.outputs["files"]] == [name]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"a,b", "text/csv"),
        (b"{}", "application/vnd.api+json"),
        (b'{"a":1}', "application/octet-stream"),
        (b"<x/>", "application/xhtml+xml"),
        (b"hi", ""),
        (b"", "application/json"),
    ],
)
async def test_texts_are_no_files(content: bytes, content_type: str) -> None:
    """Also those that their type makes look binary."""
    sent = await send(response(content, content_type))
    assert sent.outputs["files"] == []
    assert sent.outputs["body"] == content.decode()


async def test_sizes_are_bounded() -> None:
    """A megabyte of text, ten of a file, with Dify's words."""
    sent = await send(response(bytes(1024 * 1024 + 512 * 1024)))
    assert sent.error is not None
    assert sent.error.type == "ResponseSizeError"
    assert sent.error.message == (
        "Text size is too large, max size is 1.00 MB, but current size is 1.50 MB."
    )
    sent = await send(WebFailed("larger", "ResponseSizeError"))
    assert sent.error is not None
    assert sent.error.message.startswith("File size is too large, max size is 10.00 MB")
    assert sent.request.most_bytes == 10 * 1024 * 1024


async def test_what_the_web_refuses_fails_the_node() -> None:
    """With the reason, and with the log of what was tried."""
    sent = await send(WebFailed("db is private", "RequestRefused"))
    assert sent.error is not None
    assert (sent.error.message, sent.error.type) == ("db is private", "HttpRequestNodeError")
    assert "Host: api.example" in sent.log


async def test_secrets_are_masked_in_the_log() -> None:
    """Wherever the value of a secret stands, in each of its spellings."""
    sent = await send(
        url=URL + "?key={{#env.TOKEN#}}",
        params="p: {{#env.TOKEN#}}",
        headers="X: {{#env.TOKEN#}}",
        body={"type": "raw-text", "data": "{{#env.TOKEN#}}"},
    )
    assert sent.request.content == b"s3cr3t/tok en"
    assert "s3cr3t" not in sent.log
    assert sent.log.count("*" * 12) == 4


async def test_secrets_are_masked_in_errors() -> None:
    """Clients and fail branches read them."""
    body = {"type": "json", "data": [{"type": "text", "value": "no JSON: {{#env.TOKEN#}}"}]}
    sent = await send(body=body)
    assert sent.error is not None
    assert sent.error.message == str(sent.error) == f"Failed to parse JSON: no JSON: {'*' * 12}"
    refused = WebFailed(f"{URL}?key=s3cr3t%2Ftok%20en is refused", "WebError")
    sent = await send(refused, params="key: {{#env.TOKEN#}}")
    assert sent.error is not None
    assert "s3cr3t" not in sent.error.message


@pytest.mark.parametrize(
    "body",
    [
        {"type": "raw-text", "data": "\ud83d"},
        {"type": "json", "data": [{"type": "text", "value": '"\\ud83d"'}]},
        {"type": "x-www-form-urlencoded", "data": [{"key": "\ud83d", "value": "\ud83d"}]},
        {"type": "form-data", "data": [{"key": "\ud83d", "value": "\ud83d"}]},
    ],
)
async def test_half_a_surrogate_pair_is_sent_as_a_question_mark(body: Any) -> None:
    """Models and JSON make such texts; they are no bytes of UTF-8."""
    key = {"type": "basic", "api_key": "me:\ud83d"}
    sent = await send(
        url=URL + "/\ud83d",
        body=body,
        params="q: \ud83d",
        authorization={"type": "api-key", "config": key},
    )
    assert sent.error is None
    assert sent.request.url == f"{URL}/?&q=%3F"
    assert b"?" in (sent.request.content or b"") or b"%3F" in (sent.request.content or b"")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, (10, 600, 600)),
        ({"connect": 5, "read": 7, "write": 8}, (5, 7, 8)),
        ({"max_connect_timeout": 0, "connect": 0, "read": "", "write": -1}, (10, 600, 600)),
    ],
)
async def test_times(given: dict[str, Any] | None, expected: tuple[float, float, float]) -> None:
    """Those of the graph, else the defaults; certificates are checked unless it says no."""
    sent = await send(timeout=given, ssl_verify=given is None)
    request = sent.request
    assert (request.connect_s, request.read_s, request.write_s) == expected
    assert request.verify is (given is None)


def test_what_it_reads() -> None:
    """Every selector of every template, and those of files."""
    made = node(
        "http-request",
        data(
            url="{{#a.b#}}",
            headers="{{#c.d#}}",
            params="x: {{#e.f#}}",
            body={"type": "form-data", "data": [{"key": "k", "type": "file", "file": ["g", "h"]}]},
            authorization={"type": "api-key", "config": {"type": "bearer", "api_key": "{{#i.j#}}"}},
        ),
    )
    reads = {tuple(selector) for selector in made.reads()}
    assert reads == {("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"), ("i", "j")}
    assert made.retries


@pytest.mark.parametrize("body", [{"type": "json", "data": [5]}, {"type": [], "data": ""}])
def test_wrong_data_names_its_place(body: Any) -> None:
    """A body that is none is an error at the compiling."""
    with pytest.raises(GraphError, match=r"body"):
        node("http-request", data(body=body))


@pytest.mark.parametrize("text", ["{" * 300_000, "{a:b," * 10_000, '{"a": b}' * 10_000])
async def test_bodies_that_no_repair_helps_are_bounded(text: str) -> None:
    """A large or deep broken body is refused at once rather than repaired for minutes."""
    sent = await send(body={"type": "json", "data": text})
    assert sent.error is not None
    assert sent.error.type == "RequestBodyError"
    assert len(sent.error.message) < 2000
    assert json.dumps(sent.error.message)


def test_it_works_in_the_io_limiter() -> None:
    """It waits; it does not compute."""
    assert HttpRequest.work == "io"


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nb: c", "a\rb"])
@pytest.mark.parametrize("line", ["X-Name: {{#n.bad#}}", "X-{{#n.bad#}}: 1"])
async def test_a_variable_adds_no_header(line: str, value: str) -> None:
    """A line break from a variable is refused; one at its end goes with the blanks."""
    web = FakeWeb(response("{}"))
    run = FakeRun({"n": {"bad": value}}, web=web)
    with pytest.raises(NodeError, match="has a line break in it, from a variable") as caught:
        await execute(node("http-request", data(headers=line)), run)
    assert caught.value.type == "RequestHeaderError"
    assert not web.requests
    run.variables.set("n", "bad", "a\r\n")
    await execute(node("http-request", data(headers=line)), run)
    assert len(web.requests) == 1


async def test_a_json_body_has_a_limit_that_is_named() -> None:
    """It would hold all other runs up; a long text in it does not."""
    many = "[" + "{}," * 80_000 + "{}]"
    sent = await send(body={"type": "json", "data": [{"type": "text", "value": many}]})
    assert sent.error is not None
    assert sent.error.type == "RequestBodyError"
    assert "more than 75000 objects, lists and keys" in sent.error.message
    long = '{"image": "' + "A" * 5_000_000 + '"}'
    sent = await send(body={"type": "json", "data": [{"type": "text", "value": long}]})
    assert sent.error is None
