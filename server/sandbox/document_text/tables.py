"""Tables as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from server.sandbox.document_text.encoding import decoded

__all__ = ["csv_text", "markdown_table", "tsv_text"]

_LONGEST_CELL: Final = 16 << 20


def csv_text(data: bytes) -> str:
    """Values with commas between; the first row is the head."""
    return _table(data, ",")


def tsv_text(data: bytes) -> str:
    """The same with tabs."""
    return _table(data, "\t")


def _table(data: bytes, delimiter: str) -> str:
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.reader(io.StringIO(decoded(data), newline=""), delimiter=delimiter)
    return markdown_table(rows)


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Each row ends with a newline; the rule below the head is as wide as its cells."""
    lines = []
    for row in rows:
        cells = [cell.replace("\r", "").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |\n")
        if len(lines) == 1:
            lines.append("| " + " | ".join("-" * len(cell) for cell in cells) + " |\n")
    return "".join(lines)
