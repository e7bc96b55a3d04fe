"""The results as a table for the terminal, a document and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench.relay.figures import (
    FIGURES,
    Figure,
    Run,
    Spread,
    figures,
    load_side_notes,
    load_side_share,
    verdict,
)
from bench.relay.session import Results
from bench.relay.targets import DIRECT, TRIOLET
from bench.relay.workloads import Workload

Table = Callable[[Sequence[Sequence[str]]], str]
"""Lays rows out; the first row is the heading."""


_TOTALS: Final = (
    *("workload", "target", "requests", "events", "events per read", "proxy CPU, s"),
    *("requests/s", "proxy, % of core", "load side, % of core", "TTFT p50, ms", "errors"),
)


@dataclass(frozen=True)
class Report:
    """Everything one benchmark found, and how to print it."""

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, object]
    workloads: Sequence[Workload]
    """Those that were repeated."""
    results: Results

    def text(self) -> str:
        """For a terminal."""
        parts = [
            _aligned(self._figure_rows()),
            "Totals over all repetitions:\n" + _aligned(_total_rows(self.results.runs)),
            *self._workload_lines(),
            *self._held_lines(),
            *self._profile_tables(_aligned),
            *(f"note: {note}" for note in self._notes()),
            self._footing(),
        ]
        return "\n\n".join(parts) + "\n"

    def markdown(self) -> str:
        """For docs/."""
        parts = [
            "# The relay's cost, beside two Rust routers",
            "Measured by `scripts/bench relay`: same fake replica, same client, the proxy alone on "
            "one core. Medians over the repetitions, lowest and highest in brackets.",
            _markdown(self._figure_rows()),
            "## Totals over all repetitions",
            _markdown(_total_rows(self.results.runs)),
            *self._workload_lines(),
            *self._held_lines(),
            *self._profile_tables(_markdown),
            *(f"Note: {note}." for note in self._notes()),
            self._footing(),
        ]
        return "\n\n".join(parts) + "\n"

    def json(self) -> str:
        """Every figure and every run."""
        found = self._figures()
        verdicts = {one.key: verdict(one, found, own=TRIOLET) for one in FIGURES}
        content = {
            "machine": self.machine,
            "versions": self.versions,
            "settings": self.settings,
            "figures": {
                name: {key: value._asdict() for key, value in values.items()}
                for name, values in found.items()
            },
            "verdicts": {key: one._asdict() for key, one in verdicts.items() if one is not None},
            "runs": [asdict(run) for run in self.results.runs],
            "held": [asdict(run) for run in self.results.held],
            "profiles": self.results.profiles,
            "notes": self._notes(),
        }
        return json.dumps(content, indent=1) + "\n"

    def _figures(self) -> dict[str, dict[str, Spread]]:
        return figures(self.results.runs, self.results.held, direct=DIRECT)

    def _notes(self) -> list[str]:
        return [*self.results.notes, *load_side_notes(self.results.runs, direct=DIRECT)]

    def _figure_rows(self) -> list[list[str]]:
        found = self._figures()
        rows = [["", *found, "limit for triolet", "verdict"]]
        for figure in FIGURES:
            cells = [_cell(figure, found[name].get(figure.key)) for name in found]
            title = f"{figure.title}, {figure.unit}" if figure.unit else figure.title
            rows.append([title, *cells, *_verdict_cells(figure, found)])
        return rows

    def _workload_lines(self) -> list[str]:
        lines = [f"- {workload.name}: {workload.title}" for workload in self.workloads]
        return ["\n".join(lines)] if lines else []

    def _held_lines(self) -> list[str]:
        lines = []
        for run in self.results.held:
            memory = ""
            if run.idle_bytes is not None and run.held_bytes is not None:
                memory = f"{run.idle_bytes / 1e6:.1f} MB idle, {run.held_bytes / 1e6:.1f} MB held, "
            lines.append(
                f"{run.streams} slow streams at {run.target}: {memory}{_errors([run.errors])}"
            )
        return ["\n".join(f"- {line}" for line in lines)] if lines else []

    def _profile_tables(self, table: Table) -> list[str]:
        return [
            f"Where triolet's CPU goes, {workload} (share of samples by innermost function):\n\n"
            + table([["share", "function"], *([f"{share:.1%}", name] for share, name in top)])
            for workload, top in self.results.profiles.items()
        ]

    def _footing(self) -> str:
        facts = [f"{name}: {value}" for name, value in self.machine.items()]
        facts += [f"{name} {version}" for name, version in self.versions.items()]
        facts += [f"{name}: {value}" for name, value in self.settings.items()]
        sources = sorted({run.cpu_source for run in self.results.runs if run.cpu_source})
        facts.append(f"CPU time read from: {', '.join(sources) or 'nothing'}")
        return "; ".join(facts)


def _cell(figure: Figure, value: Spread | None) -> str:
    if value is None:
        return "-"
    if figure.key == "errors" or value.low == value.high:
        return _number(value.median)
    return f"{_number(value.median)} ({_number(value.low)} to {_number(value.high)})"


def _number(value: float) -> str:
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict_cells(figure: Figure, found: Mapping[str, Mapping[str, Spread]]) -> list[str]:
    given = verdict(figure, found, own=TRIOLET)
    if given is None:
        return ["", ""]
    ratio = "" if given.ratio is None else f"{given.ratio:.2f} x, "
    return [given.limit, ratio + ("kept" if given.kept else "missed")]


def _total_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Raw sums per workload and target, so that every figure can be checked by hand."""
    rows = [list(_TOTALS)]
    places = dict.fromkeys((run.workload, run.target) for run in runs)
    for workload, target in sorted(places):
        own = [run for run in runs if (run.workload, run.target) == (workload, target)]
        rows.append([workload, target, *_totals(own)])
    return rows


def _totals(own: Sequence[Run]) -> list[str]:
    wall_s = sum(run.wall_s for run in own)
    requests = sum(run.requests for run in own)
    events, reads = sum(run.events for run in own), sum(run.reads for run in own)
    cpus = [run.cpu_s for run in own if run.cpu_s is not None]
    ttft = sorted(run.ttft_p50_s for run in own)[len(own) // 2]
    load_side = sum(load_side_share(run) * run.wall_s for run in own) / wall_s
    return [
        f"{requests:.0f}",
        f"{events}",
        f"{events / reads:.2g}" if reads else "-",
        f"{sum(cpus):.3f}" if cpus else "-",
        f"{requests / wall_s:.0f}",
        f"{sum(cpus) / wall_s:.0%}" if cpus else "-",
        f"{load_side:.0%}",
        f"{ttft * 1e3:.3g}",
        _errors(run.errors for run in own),
    ]


def _errors(counted: Iterable[Mapping[str, int]]) -> str:
    total: Counter[str] = Counter()
    for one in counted:
        total.update(one)
    return ", ".join(f"{count} {kind}" for kind, count in total.items()) or "no errors"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([heading, "|" + " --- |" * len(rows[0]), *body])
