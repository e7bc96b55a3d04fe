"""Aligned plain text: columns that line up in any terminal, in a file and in a pipe."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["aligned", "figure", "milliseconds", "printable", "share"]


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells as lines; the first row is the heading, the first `left` columns are text."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(row, widths, left) for row in rows]
    return "\n".join([lines[0], rule, *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = [
        cell.ljust(width) if place < left else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def figure(value: float | None) -> str:
    """Two decimals and thousands separated, as GenAI-Perf prints; `N/A` for what is not there."""
    return "N/A" if value is None else f"{value:,.2f}"


def milliseconds(value: float | None) -> str:
    """With as many decimals as matter."""
    if value is None:
        return "N/A"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def share(value: float | None) -> str:
    """A part of one as a percentage."""
    return "N/A" if value is None else f"{value:.1%}"


def printable(text: str, limit: int = 200) -> str:
    """Text from outside on one line: control characters (a terminal obeys them) are spelled out."""
    shown = "".join(
        char if unicodedata.category(char)[0] != "C" else f"\\x{ord(char):02x}" for char in text
    )
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
