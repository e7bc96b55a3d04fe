"""The text of documents, read in a worker: parsers of foreign files are where things break.

Kinds are told by a file's extension, and by its MIME type where that says nothing.
"""

from __future__ import annotations

import importlib
from pathlib import PurePath
from typing import Any, Final

from server.sandbox.loading import load_encodings
from server.sandbox.worker import Failed

__all__ = ["READERS", "prepare", "reader_of", "work"]

_HERE: Final = "server.sandbox.document_text"

_PLAIN: Final = """
    txt markdown md mdx rst xml c h cpp hpp cc cxx c++ cs py pyi js mjs ts jsx tsx vue java php
    rb go rs swift kt kts scala sh bash zsh bat cmd ps1 sql r m pl lua vim asm s css scss less
    sass ini cfg conf toml env log tex graphql proto gradle dockerfile makefile diff patch svg
    ndjson jsonl dart ex exs erl hs clj groovy jl tf
"""

READERS: Final[dict[str, str]] = {
    **dict.fromkeys(_PLAIN.split(), "plain:text"),
    "json": "plain:json_text",
    "yaml": "plain:yaml_text",
    "yml": "plain:yaml_text",
    "properties": "plain:properties_text",
    "vtt": "captions:vtt_text",
    "srt": "captions:srt_text",
    "csv": "tables:csv_text",
    "tsv": "tables:tsv_text",
    "html": "markup:html_text",
    "htm": "markup:html_text",
    "xhtml": "markup:html_text",
    "eml": "mail:eml_text",
    "pdf": "pdf:pdf_text",
    "docx": "office:docx_text",
    "xlsx": "office:xlsx_text",
    "xlsm": "office:xlsx_text",
    "pptx": "archives:pptx_text",
    "odt": "archives:odt_text",
    "epub": "archives:epub_text",
}
"""By extension: module and function."""

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_MIME_TYPES: Final[dict[str, str]] = {
    "application/json": "json",
    "application/x-yaml": "yaml",
    "application/yaml": "yaml",
    "text/yaml": "yaml",
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/html": "html",
    "text/htm": "html",
    "application/xhtml+xml": "html",
    "application/xml": "xml",
    "text/vtt": "vtt",
    "text/properties": "properties",
    "application/x-subrip": "srt",
    "message/rfc822": "eml",
    f"{_OFFICE}wordprocessingml.document": "docx",
    f"{_OFFICE}spreadsheetml.sheet": "xlsx",
    f"{_OFFICE}presentationml.presentation": "pptx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/epub+zip": "epub",
}

_LIBRARIES: Final = ("pypdfium2", "docx", "openpyxl", "bs4", "yaml")


def prepare() -> None:
    """Load all readers and their libraries, and let them read something small: they load more
    at their first use than at their import."""
    for name in {place.split(":")[0] for place in READERS.values()}:
        importlib.import_module(f"{_HERE}.{name}")
    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    from server.sandbox.document_text import samples

    load_encodings()
    samples.read_all()


def work(head: dict[str, Any], body: bytes) -> bytes:
    """The text of the document in `body`, whose file name is `head["name"]`."""
    try:
        text = reader_of(head["name"], head["mime_type"])(body)
    except (Failed, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise Failed(
            f"documents of this kind need {error.name}: pip install 'triolet[documents]'"
        ) from None
    except Exception as error:
        kind = PurePath(head["name"]).suffix or head["mime_type"]
        raise Failed(f"this {kind} document cannot be read: {error}"[:1000]) from None
    return str(text).encode("utf-8", "replace")


def reader_of(name: str, mime_type: str | None) -> Any:
    """The function for a kind of file. Raises `Failed`."""
    extension = PurePath(name.lower()).suffix.lstrip(".")
    place = READERS.get(extension)
    mime = (mime_type or "").split(";")[0].strip().lower()
    if place is None:
        place = READERS.get(_MIME_TYPES.get(mime, "txt" if mime.startswith("text/") else ""))
    if place is None:
        raise Failed(_unsupported(extension, mime), "UnsupportedFileTypeError")
    module, function = place.split(":")
    return getattr(importlib.import_module(f"{_HERE}.{module}"), function)


def _unsupported(extension: str, mime: str) -> str:
    if extension:
        return f"Unsupported Extension Type: .{extension}"
    if mime:
        return f"Unsupported MIME type: {mime}"
    return "Unable to determine file type: MIME type or file extension is missing"
