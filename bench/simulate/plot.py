"""The policy table as a picture: one self-contained HTML page of bars, no scripts, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from bench.simulate.table import COLUMNS, Column, Line, best_of

__all__ = ["page"]

_WIDTH: Final = 340
_LABEL: Final = 190
_BAR: Final = 16
_SHOWN: Final = ("p90", "tokens/s", "hit %")

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --paper: #fff; --bar: #8aa4bd; --best: #1b7f5c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ed; --paper: #14181c; --bar: #4d6478; --best: #3fb68b; } }
body { font: 14px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
svg { width: 100%; max-width: 400px; height: auto; }
text { font: 11px system-ui, sans-serif; fill: var(--ink); }
rect { fill: var(--bar); } rect.best { fill: var(--best); }
"""


def page(tables: Mapping[str, Sequence[Line]], about: Mapping[str, str], command: str) -> str:
    """The whole page; `tables` and `about` by workload, `command` is what was run."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>Placement policies, simulated</title><style>{_STYLE}</style>",
        "<h1>Placement policies, simulated</h1>",
        f"<p><code>{escape(command)}</code></p>",
        "<p>Green: the best, and what cannot be told from it. TTFT is drawn on a logarithmic "
        "scale.</p>",
    ]
    for workload, lines in tables.items():
        charts = [_chart(column, lines) for column in COLUMNS if column.title in _SHOWN]
        parts.append(
            f"<h2>{escape(workload)}</h2><p>{escape(about.get(workload, ''))}</p>"
            f"<div class='row'>{''.join(charts)}</div>"
        )
    return "".join(parts) + "</html>\n"


def _chart(column: Column, lines: Sequence[Line]) -> str:
    title = "TTFT p90 (ms)" if column.title == "p90" else column.title
    values = [(line.policy, column.mean(line)) for line in lines]
    known = [(policy, value) for policy, value in values if value is not None]
    best = best_of(column, lines)
    log = column.title == "p90"
    most = max((value for _, value in known), default=0.0)
    least = min((value for _, value in known if value > 0), default=1.0)
    bars = "".join(
        _bar(number, policy, value, _length(value, least, most, log=log), policy in best, column)
        for number, (policy, value) in enumerate(known)
    )
    height = _BAR * (len(known) + 2)
    return (
        f"<svg role='img' viewBox='0 0 {_LABEL + _WIDTH} {height}'>"
        f"<title>{escape(title)} by policy</title>"
        f"<text x='{_LABEL}' y='12' font-weight='600'>{escape(title)}</text>{bars}</svg>"
    )


def _length(value: float, least: float, most: float, *, log: bool) -> float:
    if value <= 0 or most <= 0:
        return 0.0
    room = _WIDTH - 70
    if not log:
        return room * value / most
    # The least one still gets a visible bar.
    return room * (math.log(value / least) + 0.2) / (math.log(most / least) + 0.2)


def _bar(number: int, policy: str, value: float, length: float, best: bool, column: Column) -> str:
    y = _BAR * (number + 1) + 4
    mark = " class='best'" if best else ""
    return (
        f"<text x='{_LABEL - 6}' y='{y + 11}' text-anchor='end'>{escape(policy[:34])}</text>"
        f"<rect x='{_LABEL}' y='{y}' width='{length:.1f}' height='{_BAR - 4}'{mark}/>"
        f"<text x='{_LABEL + length + 4:.1f}' y='{y + 11}'>{format(value, column.form)}</text>"
    )
