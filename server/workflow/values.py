"""The values that variables hold, their kinds, and how they read as text. Pure.

A value is plain Python: None, bool, int, float, str, dict, list, or a `File`. Its kind is found
from what it is, as Dify finds the type of a segment: nothing is wrapped and nothing is copied.
The renderings follow Dify's to the character: prompts and templates were written against them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

__all__ = [
    "FILE_ATTRIBUTES",
    "FILE_MARK",
    "File",
    "FileKind",
    "Kind",
    "Transfer",
    "Value",
    "kind_of",
    "markdown_of",
    "plain",
    "text_of",
]

FileKind: TypeAlias = Literal["image", "document", "audio", "video", "custom"]
Transfer: TypeAlias = Literal["remote_url", "local_file", "tool_file", "datasource_file"]
Kind: TypeAlias = Literal[
    "none",
    "string",
    "number",
    "boolean",
    "object",
    "file",
    "array[any]",
    "array[string]",
    "array[number]",
    "array[boolean]",
    "array[object]",
    "array[file]",
]

FILE_MARK: Final = "__dify__file__"
"""What a file's dict carries as `dify_model_identity`, by which code nodes' results are known."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A reference to a file; its bytes stay where they are until a node reads them."""

    type: FileKind
    transfer_method: Transfer
    name: str | None = None
    extension: str | None = None
    """With its dot, such as ".pdf"."""
    mime_type: str | None = None
    size: int = -1
    """In bytes; -1 if it is not known."""
    url: str | None = None
    related_id: str | None = None
    """Its id where it is kept (`Files`), unless it is at a `url`."""

    def attribute(self, name: str) -> Value:
        """What a selector finds below it; None for a name that files do not have."""
        return getattr(self, name, None) if name in FILE_ATTRIBUTES else None

    def as_dict(self) -> dict[str, Any]:
        """As code nodes, tools and clients get it."""
        return {
            "dify_model_identity": FILE_MARK,
            "id": None,
            "type": self.type,
            "transfer_method": self.transfer_method,
            "remote_url": self.url if self.transfer_method == "remote_url" else None,
            "related_id": self.related_id,
            "filename": self.name,
            "extension": self.extension,
            "mime_type": self.mime_type,
            "size": self.size,
            "url": self.url,
        }


FILE_ATTRIBUTES: Final = frozenset(File.__struct_fields__)
"""What a selector may name below a file."""

Value: TypeAlias = Any
"""None, bool, int, float, str, File, or a list or a str-keyed dict of values."""


def kind_of(value: Value) -> Kind:
    """Lists are what all their items are; of several kinds, or empty, `array[any]`."""
    if isinstance(value, str):
        return "string"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, File):
        return "file"
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, Sequence):
        return _array_kind(value)
    raise TypeError(f"a {type(value).__name__} is no value of a variable")


_ARRAYS: Final[dict[Kind, Kind]] = {
    "string": "array[string]",
    "number": "array[number]",
    "boolean": "array[boolean]",
    "object": "array[object]",
    "file": "array[file]",
}


def _array_kind(items: Sequence[Value]) -> Kind:
    of_each_type = {type(item): item for item in items}.values()  # long lists have few types
    kinds = {"array[any]" if isinstance(item, list) else kind_of(item) for item in of_each_type}
    return _ARRAYS.get(kinds.pop(), "array[any]") if len(kinds) == 1 else "array[any]"


def text_of(value: Value) -> str:
    """How it reads in a template. Files are empty there; nodes that can take them do so apart."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, File):
        return ""
    if isinstance(value, dict):
        return _json(value)
    if isinstance(value, list):
        return _array_text(value)
    return str(value)


def _array_text(items: list[Value]) -> str:
    if not items:
        return ""
    kind = _array_kind(items)
    if kind == "array[file]":
        return ""
    return _json(items) if kind == "array[string]" else str(plain(items))


def markdown_of(value: Value) -> str:
    """How it reads in an answer."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, File):
        return _link(value)
    if isinstance(value, dict):
        return _json(value, indent=2)
    if isinstance(value, list):
        return _markdown_list(value)
    return str(value)


def _markdown_list(items: list[Value]) -> str:
    if not items:
        return ""
    if _array_kind(items) == "array[file]":
        return "\n".join(map(_link, items))
    return "\n".join(f"- {item}" for item in plain(items))


def _link(file: File) -> str:
    url = file.url or ""
    if file.type == "image":
        return f"![{file.name or ''}]({url})"
    return f"[{file.name or url}]({url})"


def plain(value: Value) -> Any:
    """The value with each file as its dict, as JSON can have it. Copies only where it must."""
    if isinstance(value, File):
        return value.as_dict()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()} if _has_file(value) else value
    if isinstance(value, list):
        return [plain(item) for item in value] if _has_file(value) else value
    return value


def _has_file(value: Value) -> bool:
    level = [value]
    while level:
        below: list[Value] = []
        for each in level:
            kind = type(each)
            if kind is dict:
                below += each.values()
            elif kind is list:
                below += each
            elif kind is File:
                return True
        level = below
    return False


def _json(value: Value, indent: int | None = None) -> str:
    written = json.dumps(value, ensure_ascii=False, default=_file_dict)
    if indent is None:
        return written
    try:  # the standard library indents in Python, five times as slowly
        return msgspec.json.format(written.encode(), indent=indent).decode()
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):  # NaN, half a character
        return json.dumps(value, ensure_ascii=False, indent=indent, default=_file_dict)


def _file_dict(value: object) -> dict[str, Any]:
    if isinstance(value, File):
        return value.as_dict()
    raise TypeError(f"a {type(value).__name__} is no value of a variable")
