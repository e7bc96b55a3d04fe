"""Files in prompts: a file becomes the part of a message that engines take for it.

Pictures, sounds and documents are read here, under the guard and the limits of `Files`, and sent
along: an engine is not made to fetch what a user names. Only videos at a URL stay there.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import trio

from server.workflow.node import NodeError
from server.workflow.reading import Reader
from server.workflow.services import Files, Message, ModelFacts
from server.workflow.values import File, Value
from server.workflow.variables import MISSING, Variables

__all__ = [
    "Part",
    "Vision",
    "decode_base64",
    "encode_base64",
    "files_in",
    "load_files",
    "read_vision",
]

Part: TypeAlias = "dict[str, Any] | File"
"""A part of a message; a file until it is loaded."""

ALL_FILES_BYTES: Final = 8 * 1024 * 1024
"""Of one prompt. Its body is written in one go: so much in 10 ms, while 20 MB would take 50."""

FILES_MOST: Final = 20

_SLICE_BYTES: Final = 786_432
"""Encoded at a time, in half a millisecond; a multiple of three and of four."""


class Vision:
    """A node's section `vision`."""

    __slots__ = ("detail", "enabled", "selector")

    def __init__(self, enabled: bool, selector: tuple[str, ...], detail: str) -> None:
        self.enabled = enabled
        self.selector = selector
        self.detail = detail

    def files(self, variables: Variables) -> list[File]:
        """Those that are to be shown; none if it is not enabled. Raises `NodeError`."""
        if not self.enabled or not self.selector:
            return []
        value = variables.get(self.selector)
        files = files_in(value)
        if files or value is MISSING or value is None or isinstance(value, list):
            return files
        raise NodeError(
            f"the variable {'.'.join(self.selector)} for vision is no file and no list of files",
            "InvalidVariableTypeError",
        )


def read_vision(data: Reader) -> Vision:
    """Exports have the selector in two places, or leave it out."""
    vision = data.table("vision")
    configs = vision.table("configs")
    selector = configs.selector("variable_selector") or vision.selector("variable_selector")
    detail = configs.text("detail", "high")
    return Vision(vision.flag("enabled"), selector or ("sys", "files"), detail)


async def encode_base64(content: bytes) -> str:
    """As data URLs have it. Lets others work in between."""
    slices = []
    for start in range(0, len(content), _SLICE_BYTES):
        slices.append(base64.b64encode(content[start : start + _SLICE_BYTES]))
        await trio.lowlevel.checkpoint()
    return b"".join(slices).decode()


async def decode_base64(text: str) -> bytes:
    """The other way. Raises ValueError for what is none."""
    slices = []
    for start in range(0, len(text), _SLICE_BYTES):
        slices.append(base64.b64decode(text[start : start + _SLICE_BYTES], validate=True))
        await trio.lowlevel.checkpoint()
    return b"".join(slices)


def files_in(value: Value) -> list[File]:
    """The file, or all of a list of files; none of anything else."""
    if isinstance(value, File):
        return [value]
    if isinstance(value, list) and value and all(isinstance(one, File) for one in value):
        return list(value)
    return []


class _Load:
    """Loads files within the bounds of one prompt."""

    def __init__(self, files: Files, facts: ModelFacts, detail: str) -> None:
        self._files = files
        self._facts = facts
        self._detail = detail
        self._bytes_left = ALL_FILES_BYTES
        self._count_left = FILES_MOST
        self.left_out: list[str] = []

    async def part(self, file: File) -> dict[str, Any] | None:
        kind = _kind(file)
        if not self._takes(kind):
            self.left_out.append(file.name or file.type)
            return None
        if self._count_left == 0:
            raise NodeError(f"a prompt may have {FILES_MOST} files at most", "FileError")
        self._count_left -= 1
        if kind == "image":
            url = await self._data_url(file, "image/png")
            return {"type": "image_url", "image_url": {"url": url, "detail": self._detail}}
        if kind == "video":
            url = _remote(file) or await self._data_url(file, "video/mp4")
            return {"type": "video_url", "video_url": {"url": url}}
        if kind == "audio":
            data = await self._encoded(file)
            return {"type": "input_audio", "input_audio": {"data": data, "format": _sound(file)}}
        url = await self._data_url(file, "application/octet-stream")
        return {"type": "file", "file": {"filename": file.name or "file", "file_data": url}}

    def _takes(self, kind: _Kind | None) -> bool:
        facts = self._facts
        if kind in ("image", "video"):
            return facts.vision
        return facts.audio if kind == "audio" else kind == "document" and facts.documents

    async def _data_url(self, file: File, otherwise: str) -> str:
        if file.url is not None and file.url.startswith("data:"):
            self._take(len(file.url) * 3 // 4)
            return file.url
        encoded = await self._encoded(file)
        return f"data:{file.mime_type or otherwise};base64,{encoded}"

    async def _encoded(self, file: File) -> str:
        self._take(1)
        content = await self._files.read(file, self._bytes_left + 1)
        self._take(len(content) - 1)
        return await encode_base64(content)

    def _take(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise NodeError(
                f"the files of a prompt may have {ALL_FILES_BYTES:,} bytes at most", "FileError"
            )


_Kind: TypeAlias = Literal["image", "video", "audio", "document"]
_KINDS: Final[tuple[_Kind, ...]] = ("image", "video", "audio", "document")


def _kind(file: File) -> _Kind | None:
    """By its type; of a custom one by its MIME type."""
    for kind in _KINDS:
        if file.type == kind or (file.mime_type or "").startswith(kind + "/"):
            return kind
    return None


def _remote(file: File) -> str | None:
    url = file.url or ""
    return url if url.startswith(("http://", "https://")) else None


def _sound(file: File) -> str:
    """The format of a sound as the API names it."""
    extension = (file.extension or "").lstrip(".").lower()
    return extension or (file.mime_type or "audio/wav").rpartition("/")[2]


async def load_files(
    messages: Sequence[Message], files: Files, facts: ModelFacts, detail: str
) -> tuple[list[Message], list[str]]:
    """The messages with their files as parts, and the names of those that the model cannot take.

    One part of text alone becomes the text; messages with nothing in them are dropped.
    """
    load = _Load(files, facts, detail)
    loaded = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            content = await _loaded(content, load)
        if content or message.get("tool_calls"):
            loaded.append({**message, "content": content})
    return loaded, load.left_out


async def _loaded(parts: Sequence[Part], load: _Load) -> str | list[dict[str, Any]]:
    loaded = []
    for part in parts:
        found = await load.part(part) if isinstance(part, File) else part
        if found is not None and found.get("text") != "":
            loaded.append(found)
    if len(loaded) == 1 and loaded[0]["type"] == "text":
        return str(loaded[0]["text"])
    return loaded
