"""http-request: one request to the outside, its answer as text or as a file."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from server.workflow.answered import (
    file_name,
    headers_of,
    is_file,
    mime_type_of,
    readable_size,
    text_of_answer,
)
from server.workflow.http_body import BodySpec
from server.workflow.http_log import masked, request_log
from server.workflow.node import NodeError, NodeRun, Result, Task
from server.workflow.reading import Reader
from server.workflow.services import WebFailed, WebRequest, WebResponse
from server.workflow.sizes import Room
from server.workflow.template import Template
from server.workflow.values import File, Value
from server.workflow.variables import Selector

__all__ = ["HttpRequest"]

CONNECT_S: Final = 10.0
READ_S: Final = 600.0
WRITE_S: Final = 600.0
TOTAL_S: Final = 1200.0
"""A server that sends a byte now and then is not waited for longer than a whole run may take."""

FILE_BYTES: Final = 10 * 1024 * 1024
TEXT_BYTES: Final = 1024 * 1024
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"})
_BREAK: Final = re.compile(r"[\r\n]")
_ERROR: Final = "HttpRequestNodeError"


class _Auth(NamedTuple):
    kind: str
    key: Template
    header: str


class HttpRequest(Task):
    type = "http-request"
    work = "io"
    retries = True

    def read(self, data: Reader) -> None:
        self._method = data.text("method", "get").upper()
        self._url = Template(data.text("url"))
        self._headers = [Template(line) for line in data.text("headers").splitlines()]
        self._params = [(Template(name), Template(value)) for name, value in _lines(data)]
        self._auth = _read_auth(data.table("authorization"))
        self._body = BodySpec(data.table("body"))
        timeout = data.table("timeout")
        self._connect_s = _seconds(timeout, "connect", CONNECT_S)
        self._read_s = _seconds(timeout, "read", READ_S)
        self._write_s = _seconds(timeout, "write", WRITE_S)
        self._verify = data.flag("ssl_verify", True)
        retry = data.table("retry_config")
        self._handled = data.value("error_strategy") not in (None, "", "none") or retry.flag(
            "retry_enabled"
        )

    def reads(self) -> Iterable[Selector]:
        for template in self._templates():
            yield from template.selectors
        yield from self._body.files()

    def _templates(self) -> Iterator[Template]:
        yield self._url
        yield from self._headers
        for name, value in self._params:
            yield from (name, value)
        yield from self._body.templates()
        if self._auth is not None:
            yield self._auth.key

    async def execute(self, run: NodeRun) -> Result:
        process_data: dict[str, Value] = {}
        try:
            request, log = await self._request(run)
            process_data["request"] = masked(log, run)
            answer = await self._send(request, run)
            outputs = _outputs(answer, run)
        except NodeError as error:
            error.message = masked(error.message, run)
            error.args = (error.message,)
            error.process_data = process_data
            raise
        if self._handled and not 200 <= answer.status < 300:
            raise NodeError(
                f"Request failed with status code {answer.status}",
                "HTTPResponseCodeError",
                process_data=process_data,
                outputs=outputs,
            )
        return Result(outputs=outputs, process_data=process_data)

    async def _request(self, run: NodeRun) -> tuple[WebRequest, str]:
        """The request, and its log."""
        auth = self._authorization(run)
        url = self._whole_url(run)
        headers = self._given_headers(run)
        body = await self._body.made(run)
        secret = None
        if auth is not None:
            secret = auth[0].lower()
            headers = {name: value for name, value in headers.items() if name.lower() != secret}
            headers[auth[0]] = auth[1]
        self._body.say_type(headers, body)
        request = WebRequest(
            method=self._method,
            url=url,
            headers=list(headers.items()),
            content=body.content,
            connect_s=self._connect_s,
            read_s=self._read_s,
            write_s=self._write_s,
            total_s=TOTAL_S,
            verify=self._verify,
            most_bytes=FILE_BYTES,
        )
        return request, request_log(request, headers, secret, body.log)

    def _given_headers(self, run: NodeRun) -> dict[str, str]:
        """Line by line, so that what a variable holds cannot become a header of its own."""
        room = Room()
        headers: dict[str, str] = {}
        for line in self._headers:
            name, _, value = room.take(line.text(run.variables)).partition(":")
            name, value = name.strip(), value.strip()
            if _BREAK.search(name + value):
                raise NodeError(
                    f"The header {line.source.partition(':')[0].strip()[:100]!r} has a line break "
                    "in it, from a variable",
                    "RequestHeaderError",
                )
            if name:
                headers[name] = value
        return headers

    def _authorization(self, run: NodeRun) -> tuple[str, str] | None:
        """The header that carries the key. Raises `NodeError` for an empty one."""
        if self._auth is None:
            return None
        key = self._auth.key.text(run.variables)
        if not key.strip():
            raise NodeError(
                "API key is required for authorization but was empty. "
                "Please provide a valid API key.",
                "AuthorizationConfigError",
            )
        if self._auth.kind == "bearer":
            return self._auth.header, f"Bearer {key}"
        if self._auth.kind == "basic":
            token = base64.b64encode(key.encode(errors="replace")).decode() if ":" in key else key
            return self._auth.header, f"Basic {token}"
        return self._auth.header, key

    def _whole_url(self, run: NodeRun) -> str:
        url = self._url.text(run.variables).strip().encode(errors="replace").decode()
        if not url:
            raise NodeError("url is required", "InvalidURLError")
        if not url.lower().startswith(("http://", "https://")):
            raise NodeError("url should start with http:// or https://", "InvalidURLError")
        if self._method not in _METHODS:
            raise NodeError(f"Invalid http method {self._method.lower()}", "InvalidHttpMethodError")
        try:
            urlsplit(url)
        except ValueError as error:
            raise NodeError(f"{url[:200]!r} is no URL: {error}", "InvalidURLError") from None
        variables = run.variables
        room = Room()
        pairs = [
            (room.take(name.text(variables)), room.take(value.text(variables)))
            for name, value in self._params
        ]
        if not pairs:
            return url
        bare = url.partition("#")[0]
        return f"{bare}{'&' if '?' in bare else '?'}{urlencode(pairs, errors='replace')}"

    async def _send(self, request: WebRequest, run: NodeRun) -> WebResponse:
        try:
            answer = await run.run.services.web.send(request)
        except WebFailed as error:
            if error.type == "ResponseSizeError":
                size = f"more than {readable_size(FILE_BYTES)}"
                raise _too_large("File", FILE_BYTES, size) from None
            raise NodeError(error.message, _ERROR) from None
        if not is_file(answer) and len(answer.content) > TEXT_BYTES:
            raise _too_large("Text", TEXT_BYTES, readable_size(len(answer.content)))
        return answer


def _seconds(timeout: Reader, key: str, default: float) -> float:
    seconds = timeout.number(key, 0)
    return seconds if 0 < seconds <= TOTAL_S else default


def _lines(data: Reader) -> Iterator[tuple[str, str]]:
    """The parameters, one in a line; a name may come again."""
    for line in data.text("params").splitlines():
        name, _, value = line.strip().partition(":")
        if name.strip():
            yield name.strip(), value.strip()


def _read_auth(data: Reader) -> _Auth | None:
    if data.text("type", "no-auth") != "api-key":
        return None
    config = data.table("config")
    return _Auth(
        config.text("type", "custom"),
        Template(config.text("api_key")),
        config.text("header").strip() or "Authorization",
    )


def _outputs(answer: WebResponse, run: NodeRun) -> dict[str, Value]:
    files: list[File] = []
    if is_file(answer):
        name, mime_type = file_name(answer), mime_type_of(answer)
        files = [run.run.services.files.keep(answer.content, name=name, mime_type=mime_type)]
    return {
        "status_code": answer.status,
        "body": "" if files else text_of_answer(answer),
        "headers": headers_of(answer),
        "files": files,
    }


def _too_large(what: str, most: int, size: str) -> NodeError:
    return NodeError(
        f"{what} size is too large, max size is {most / 1024 / 1024:.2f} MB, "
        f"but current size is {size}.",
        "ResponseSizeError",
    )
