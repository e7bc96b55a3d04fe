"""Forms with files as one request body, and how such a body reads in a log. Pure."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

__all__ = ["FormFile", "boundary", "encoded", "logged"]

_QUOTED: Final = {'"': "%22", "\r": "%0D", "\n": "%0A"}
"""As browsers write names: a quote or a line end in one cannot begin another header."""


class FormFile(NamedTuple):
    """A file of a form."""

    field: str
    name: str
    mime_type: str
    content: bytes


def boundary() -> str:
    """A line that no content has."""
    return f"----WebKitFormBoundary{secrets.token_hex(8)}"


def encoded(fields: Mapping[str, str], files: Iterable[FormFile], mark: str) -> bytes:
    """The body of a multipart/form-data request with the boundary `mark`."""
    parts: list[bytes] = []
    for name, value in fields.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n'
        parts += [head.encode(errors="replace"), value.encode(errors="replace"), b"\r\n"]
    for file in files:
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="{_quoted(file.field)}"; '
            f'filename="{_quoted(file.name)}"\r\nContent-Type: {_clean(file.mime_type)}\r\n\r\n'
        )
        parts += [head.encode(errors="replace"), file.content, b"\r\n"]
    parts.append(f"--{mark}--\r\n".encode())
    return b"".join(parts)


def _quoted(name: str) -> str:
    return re.sub(r'["\r\n]', lambda found: _QUOTED[found.group()], name)


def _clean(mime_type: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "", mime_type) or "application/octet-stream"


def logged(fields: Mapping[str, str], files: Iterable[FormFile], mark: str) -> str:
    """The same for people, a line for each file. Beside files no fields are shown, as in Dify."""
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{file.field}"\r\n\r\n'
        f"<file_content_binary: '{file.name or 'unknown'}', "
        f"type='{file.mime_type}', size={len(file.content)} bytes>\r\n"
        for file in files
    ]
    if not parts:
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
    return "".join(parts) + f"--{mark}--\r\n"
