"""Files as clients name them, read into `File` values. Pure: nothing is fetched."""

from __future__ import annotations

import mimetypes
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast, get_args
from urllib.parse import unquote, urlsplit

import msgspec

from server.workflow.values import File, FileKind

__all__ = ["FileError", "FileRules", "Upload", "file_kind", "given_file"]

Upload: TypeAlias = Callable[[str], File | None]
"""Finds a file that was uploaded before, by its id."""

MOST_URL_CHARACTERS: Final = 8192

_KINDS: Final = get_args(FileKind)

_EXTENSIONS: Final[dict[str, FileKind]] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "gif", "svg"), "image"),
    **dict.fromkeys(("mp4", "mov", "mpeg", "webm"), "video"),
    **dict.fromkeys(("mp3", "m4a", "wav", "amr", "mpga"), "audio"),
    **dict.fromkeys(
        (
            *("txt", "markdown", "md", "mdx", "pdf", "html", "htm", "xlsx", "xls", "vtt"),
            *("properties", "doc", "docx", "csv", "eml", "msg", "ppt", "pptx", "xml", "epub"),
        ),
        "document",
    ),
}


class FileError(ValueError):
    """A mapping that names no file, or one that may not be given here."""


class FileRules(msgspec.Struct, frozen=True, kw_only=True):
    """What may be given. Empty allows all."""

    kinds: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    """For files of kind "custom"; with or without a dot, in any case."""
    transfers: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> FileRules:
        """Those of a start variable, a form's input, or a `file_upload` feature."""
        return cls(
            kinds=_texts(settings.get("allowed_file_types")),
            extensions=_texts(settings.get("allowed_file_extensions")),
            transfers=_texts(settings.get("allowed_file_upload_methods")),
        )

    def allow(self, file: File) -> bool:
        if self.transfers and file.transfer_method not in (*self.transfers, "tool_file"):
            return False
        if not self.kinds or (file.type in self.kinds and file.type != "custom"):
            return True
        if "custom" not in self.kinds:
            return False
        allowed = {each.lower().lstrip(".") for each in self.extensions}
        return not allowed or (file.extension or "").lower().lstrip(".") in allowed


def _texts(found: Any) -> tuple[str, ...]:
    return (
        tuple(map(str, found)) if isinstance(found, Sequence) and not isinstance(found, str) else ()
    )


def file_kind(name: str | None, mime_type: str | None = None) -> FileKind:
    """What kind of file it is, by its extension, else by its MIME type."""
    extension = posixpath.splitext(name or "")[1].lower().lstrip(".")
    if extension in _EXTENSIONS:
        return _EXTENSIONS[extension]
    group = (mime_type or "").partition("/")[0]
    return cast(FileKind, group) if group in ("image", "audio", "video") else "custom"


def given_file(
    given: Mapping[str, Any] | File, rules: FileRules, upload: Upload | None = None
) -> File:
    """The file that a mapping names: `{type, transfer_method, url | upload_file_id | ...}`.

    Raises `FileError`.
    """
    file = given if isinstance(given, File) else _read(given, upload)
    if not rules.allow(file):
        raise FileError(f"File validation failed for file: {file.name}")
    return file


def _read(given: Mapping[str, Any], upload: Upload | None) -> File:
    transfer = given.get("transfer_method")
    if transfer == "remote_url":
        return _remote(given)
    if transfer not in ("local_file", "tool_file", "datasource_file"):
        raise FileError(f"invalid transfer_method of a file: {transfer!r}"[:200])
    id = next(filter(None, map(given.get, _IDS)), None)
    found = upload(id) if upload and isinstance(id, str) else None
    if found is None:
        raise FileError(f"Invalid upload file: {id!r} is not known"[:200])
    kind = given.get("type")
    if kind not in _KINDS or kind == found.type:
        return found
    return msgspec.structs.replace(found, type=kind)


_IDS: Final = ("upload_file_id", "tool_file_id", "datasource_file_id", "related_id")


def _remote(given: Mapping[str, Any]) -> File:
    url = given.get("url") or given.get("remote_url")
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        raise FileError("Invalid file url")
    if len(url) > MOST_URL_CHARACTERS:
        raise FileError(f"Invalid file url: more than {MOST_URL_CHARACTERS} characters")
    name = _name_in(url) or None
    mime_type = mimetypes.guess_type(name or "")[0]
    kind = given.get("type")
    return File(
        type=cast(FileKind, kind) if kind in _KINDS else file_kind(name, mime_type),
        transfer_method="remote_url",
        name=name,
        extension=posixpath.splitext(name or "")[1] or None,
        mime_type=mime_type,
        url=url,
    )


def _name_in(url: str) -> str:
    try:
        return posixpath.basename(unquote(urlsplit(url).path))[:255]
    except ValueError:
        raise FileError("Invalid file url") from None
