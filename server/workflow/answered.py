"""What an HTTP answer is: a text, and in which encoding, or a file, and of which name. Pure."""

from __future__ import annotations

import mimetypes
import re
from email.message import Message
from typing import Final
from urllib.parse import unquote, urlsplit

from server.workflow.services import WebResponse

__all__ = ["file_name", "headers_of", "is_file", "mime_type_of", "readable_size", "text_of_answer"]

_TEXT_APPLICATIONS: Final = (
    *("json", "xml", "javascript", "x-www-form-urlencoded", "yaml", "graphql", "ndjson"),
)
_TEXT_MARKS: Final = (b"{", b"[", b"<", b"function", b"var ", b"const ", b"let ")
_LOOKED_AT_BYTES: Final = 1024

_TEXT_ENCODINGS: Final = re.compile(
    r"utf[-_]?(8|16|32)([-_]?[lb]e)?|(us-?)?ascii|latin[-_]?\d+|iso[-_]?8859[-_]\d+"
    r"|(windows|cp)[-_]?\d+|gb(k|2312|18030)|big5([-_]?hkscs)?|(shift|s)[-_]?jis(x?[-_\d]*)"
    r"|euc[-_]?(jp|kr|cn)|koi8[-_][ru]|iso[-_]?2022[-_](jp|kr)",
    re.IGNORECASE,
)
"""Of the encodings that Python knows, those of texts: not punycode, unicode_escape and the like."""

_DECLARED: Final = re.compile(
    rb"""<\?xml[^>]{0,100}encoding=["']([\w-]{1,40})|<meta[^>]{0,200}charset=["']?([\w-]{1,40})""",
    re.IGNORECASE,
)


def headers_of(answer: WebResponse) -> dict[str, str]:
    """By name, in lower case; values of a repeated one joined by commas."""
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def is_file(answer: WebResponse) -> bool:
    """Whether the answer is a download rather than a text to read, as Dify decides it."""
    headers = headers_of(answer)
    if _disposition(headers) is not None:
        return True
    mime_type = _mime_type(headers)
    if mime_type.startswith("text/") and "csv" not in mime_type:
        return False
    if mime_type.startswith("application/") and _is_text(mime_type, answer.content):
        return False
    guessed, _ = mimetypes.guess_type("file" + (mimetypes.guess_extension(mime_type) or ""))
    kind = (guessed or mime_type).partition("/")[0]
    if guessed is None:
        return kind in ("image", "audio", "video")
    return kind in ("application", "image", "audio", "video")


def _is_text(mime_type: str, content: bytes) -> bool:
    if any(text in mime_type for text in _TEXT_APPLICATIONS):
        return True
    sample = content[:_LOOKED_AT_BYTES]
    try:
        sample.decode()
    except UnicodeDecodeError:
        return False
    return any(mark in sample for mark in _TEXT_MARKS)


def _mime_type(headers: dict[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _disposition(headers: dict[str, str]) -> Message | None:
    """The Content-Disposition, if it says that this is a file."""
    if not headers.get("content-disposition"):
        return None
    message = Message()
    message["content-disposition"] = headers["content-disposition"]
    if message.get_content_disposition() == "attachment" or message.get_filename() is not None:
        return message
    return None


def file_name(answer: WebResponse) -> str:
    """As the server calls it, else the last part of the URL; may be empty."""
    disposition = _disposition(headers_of(answer))
    named = None if disposition is None else disposition.get_filename()
    return named or unquote(urlsplit(answer.url).path.rpartition("/")[2])


def mime_type_of(answer: WebResponse) -> str:
    """Of a file: by the name that the server gave it, else as it says, else by the URL."""
    headers = headers_of(answer)
    disposition = _disposition(headers)
    named = None if disposition is None else disposition.get_filename()
    by_name = mimetypes.guess_type(named)[0] if named else None
    by_url = mimetypes.guess_type(file_name(answer))[0]
    return by_name or _mime_type(headers) or by_url or "application/octet-stream"


def text_of_answer(answer: WebResponse) -> str:
    """The body as text: in the encoding that the header or the document names, else UTF-8."""
    content = answer.content
    if content.startswith(b"\xef\xbb\xbf"):
        return content[3:].decode("utf-8", "replace")
    message = Message()
    message["content-type"] = headers_of(answer).get("content-type", "")
    for name in (message.get_content_charset(), _declared(content)):
        if name and _TEXT_ENCODINGS.fullmatch(name):
            try:
                return content.decode(name, "replace")
            except LookupError:
                continue
    return content.decode("utf-8", "replace")


def _declared(content: bytes) -> str | None:
    """What an HTML or XML document says of itself."""
    found = _DECLARED.search(content[:_LOOKED_AT_BYTES])
    return None if found is None else (found.group(1) or found.group(2)).decode("ascii")


def readable_size(size: int) -> str:
    """As Dify's messages have it."""
    if size < 1024:
        return f"{size} bytes"
    if size < 1024 * 1024:
        return f"{size / 1024:.2f} KB"
    return f"{size / 1024 / 1024:.2f} MB"
