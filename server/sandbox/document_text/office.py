"""Word and Excel files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime, time
from typing import Any

from server.sandbox.document_text.archives import checked
from server.sandbox.document_text.tables import markdown_table

__all__ = ["docx_text", "xlsx_text"]


def docx_text(data: bytes) -> str:
    """Paragraphs and tables in their order, tables as Markdown."""
    import docx
    from docx.table import Table

    document = docx.Document(io.BytesIO(checked(data)))
    parts = []
    for block in document.iter_inner_content():
        text = _word_table(block) if isinstance(block, Table) else block.text
        if text is not None:
            parts.append(text)
    return "\n".join(parts)


def _word_table(table: Any) -> str | None:
    rows = [[cell.text.replace("\n", "<br>") for cell in row.cells] for row in table.rows]
    if not any(cell.strip() for row in rows for cell in row):
        return None
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    lines.insert(1, "| " + " | ".join(["---"] * len(rows[0])) + " |\n")
    return "".join(lines)


def xlsx_text(data: bytes) -> str:
    """A table for each sheet, empty rows left out; formulas as the values last computed."""
    import openpyxl  # type: ignore[import-untyped]

    book = openpyxl.load_workbook(io.BytesIO(checked(data)), read_only=True, data_only=True)
    try:
        tables = [markdown_table(_rows(sheet)) for sheet in book.worksheets]
    finally:
        book.close()
    return "".join(f"{table}\n" for table in tables if table)


def _rows(sheet: Any) -> Iterator[list[str]]:
    """Sheets say how large they are, and need not be right. Rows are as wide as the first."""
    sheet.reset_dimensions()
    width = 0
    for row in sheet.iter_rows(values_only=True):
        cells = [_cell(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            width = max(width, len(cells))
            yield cells + [""] * (width - len(cells))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return str(value.date())
    return " ".join(str(value).splitlines())
