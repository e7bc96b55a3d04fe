"""md_exporter: files out of markdown. Presentations, PDF and PNG it cannot make."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import islice
from typing import Final, TypeAlias, TypeVar

import trio

from server.tools.native.given import Given
from server.tools.native.markdown_docx import docx_of
from server.tools.native.markdown_tables import (
    code_blocks,
    csv_of,
    json_of,
    tables_of,
    unwrapped,
)
from server.tools.native.native_tool import Do, NativeTool, arguments
from server.workflow.services import Tool, ToolFailed, ToolOutput
from server.workflow.values import File

__all__ = ["tools"]

T = TypeVar("T")
Table: TypeAlias = list[list[str]]

MOST_CHARACTERS: Final = 1_000_000
MOST_FILES: Final = 100
_MOST_TEMPLATE_BYTES: Final = 10 * 1024 * 1024
_DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_HEAD: Final = '<!DOCTYPE html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n'
_FOOT: Final = "</body>\n</html>\n"
_EXTENSIONS: Final = {"python": "py", "javascript": "js", "typescript": "ts", "bash": "sh"}
_EXTENSIONS_KNOWN: Final = ("json", "html", "css", "xml", "yaml", "sql", "svg", "java", "go", "c")


def tools() -> list[Tool]:
    made: dict[str, tuple[str, Do]] = {
        "md_to_docx": ("a Word document", _to_docx),
        "md_to_html": ("an HTML page", _to_html),
        "md_to_html_text": ("the text of an HTML page", _to_html_text),
        "md_to_md": ("a markdown file", _to_md),
        "md_to_csv": ("a CSV file of each table", _to_csv),
        "md_to_xlsx": ("a spreadsheet of the tables", _to_xlsx),
        "md_to_json": ("a JSON file of each table", _to_json),
        "md_to_codeblock": ("a file of each code block", _to_code),
    }
    schema = arguments(
        {"md_text": "The markdown text.", "output_filename": "The file's name."}, ("md_text",)
    )
    return [
        NativeTool("md_exporter", name, f"Turns markdown into {result}.", schema, do)
        for name, (result, do) in made.items()
    ]


def _text(given: Given) -> str:
    text = given.text("md_text")
    if len(text) > MOST_CHARACTERS:
        raise given.wrong(f"'md_text' has {len(text)} characters; {MOST_CHARACTERS} are allowed")
    return unwrapped(text)


def _keep(given: Given, content: bytes, extension: str, kind: str, number: int = 0) -> File:
    stem = given.text("output_filename", "output").replace("/", "_").replace("\\", "_")[:150]
    stem = stem.removesuffix(f".{extension}") + (f"_{number}" if number else "")
    return given.services.files.keep(content, name=f"{stem}.{extension}", mime_type=kind)


async def _made(work: Callable[[], T]) -> T:
    """Done in a thread: documents of this size take up to seconds."""
    try:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    except ImportError as error:
        raise ToolFailed(
            f"md_exporter needs {error.name}: pip install 'triolet[documents]'", "ToolInvokeError"
        ) from None


async def _to_docx(given: Given) -> ToolOutput:
    text = _text(given)
    template = None
    if given.value("docx_template_file") is not None:
        file = given.files("docx_template_file")[0]
        template = await given.services.files.read(file, _MOST_TEMPLATE_BYTES)
    try:
        content = await _made(lambda: docx_of(text, template))
    except ValueError as error:
        raise given.wrong(f"'md_text': {error}") from None
    return ToolOutput(files=[_keep(given, content, "docx", _DOCX)])


def _html(text: str) -> str:
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


async def _to_html(given: Given) -> ToolOutput:
    text = _text(given)
    content = await _made(lambda: f"{_HEAD}{_html(text)}{_FOOT}".encode())
    return ToolOutput(files=[_keep(given, content, "html", "text/html")])


async def _to_html_text(given: Given) -> ToolOutput:
    text = _text(given)
    return ToolOutput(text=(await _made(lambda: _html(text).encode())).decode())


async def _to_md(given: Given) -> ToolOutput:
    content = _text(given).encode()
    return ToolOutput(files=[_keep(given, content, "md", "text/markdown")])


async def _tables(given: Given) -> list[Table]:
    text = _text(given)
    try:
        found = await _made(lambda: tables_of(text)[:MOST_FILES])
    except ValueError as error:
        raise given.wrong(f"'md_text': {error}") from None
    if not found:
        raise ToolFailed("md_exporter: there is no table in 'md_text'", "ToolInvokeError")
    return found


async def _to_csv(given: Given) -> ToolOutput:
    tables = await _tables(given)
    written = await _made(lambda: [csv_of(rows).encode("utf-8-sig") for rows in tables])
    return ToolOutput(files=_each(given, written, "csv", "text/csv"))


async def _to_json(given: Given) -> ToolOutput:
    lines = given.text("output_style", "jsonl") == "jsonl"
    tables = await _tables(given)
    written = await _made(lambda: [json_of(rows, lines=lines).encode() for rows in tables])
    extension = "jsonl" if lines else "json"
    return ToolOutput(files=_each(given, written, extension, "application/json"))


async def _to_code(given: Given) -> ToolOutput:
    text = _text(given)
    blocks = await _made(lambda: list(islice(code_blocks(text), MOST_FILES)))
    files = []
    for number, (language, source) in enumerate(blocks, 1):
        known = language in _EXTENSIONS_KNOWN
        extension = _EXTENSIONS.get(language, language if known else "txt")
        numbered = number if len(blocks) > 1 else 0
        files.append(_keep(given, source.encode(), extension, "text/plain", numbered))
    return ToolOutput(files=files)


def _each(given: Given, written: list[bytes], extension: str, kind: str) -> list[File]:
    return [
        _keep(given, content, extension, kind, number if len(written) > 1 else 0)
        for number, content in enumerate(written, 1)
    ]


async def _to_xlsx(given: Given) -> ToolOutput:
    tables = await _tables(given)
    as_text = given.flag("force_text_value", True)
    content = await _made(lambda: _workbook(tables, as_text=as_text))
    return ToolOutput(files=[_keep(given, content, "xlsx", _XLSX)])


def _workbook(tables: list[list[list[str]]], *, as_text: bool) -> bytes:
    """Formulas stay texts: what a model wrote is not to be run by a spreadsheet."""
    from openpyxl import Workbook  # type: ignore[import-untyped]

    book = Workbook(write_only=True)
    for number, rows in enumerate(tables, 1):
        sheet = book.create_sheet(f"Sheet{number}")
        for row in rows:
            sheet.append([_cell(cell, as_text=as_text) for cell in row])
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


def _cell(text: str, *, as_text: bool) -> str | int | float:
    plain = "".join(letter for letter in text if letter >= " " or letter in "\t\n")
    if not as_text:
        for read in (int, float):
            try:
                return read(plain)
            except ValueError:
                continue
    return "'" + plain if plain.startswith("=") else plain
