"""think, and file_tools: what needs no service."""

from __future__ import annotations

import base64
import binascii

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.workflow.services import Tool, ToolOutput

__all__ = ["file_tools", "think_tools"]

MOST_FILE_BYTES = 20 * 1024 * 1024


def think_tools() -> list[Tool]:
    schema = arguments({"thought": "What you think."}, ("thought",))
    told = "Notes down a thought. It changes nothing; use it to reason step by step."
    return [NativeTool("think", "think", told, schema, _think)]


async def _think(given: Given) -> ToolOutput:
    return ToolOutput(text=given.text("thought"))


def file_tools() -> list[Tool]:
    schema = arguments(
        {
            "content": "What the file holds.",
            "filename": "Its name.",
            "mime_type": "Its media type.",
        },
        ("content", "filename"),
    )
    told = "Makes a file of a text."
    return [NativeTool("file_tools", "save_as_file", told, schema, _save)]


async def _save(given: Given) -> ToolOutput:
    written = given.text("content", "")
    if given.text("format", "text") == "base64":
        try:
            content = base64.b64decode(written)
        except (binascii.Error, ValueError):
            raise given.wrong("'content' is not base64") from None
    else:
        try:
            content = written.encode(given.text("encoding", "utf-8"), "replace")
        except LookupError:
            raise given.wrong(f"there is no encoding {given.text('encoding')[:40]!r}") from None
    if len(content) > MOST_FILE_BYTES:
        raise given.wrong(f"'content' has {len(content)} bytes; {MOST_FILE_BYTES} are allowed")
    kind = given.text("mime_type", "text/plain")
    name = given.text("filename", "file.txt").replace("/", "_").replace("\\", "_")[:200]
    return ToolOutput(files=[given.services.files.keep(content, name=name, mime_type=kind)])
