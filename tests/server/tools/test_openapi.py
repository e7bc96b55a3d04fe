"""OpenAPI and Swagger documents: how they are read, what is sent, what comes of the answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from server.tools.openapi import DocumentError, parse, read_document
from server.tools.openapi_calls import Auth, OpenApiTool, read_auth
from server.workflow.services import ToolFailed, WebFailed, WebRequest, WebResponse
from server.workflow.values import File
from tests.server.tools.fakes import run_with


class FakeWeb:
    def __init__(self, answer: WebResponse | WebFailed) -> None:
        self.answer = answer
        self.requests: list[WebRequest] = []

    async def send(self, request: WebRequest) -> WebResponse:
        self.requests.append(request)
        if isinstance(self.answer, WebFailed):
            raise self.answer
        return self.answer


class FakeFiles:
    async def read(self, file: File, most_bytes: int) -> bytes:
        return b"PNG"

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        return File(type="image", transfer_method="tool_file", name=name, mime_type=mime_type)


def response(content: str = "{}", status: int = 200, kind: str = "application/json") -> WebResponse:
    return WebResponse(
        status=status,
        headers=[("content-type", kind)],
        content=content.encode(),
        url="https://api.example/x.png",
    )


PETS = """
openapi: 3.0.1
info: {title: Pets}
servers:
  - url: https://{region}.example/v1/
    variables: {region: {default: eu}}
paths:
  /pets/{id}:
    parameters:
      - {name: id, in: path, schema: {type: integer}, description: which one}
    get:
      operationId: getPet
      summary: One pet
      parameters:
        - $ref: '#/components/parameters/Tags'
        - {name: X-Trace, in: header, schema: {type: string}}
        - {name: who, in: cookie, schema: {type: string}}
        - {name: deep, in: query, style: deepObject, schema: {type: object}}
    put:
      requestBody:
        required: true
        content:
          application/json:
            schema:
              allOf:
                - $ref: '#/components/schemas/Base'
                - {type: object, properties: {age: {type: integer, nullable: true}}}
  /pets:
    post:
      operationId: upload
      requestBody:
        content:
          multipart/form-data:
            schema:
              type: object
              properties: {photo: {type: string, format: binary}, name: {type: string}}
  /raw:
    post:
      operationId: raw
      requestBody: {required: true, content: {text/plain: {schema: {type: string}}}}
components:
  parameters:
    Tags: {name: tags, in: query, schema: {type: array, items: {type: string}}}
  schemas:
    Base:
      type: object
      required: [name]
      properties: {name: {type: string}, friend: {$ref: '#/components/schemas/Base'}}
"""


def tool(
    document: str | dict[str, Any], name: str, web: FakeWeb, auth: Auth | None = None
) -> OpenApiTool:
    data = parse(document) if isinstance(document, str) else document
    operation = read_document(data).operations[name]
    return OpenApiTool(operation, auth or Auth(), web)


async def sent(
    document: str | dict[str, Any], name: str, arguments: dict[str, Any], auth: Auth | None = None
) -> WebRequest:
    web = FakeWeb(response())
    await tool(document, name, web, auth).call(arguments, {}, run_with(files=FakeFiles()))
    return web.requests[0]


def test_a_document_becomes_tools() -> None:
    """Names, descriptions, schemas; references followed, circles cut, allOf made one."""
    document = read_document(parse(PETS))
    assert sorted(document.operations) == ["getPet", "petsid_put", "raw", "upload"]
    get = document.operations["getPet"]
    assert get.description == "One pet"
    assert get.server == "https://eu.example/v1"
    assert get.schema["required"] == ["id"]
    assert get.schema["properties"]["id"] == {"type": "integer", "description": "which one"}
    put = document.operations["petsid_put"].schema
    assert put["required"] == ["id", "name"]
    assert put["properties"]["age"] == {"type": ["integer", "null"]}
    assert "friend" in put["properties"]
    assert "$ref" not in json.dumps(put)


async def test_places_of_parameters() -> None:
    """Path, query in its styles, header and cookie; all quoted."""
    request = await sent(
        PETS,
        "getPet",
        {"id": "7", "tags": ["a b", "c"], "X-Trace": "t", "who": "me;x", "deep": {"k": 1}},
    )
    assert request.url == "https://eu.example/v1/pets/7?tags=a+b&tags=c&deep%5Bk%5D=1"
    assert dict(request.headers) == {"X-Trace": "t", "Cookie": "who=me%3Bx"}
    assert request.content is None


async def test_a_path_argument_stays_in_its_place() -> None:
    """An argument cannot lead to another path."""
    request = await sent(PETS, "getPet", {"id": "../../admin?x=1#"})
    assert request.url == "https://eu.example/v1/pets/..%2F..%2Fadmin%3Fx%3D1%23"


async def test_bodies() -> None:
    """JSON from properties, a form with a file, a text as it is."""
    request = await sent(PETS, "petsid_put", {"id": 1, "name": "Rex", "age": "3"})
    assert json.loads(request.content or b"") == {"name": "Rex", "age": 3}
    assert dict(request.headers)["Content-Type"] == "application/json"
    photo = File(type="image", transfer_method="tool_file", name="p.png", mime_type="image/png")
    request = await sent(PETS, "upload", {"photo": photo, "name": "Rex"})
    assert b'name="photo"; filename="p.png"\r\nContent-Type: image/png\r\n\r\nPNG' in (
        request.content or b""
    )
    request = await sent(PETS, "raw", {"body": "as it is"})
    assert request.content == b"as it is"


SWAGGER: dict[str, Any] = {
    "swagger": "2.0",
    "host": "old.example",
    "basePath": "/api/",
    "schemes": ["http"],
    "paths": {
        "/find": {
            "get": {
                "operationId": "find",
                "parameters": [
                    {"name": "q", "in": "query", "type": "string", "required": True},
                    {
                        "name": "ids",
                        "in": "query",
                        "type": "array",
                        "items": {"type": "integer"},
                        "collectionFormat": "pipes",
                    },
                ],
            },
            "post": {
                "operationId": "form",
                "consumes": ["application/x-www-form-urlencoded"],
                "parameters": [{"name": "a", "in": "formData", "type": "boolean"}],
            },
            "put": {
                "operationId": "body",
                "parameters": [{"name": "b", "in": "body", "schema": {"$ref": "#/definitions/B"}}],
            },
        }
    },
    "definitions": {"B": {"type": "object", "properties": {"x": {"type": "string"}}}},
}


async def test_swagger_2() -> None:
    """Host and base path, collection formats, forms and bodies as parameters."""
    request = await sent(SWAGGER, "find", {"q": "a", "ids": [1, 2]})
    assert request.url == "http://old.example/api/find?q=a&ids=1%7C2"
    request = await sent(SWAGGER, "form", {"a": True})
    assert request.content == b"a=true"
    request = await sent(SWAGGER, "body", {"x": "1"})
    assert request.content == b'{"x":"1"}'


@pytest.mark.parametrize(
    ("settings", "auth"),
    [
        ({}, Auth()),
        ({"bearer": "t", "other": 1}, Auth("header", "Authorization", "Bearer t")),
        ({"api_key": "k", "query": "key"}, Auth("query", "key", "k")),
        ({"header": "X-K"}, Auth()),
        ({"auth": {"bearer": "t"}}, Auth("header", "Authorization", "Bearer t")),
        ({"auth": {"basic": "u:p"}}, Auth("header", "Authorization", "Basic dTpw")),
        ({"auth": {"api_key": "k", "header": "X-K"}}, Auth("header", "X-K", "k")),
        ({"auth": {"api_key": "k", "query": "key"}}, Auth("query", "key", "k")),
        (
            {
                "auth_type": "api_key_header",
                "api_key_header": "X-K",
                "api_key_header_prefix": "bearer",
                "api_key_value": "k",
            },
            Auth("header", "X-K", "Bearer k"),
        ),
        (
            {"auth_type": "api_key_query", "api_key_query_param": "q", "api_key_value": "k"},
            Auth("query", "q", "k"),
        ),
    ],
)
def test_auth_in_all_its_words(settings: dict[str, Any], auth: Auth) -> None:
    """Ours and Dify's."""
    assert read_auth(settings) == auth


def test_an_auth_of_other_words_is_refused() -> None:
    """A credential under a wrong name is not left out in silence."""
    with pytest.raises(ToolFailed, match="one of bearer, basic, api_key"):
        read_auth({"auth": {"token": "t"}})


async def test_auth_is_sent() -> None:
    """In the header or in the query."""
    request = await sent(SWAGGER, "find", {"q": "a"}, Auth("query", "key", "k&"))
    assert request.url.endswith("?q=a&key=k%26")
    request = await sent(SWAGGER, "find", {"q": "a"}, Auth("header", "X-K", "k"))
    assert ("X-K", "k") in request.headers


async def test_answers() -> None:
    """JSON as text and as json, text as text, files as files, errors as errors."""
    run = run_with(files=FakeFiles())
    made = tool(SWAGGER, "find", FakeWeb(response('{"a": "\\u00e9"}')))
    output = await made.call({"q": "a"}, {}, run)
    assert (output.text, output.json) == ('{"a": "é"}', [{"a": "é"}])
    made = tool(SWAGGER, "find", FakeWeb(response("hi", kind="text/plain")))
    assert (await made.call({"q": "a"}, {}, run)).text == "hi"
    made = tool(SWAGGER, "find", FakeWeb(response("PNG", kind="image/png")))
    assert [file.name for file in (await made.call({"q": "a"}, {}, run)).files] == ["x.png"]
    made = tool(SWAGGER, "find", FakeWeb(response("no", 403)))
    with pytest.raises(ToolFailed, match="status code 403 and no"):
        await made.call({"q": "a"}, {}, run)
    made = tool(SWAGGER, "find", FakeWeb(WebFailed("db is private", "RequestRefused")))
    with pytest.raises(ToolFailed, match="find: db is private"):
        await made.call({"q": "a"}, {}, run)


async def test_missing_arguments_are_named() -> None:
    """Before anything is sent; settings can supply them."""
    web = FakeWeb(response())
    made = tool(SWAGGER, "find", web)
    with pytest.raises(ToolFailed, match="missing: q"):
        await made.call({}, {}, run_with())
    await made.call({}, {"q": "set", "other": 1}, run_with())
    assert web.requests[0].url.endswith("?q=set")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "just text", "a: [", "openapi: 1.0", "openapi: 3.0.0", "{" * 5000, "a" * 5_000_000],
)
def test_what_is_no_document_is_an_error(text: str) -> None:
    """Named as such, whatever it is."""
    with pytest.raises(DocumentError):
        read_document(parse(text))


@pytest.mark.slow
def test_hostile_references_stay_small() -> None:
    """Circles, chains that double at each step, and references to elsewhere end soon."""
    schemas: dict[str, Any] = {
        f"S{n}": {
            "type": "object",
            "properties": {
                "a": {"$ref": f"#/components/schemas/S{n + 1}"},
                "b": {"$ref": f"#/components/schemas/S{n + 1}"},
                "c": {"$ref": f"#/components/schemas/S{n + 1}"},
                "d": {"$ref": f"#/components/schemas/S{n + 1}"},
                "e": {"$ref": "http://169.254.169.254/x"},
                "f": {"$ref": "#/components/schemas/Loop"},
            },
        }
        for n in range(40)
    }
    schemas["Loop"] = {"$ref": "#/components/schemas/Loop"}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}
    data = {
        "openapi": "3.1.0",
        "paths": {"/x": {"post": {"operationId": "x", "requestBody": {"content": content}}}},
        "components": {"schemas": schemas},
    }
    began = time.perf_counter()
    operation = read_document(data).operations["x"]
    assert time.perf_counter() - began < 2
    assert operation.schema["properties"]["e"] == {}


def test_servers_are_relative_to_the_document() -> None:
    """And a bound base_url counts before them all."""
    data = {"openapi": "3.0.0", "servers": [{"url": "/v2"}], "paths": {"/x": {"get": {}}}}
    document = read_document(data, found_at="https://a.example/docs/openapi.json")
    assert document.operations["x_get"].server == "https://a.example/v2"
    document = read_document(data, "http://b.example")
    assert document.operations["x_get"].server == "http://b.example"


def test_schemas_beyond_the_limit_cost_nothing() -> None:
    """A wide schema that thousands of parameters refer to is not gone through for each."""
    wide: dict[str, Any] = {"properties": {f"p{n}": {} for n in range(19_000)}}
    parameters = [
        {"name": f"q{n}", "in": "query", "schema": {"$ref": "#/components/schemas/wide"}}
        for n in range(2_000)
    ]
    document = {
        "openapi": "3.0.0",
        "components": {"schemas": {"wide": wide}},
        "paths": {"/x": {"get": {"parameters": parameters}}},
    }
    began = time.perf_counter()
    assert len(read_document(document).operations) == 1
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "line", ["a{n}: &a{n} [*a{m}, *a{m}]", "a{n}: &a{n} {{<<: [*a{m}, *a{m}]}}"]
)
def test_aliases_are_counted_as_written_out(line: str) -> None:
    """Whoever looks at such a document later, or shows it to a model, would never end."""
    text = "a0: &a0 {x: 1}\n" + "".join(f"{line.format(n=n, m=n - 1)}\n" for n in range(1, 40))
    with pytest.raises(DocumentError, match="aliases written out"):
        parse(text)


async def test_answers_that_are_too_large_are_refused() -> None:
    """JSON that would hold all other runs up while it is read; a body, too, with its limit."""
    made = tool(SWAGGER, "find", FakeWeb(response("[" + "{}," * 80_000 + "{}]")))
    with pytest.raises(ToolFailed, match="find: its answer: JSON with more than 75000 objects"):
        await made.call({"q": "a"}, {}, run_with())
    with pytest.raises(ToolFailed, match=r"its body: as JSON it has .* at most 8388608"):
        await sent(PETS, "petsid_put", {"id": 1, "name": "x" * 9_000_000})
