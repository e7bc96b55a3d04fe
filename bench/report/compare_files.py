"""What a comparison reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import msgspec

from bench.report.compare import Comparison, Side, comparison_rows, notes
from bench.report.html import document, table_html
from bench.report.metrics import Analysis, analyse
from bench.report.write import find_runs

__all__ = ["comparison_json", "comparison_page", "gather"]


def gather(arguments: Sequence[str]) -> list[Side]:
    """Read `[NAME=]PATH` arguments; those of one name become one side. Raises ReadError.

    Without a NAME here: the name the run was given when it was measured, else the path.
    """
    sides: dict[str, list[Analysis]] = {}
    for argument in arguments:
        name, path = _named(argument)
        for run in find_runs(path):
            sides.setdefault(name or run.name or str(path), []).append(analyse(run))
    return [Side(name, analyses) for name, analyses in sides.items()]


def _named(argument: str) -> tuple[str, Path]:
    name, equals, path = argument.partition("=")
    if equals and not Path(argument).exists():
        return name, Path(path)
    return "", Path(argument)


def comparison_json(comparisons: Sequence[Comparison]) -> str:
    """Everything compared, one object a load."""
    content = msgspec.json.encode({"schema": 1, "comparisons": comparisons})
    return msgspec.json.format(content, indent=2).decode() + "\n"


def comparison_page(comparisons: Sequence[Comparison]) -> str:
    """The tables as one HTML file."""
    body = [part for one in comparisons for part in _section(one)]
    return document("Triolet bench: comparison", body)


def _section(comparison: Comparison) -> Iterator[str]:
    yield f"<h2>{escape(comparison.load.capitalize())}</h2>"
    for warning in comparison.warnings:
        yield f"<p class='warn'>Warning: {escape(warning)}</p>"
    yield table_html(comparison_rows(comparison), f"Ratios to {comparison.sides[0]}")
    for note in notes(comparison):
        yield f"<p>{escape(note)}</p>"
