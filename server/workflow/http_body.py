"""The bodies of HTTP requests as graphs describe them: forms, texts, JSON, files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import trio

from server.workflow.large_json import MOST_BODY_BYTES, json_bytes, read_json
from server.workflow.multipart import FormFile, boundary, encoded, logged
from server.workflow.node import NodeError, NodeRun
from server.workflow.reading import Reader
from server.workflow.sizes import Room, TooLarge
from server.workflow.template import Template
from server.workflow.values import File, text_of
from server.workflow.variables import Selector

__all__ = ["Body", "BodySpec"]

UPLOAD_BYTES: Final = 50 * 1024 * 1024
REPAIR_CHARACTERS: Final = 65_536
REPAIR_DEPTH: Final = 100
"""Of a body that is almost JSON; one that is larger or deeper has to be JSON. Repairing takes up to
15 µs a character, and the square of the depth."""

_BRACKETS: Final = re.compile(r"[{}\[\]]")
_CONTENT_TYPES: Final = {
    "json": "application/json",
    "x-www-form-urlencoded": "application/x-www-form-urlencoded",
    "form-data": "multipart/form-data",
    "raw-text": "text/plain",
}


class Body(NamedTuple):
    """A body as it is sent, and as the log shows it."""

    content: bytes | None = None
    log: str = ""
    content_type: str | None = None
    """What must be said of it, whatever the graph's headers say."""


class _Item(NamedTuple):
    """One entry of a body."""

    key: Template
    value: Template
    is_file: bool
    file: tuple[str, ...]


class BodySpec:
    """A body before its templates are filled in."""

    def __init__(self, data: Reader) -> None:
        self.type = data.text("type", "none")
        self._items = _read_items(data)

    def templates(self) -> Iterator[Template]:
        """All that it is made of."""
        for item in self._items:
            yield from (item.key, item.value)

    def files(self) -> Iterator[Selector]:
        """The variables whose files it sends."""
        yield from (item.file for item in self._items if item.file)

    async def made(self, run: NodeRun) -> Body:
        """The body of one run. Raises `NodeError`, and `ServiceFailed` for files."""
        if self.type == "form-data":
            return await self._form(run)
        if self.type == "x-www-form-urlencoded":
            text = urlencode(self._fields(run), errors="replace")
            return Body(text.encode(), text)
        if self.type not in ("raw-text", "json", "binary"):
            return Body()
        if len(self._items) != 1:
            raise NodeError(
                f"{self.type} body type should have exactly one item", "RequestBodyError"
            )
        if self.type == "binary":
            return await self._binary(self._items[0], run)
        text = self._items[0].value.text(run.variables)
        if self.type == "raw-text":
            return Body(text.encode(errors="replace"), text)
        return Body(await _json_body(text), text)

    def _fields(self, run: NodeRun) -> dict[str, str]:
        variables, room = run.variables, Room()
        return {
            room.take(item.key.text(variables)): room.take(item.value.text(variables))
            for item in self._items
            if not item.is_file
        }

    async def _form(self, run: NodeRun) -> Body:
        fields = self._fields(run)
        files: list[FormFile] = []
        for item in self._items:
            if item.is_file:
                field = item.key.text(run.variables)
                for file in _files_at(run, item.file):
                    files.append(await _form_file(field, file, run))
        mark = boundary()
        return Body(
            encoded(fields, files, mark),
            logged(fields, files, mark),
            f"multipart/form-data; boundary={mark}",
        )

    async def _binary(self, item: _Item, run: NodeRun) -> Body:
        found = _files_at(run, item.file)
        if len(found) != 1:
            raise NodeError(f"cannot fetch file with selector {list(item.file)}", "FileFetchError")
        content = await run.run.services.files.read(found[0], UPLOAD_BYTES)
        return Body(content, f"<binary_content: size={len(content)} bytes>")

    def say_type(self, headers: dict[str, str], body: Body) -> None:
        """Content-Type: as the graph says, but a form's boundary is ours."""
        given = [name for name in headers if name.lower() == "content-type"]
        if body.content_type is not None:
            for name in given:
                del headers[name]
            headers["Content-Type"] = body.content_type
        elif not given and self.type in _CONTENT_TYPES:
            headers["Content-Type"] = _CONTENT_TYPES[self.type]


def _read_items(body: Reader) -> list[_Item]:
    """The entries; older exports have one text instead."""
    if isinstance(body.value("data"), str):
        return [_Item(Template(""), Template(body.text("data")), False, ())]
    return [
        _Item(
            Template(item.text("key")),
            Template(_written(item.value("value", ""))),
            item.text("type", "text") == "file",
            item.selector("file"),
        )
        for item in body.tables("data")
    ]


def _written(value: Any) -> str:
    """A value that YAML has read as more than a text, as a text again."""
    return value if isinstance(value, str) else text_of(value)


async def _json_body(text: str) -> bytes:
    """What was meant by a text that templates made, as JSON."""
    try:
        try:
            value = read_json(text, MOST_BODY_BYTES)
        except TooLarge:
            raise
        except ValueError:
            value = await _repaired(text)
        return json_bytes(value, MOST_BODY_BYTES)
    except TooLarge as error:
        raise NodeError(f"The JSON body is too large: {error}", "RequestBodyError") from None


async def _repaired(text: str) -> Any:
    if len(text) <= REPAIR_CHARACTERS and _depth(text) <= REPAIR_DEPTH:
        try:
            return await trio.to_thread.run_sync(_repair, text, abandon_on_cancel=True)
        except (ValueError, RecursionError):
            pass
    raise NodeError(f"Failed to parse JSON: {text[:1000]}", "RequestBodyError")


def _depth(text: str) -> int:
    """How deep the brackets go, those within texts too."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "{[" else -1
        deepest = max(deepest, depth)
    return deepest


def _repair(text: str) -> Any:
    from json_repair import repair_json

    return json.loads(str(repair_json(text)), strict=False)


def _files_at(run: NodeRun, selector: Selector) -> list[File]:
    value = run.variables.get(selector) if selector else None
    if isinstance(value, File):
        return [value]
    return [item for item in value if isinstance(item, File)] if isinstance(value, list) else []


async def _form_file(field: str, file: File, run: NodeRun) -> FormFile:
    content = await run.run.services.files.read(file, UPLOAD_BYTES)
    mime_type = file.mime_type or "application/octet-stream"
    return FormFile(field, file.name or "", mime_type, content)
