"""An operation of an OpenAPI document as a tool: arguments to a request, an answer to outputs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import msgspec

from server.tools.openapi import Operation, Parameter
from server.workflow.answered import file_name, is_file, mime_type_of, text_of_answer
from server.workflow.large_json import json_bytes, json_text, read_json
from server.workflow.multipart import FormFile, boundary, encoded
from server.workflow.node import NodeRun
from server.workflow.services import (
    ToolFailed,
    ToolOutput,
    Web,
    WebFailed,
    WebRequest,
    WebResponse,
)
from server.workflow.sizes import TooLarge
from server.workflow.tool_arguments import coerced
from server.workflow.values import File, Value, plain, text_of

__all__ = ["Auth", "OpenApiTool", "read_auth"]

UPLOAD_BYTES: Final = 50 * 1024 * 1024
_SHOWN_CHARACTERS: Final = 1000


class Auth(msgspec.Struct, frozen=True):
    """What every request carries: one header field, or one of the query."""

    kind: Literal["none", "header", "query"] = "none"
    name: str = ""
    value: str = ""


def read_auth(settings: Mapping[str, Any]) -> Auth:
    """From a binding: `bearer`, `basic` ("user:password"), `api_key` with `header` or `query` (the
    name that it goes by), also together below `auth`; or in Dify's own words, `auth_type`,
    `api_key_header`, `api_key_value`, ... Raises `ToolFailed`."""
    auth = settings.get("auth")
    if isinstance(auth, Mapping):
        if auth and not {"bearer", "basic", "api_key"} & set(auth):
            raise ToolFailed(
                "auth of a tool has one of bearer, basic, api_key", "ToolProviderError"
            )
        return _short_auth(auth)
    if "auth_type" not in settings:
        names = ("bearer", "basic", "api_key", "header", "query")
        return _short_auth({name: settings[name] for name in names if name in settings})
    kind = str(settings.get("auth_type", "none"))
    value = str(settings.get("api_key_value", ""))
    if kind in ("api_key", "api_key_header"):
        prefix = {"bearer": "Bearer ", "basic": "Basic "}.get(
            str(settings.get("api_key_header_prefix", "")).lower(), ""
        )
        return Auth(
            "header", str(settings.get("api_key_header") or "Authorization"), prefix + value
        )
    if kind == "api_key_query":
        return Auth("query", str(settings.get("api_key_query_param") or "key"), value)
    return Auth()


def _short_auth(auth: Mapping[str, Any]) -> Auth:
    if "bearer" in auth:
        return Auth("header", "Authorization", f"Bearer {auth['bearer']}")
    if "basic" in auth:
        token = base64.b64encode(str(auth["basic"]).encode()).decode()
        return Auth("header", "Authorization", f"Basic {token}")
    if "api_key" in auth and "query" in auth:
        return Auth("query", str(auth["query"]), str(auth["api_key"]))
    if "api_key" in auth:
        return Auth("header", str(auth.get("header") or "Authorization"), str(auth["api_key"]))
    return Auth()


class OpenApiTool:
    """One operation."""

    def __init__(self, operation: Operation, auth: Auth, web: Web) -> None:
        self._operation = operation
        self._auth = auth
        self._web = web
        self.name = operation.name
        self.description = operation.description
        self.schema = operation.schema

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        known = self.schema["properties"]
        given = {name: value for name, value in settings.items() if name in known} | arguments
        given = coerced(given, self.schema)
        missing = [name for name in self.schema["required"] if name not in given]
        if missing:
            raise ToolFailed(
                f"{self.name}: required arguments are missing: {', '.join(missing)}",
                "ToolParameterError",
            )
        request = await self._request(given, run)
        try:
            answer = await self._web.send(request)
        except WebFailed as error:
            raise ToolFailed(f"{self.name}: {error.message}", "ToolInvokeError") from None
        return await _output(self.name, answer, run)

    async def _request(self, given: dict[str, Value], run: NodeRun) -> WebRequest:
        operation = self._operation
        if not operation.server:
            raise ToolFailed(
                f"{self.name}: the document names no server; bind a base_url", "ToolProviderError"
            )
        path = operation.path
        query: list[tuple[str, str]] = []
        headers: list[tuple[str, str]] = []
        cookies: list[tuple[str, str]] = []
        for one in operation.parameters:
            if one.name not in given:
                continue
            if one.place == "path":
                path = path.replace(f"{{{one.name}}}", quote(_joined(given[one.name]), safe=""))
            elif one.place == "query":
                query += _pairs(one, given[one.name])
            elif one.place == "header":
                headers.append((one.name, _joined(given[one.name])))
            else:
                cookies += _pairs(one, given[one.name])
        if self._auth.kind == "query":
            query.append((self._auth.name, self._auth.value))
        if self._auth.kind == "header":
            headers.append((self._auth.name, self._auth.value))
        if cookies:
            text = "; ".join(f"{quote(name)}={quote(value)}" for name, value in cookies)
            headers.append(("Cookie", text))
        content, content_type = await self._content(given, run)
        if content_type:
            headers.append(("Content-Type", content_type))
        url = operation.server + (path if path.startswith("/") else f"/{path}")
        return WebRequest(
            method=operation.method,
            url=f"{url}?{urlencode(query)}" if query else url,
            headers=headers,
            content=content,
        )

    async def _content(self, given: dict[str, Value], run: NodeRun) -> tuple[bytes | None, str]:
        operation, body = self._operation, self._operation.body
        if body is None:
            return None, ""
        if operation.whole_body:
            value = given.get("body")
        else:
            value = {name: given[name] for name in body.schema["properties"] if name in given}
        if value is None or (value == {} and not body.required):
            return None, ""
        fields = value if isinstance(value, dict) else {"body": value}
        if body.media_type == "multipart/form-data":
            return await _multipart(fields, run)
        if body.media_type == "application/x-www-form-urlencoded":
            pairs = {name: _joined(one) for name, one in fields.items()}
            return urlencode(pairs).encode(), body.media_type
        if isinstance(value, str) and "json" not in body.media_type:
            return value.encode(), body.media_type
        return _json_body(self.name, value), body.media_type


def _json_body(name: str, value: Value) -> bytes:
    try:
        return json_bytes(plain(value))
    except ValueError as error:
        raise ToolFailed(f"{name}: its body: {error}", "ToolParameterError") from None


def _joined(value: Value) -> str:
    """As one text: lists by commas, as the styles `simple` and `form` have them."""
    if isinstance(value, list):
        return ",".join(map(_joined, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return text_of(value)


def _pairs(one: Parameter, value: Value) -> list[tuple[str, str]]:
    """A parameter of the query, by its style."""
    if isinstance(value, dict):
        if one.style == "deepObject":
            return [(f"{one.name}[{key}]", _joined(item)) for key, item in value.items()]
        if one.explode:
            return [(key, _joined(item)) for key, item in value.items()]
        return [(one.name, ",".join(f"{key},{_joined(item)}" for key, item in value.items()))]
    if isinstance(value, list) and one.explode:
        return [(one.name, _joined(item)) for item in value]
    if isinstance(value, list):
        mark = {"spaceDelimited": " ", "pipeDelimited": "|"}.get(one.style, ",")
        return [(one.name, mark.join(map(_joined, value)))]
    return [(one.name, _joined(value))]


async def _multipart(fields: dict[str, Value], run: NodeRun) -> tuple[bytes, str]:
    texts: dict[str, str] = {}
    files: list[FormFile] = []
    for name, value in fields.items():
        found = [value] if isinstance(value, File) else value
        if isinstance(found, list) and found and all(isinstance(one, File) for one in found):
            for file in found:
                content = await run.run.services.files.read(file, UPLOAD_BYTES)
                mime_type = file.mime_type or "application/octet-stream"
                files.append(FormFile(name, file.name or "file", mime_type, content))
        else:
            texts[name] = _joined(value)
    mark = boundary()
    return encoded(texts, files, mark), f"multipart/form-data; boundary={mark}"


async def _output(name: str, answer: WebResponse, run: NodeRun) -> ToolOutput:
    if not 200 <= answer.status < 300:
        shown = text_of_answer(answer)[:_SHOWN_CHARACTERS]
        raise ToolFailed(
            f"{name}: request failed with status code {answer.status} and {shown}",
            "ToolInvokeError",
        )
    if is_file(answer):
        keep = run.run.services.files.keep
        file = keep(answer.content, name=file_name(answer), mime_type=mime_type_of(answer))
        return ToolOutput(files=[file])
    text = text_of_answer(answer)
    try:
        found = read_json(text)
        text = json_text(found)
    except TooLarge as error:
        raise ToolFailed(f"{name}: its answer: {error}", "ToolInvokeError") from None
    except ValueError:
        return ToolOutput(text=text)
    return ToolOutput(text=text, json=[found] if isinstance(found, dict | list) else [])
