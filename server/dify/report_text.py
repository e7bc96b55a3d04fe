"""A report as lines for people: short, aligned, with what to type next. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from server.dify.report import Finding, Report

__all__ = ["columns", "printable", "report_lines"]

_LABELS = {"unsupported": "cannot", "missing": "missing", "warning": "warning", "info": "note"}
_MOST_FINDINGS = 40


def report_lines(report: Report) -> list[str]:
    """What was found, what it needs, and whether it runs."""
    lines = columns([*_found(report), *_needs(report)], indent="  ")
    lines += [line for finding in _shown(report) for line in _finding(finding)]
    left_out = len(report.findings) - len(_shown(report))
    if left_out:
        lines.append(f"  and {left_out} more; --json has all")
    return [*lines, _verdict(report)]


def _shown(report: Report) -> Sequence[Finding]:
    return report.findings[:_MOST_FINDINGS]


def _found(report: Report) -> Iterator[tuple[str, ...]]:
    yield "format", report.version
    if report.nodes:
        kinds = ", ".join(f"{type} {count}" for type, count in report.nodes.items())
        yield "nodes", f"{sum(report.nodes.values())}: {kinds}"
    if report.inputs:
        yield "inputs", ", ".join(report.inputs)
    if report.features:
        yield "features", ", ".join(report.features)
    if report.dependencies:
        yield "plugins", ", ".join(each.name for each in report.dependencies)


def _needs(report: Report) -> Iterator[tuple[str, ...]]:
    for model in report.models:
        yield "model", model.key.removeprefix("model:"), _bound(model.bound, model.by)
    for base in report.knowledge:
        yield "knowledge", base.id, _bound(base.bound)
    for tool in report.tools:
        name = f"{tool.tool.provider_id or tool.tool.provider_name}:{tool.tool.name}"
        yield "tool", name, "built in" if tool.kind == "native" else _bound("", ok=tool.bound)
    for server in report.mcp_servers:
        yield "MCP server", server.url, "named by the file"
    for variable in report.environment:
        yield "environment", variable.name, "empty" if variable.empty else "has a value"
    if report.code.languages:
        allowed = "allowed" if report.code.allowed else "not allowed"
        yield "code", ", ".join(report.code.languages), allowed


def _bound(name: str | None, by: str = "", *, ok: bool = True) -> str:
    if name is None or not ok:
        return "not bound"
    said = f"-> {name}" if name else "bound"
    return f"{said} ({by})" if by and by != "binding" else said


def _finding(finding: Finding) -> Iterator[str]:
    where = finding.place or "the file"
    line = "" if finding.line is None else f", line {finding.line}"
    yield f"  {_LABELS[finding.severity]}: {finding.message}"
    yield f"      at {where}{line}"
    if finding.fix:
        yield f"      try {finding.fix}"


def _verdict(report: Report) -> str:
    if report.is_runnable:
        return "It can run."
    stops = len(report.of("unsupported"))
    if stops:
        return f"It cannot run here: {_counted(stops, 'thing')} not supported."
    return f"It can run once {_counted(len(report.of('missing')), 'thing')} supplied."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun} is" if count == 1 else f"{count} {noun}s are"


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows of cells, aligned; the last cell of a row is as long as it is."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths: dict[int, int] = {}
    for row in rows:
        for at, cell in enumerate(row[:-1]):
            widths[at] = max(widths.get(at, 0), min(_width(cell), 60))
    return [indent + "  ".join(_padded(row, widths)) for row in rows]


def _padded(row: Sequence[str], widths: dict[int, int]) -> Iterator[str]:
    for at, cell in enumerate(row[:-1]):
        yield cell + " " * (widths[at] - _width(cell))
    yield from row[-1:]


def printable(text: str) -> str:
    """Names come from files: no control character of theirs reaches the terminal."""
    return "".join(sign if unicodedata.category(sign)[0] != "C" else " " for sign in text)


def _width(text: str) -> int:
    """Columns on a terminal: Chinese and Japanese signs take two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
