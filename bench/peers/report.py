"""The comparison as a table for the terminal, a document and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from bench.peers.figures import CellResult, Figures, median_figures
from bench.peers.gateway import Gateway
from bench.peers.session import Results
from bench.peers.target import DIRECT, Target
from bench.report.layout import aligned, printable

__all__ = ["COLUMNS", "Missing", "Report"]

_LONGEST_REASON: Final = 160
_NAMED_AT_MOST: Final = 4
_NOTHING: Final = "-"


class _Column(NamedTuple):
    key: str
    title: str
    show: Callable[[float], str]
    meaning: str


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _count(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


COLUMNS: Final = (
    _Column("ttft_p50_ms", "TTFT p50", _ms, "time from sending to the first text, median, ms"),
    _Column("ttft_p90_ms", "TTFT p90", _ms, "the same, of nine in ten requests"),
    _Column("ttft_p99_ms", "TTFT p99", _ms, "the same, of 99 in 100 requests"),
    _Column("itl_p50_ms", "ITL p50", _ms, "time between output tokens of a request, median, ms"),
    _Column("itl_p99_ms", "ITL p99", _ms, "the same, of 99 in 100 requests"),
    _Column("latency_p50_ms", "latency p50", _ms, "time from sending to the last text, median, ms"),
    _Column("output_tokens_per_s", "tok/s", _count, "output tokens per second, all requests"),
    _Column("requests_per_s", "req/s", _count, "completed requests per second"),
    _Column("hit_rate", "hits", _percent, "prompt tokens that the replicas had in prefix caches"),
    _Column(
        "skew", "skew", _ratio, "requests at the busiest replica over those at the average one"
    ),
    _Column("cpu_ms_per_request", "CPU/req", _ms, "CPU time of the gateway for each request, ms"),
    _Column(
        "cpu_ms_per_1k_chunks",
        "CPU/1k chunks",
        _ms,
        "CPU time of the gateway for 1,000 chunks with text, their requests' share included, ms",
    ),
    _Column("peak_mb", "peak MB", _count, "most memory the gateway's processes held, MB"),
    _Column("ready_s", "start s", _count, "from its start to the first answer passed on, s"),
)


class Missing(NamedTuple):
    """A gateway that could not be installed."""

    gateway: Gateway
    why: str


@dataclass(frozen=True)
class Report:
    """Everything one comparison found, and how to print it."""

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    workers: Mapping[str, str]
    """How many processes or threads each gateway has, in words."""
    settings: Mapping[str, object]
    about: str
    """The workload in a sentence."""
    targets: Sequence[Target]
    """In the order of the table."""
    results: Results
    missing: Sequence[Missing] = ()

    def text(self) -> str:
        """For a terminal."""
        parts = [aligned(self._rows(), left=2), *self._lines("note: {}"), self._footing()]
        return "\n\n".join(parts) + "\n"

    def markdown(self) -> str:
        """For docs/."""
        parts = [
            "# Triolet and its peers before the same replicas",
            "Measured by `scripts/bench peers`: the same simulated replicas, the same requests "
            "and the same client for each, one after the other, each started afresh. "
            f"{self._basis()} `{DIRECT}` is the client at the replicas themselves.",
            self.about,
            _table(self._rows()),
            "\n".join(f"- **{column.title}**: {column.meaning}." for column in COLUMNS),
            "\n".join(
                f"- {name} {version}: {self.workers[name]}." for name, version in self._who()
            ),
            *self._lines("Note: {}."),
            self._footing(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def json(self) -> str:
        """Every cell, and the medians."""
        content = {
            "machine": self.machine,
            "versions": self.versions,
            "workers": self.workers,
            "settings": self.settings,
            "workload": self.about,
            "medians": [
                {"target": target.name, "policy": target.policy, "figures": self._median(target)}
                for target in self.targets
            ],
            "cells": self.results.cells,
            "missing": {one.gateway.name: one.why for one in self.missing},
            "notes": self._notes(),
            "interrupted": self.results.interrupted,
        }
        return msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n"

    def _rows(self) -> list[list[str]]:
        heading = ["target", "policy", *(column.title for column in COLUMNS), "errors"]
        rows = [self._row(target) for target in self.targets]
        rows += [
            _empty_row(one.gateway.name, "all", f"not installed: {one.why}") for one in self.missing
        ]
        return [heading, *rows]

    def _row(self, target: Target) -> list[str]:
        cells = self._cells(target)
        failures = [cell.failure for cell in cells if cell.failure is not None]
        if not cells or len(failures) == len(cells):
            why = f"not measured: {failures[0]}" if failures else "not measured"
            return _empty_row(target.name, target.policy, why)
        figures = self._median(target)
        numbers = [_cell(column, getattr(figures, column.key)) for column in COLUMNS]
        return [target.name, target.policy, *numbers, _errors(cells)]

    def _cells(self, target: Target) -> list[CellResult]:
        place = (target.name, target.policy)
        return [cell for cell in self.results.cells if (cell.target, cell.policy) == place]

    def _median(self, target: Target) -> Figures:
        return median_figures(cell.figures for cell in self._cells(target) if cell.failure is None)

    def _basis(self) -> str:
        measured = [cell.repetition for cell in self.results.cells if cell.failure is None]
        repetitions = max(measured, default=0) + 1
        return "Medians over the repetitions." if repetitions > 1 else "One repetition."

    def _who(self) -> Iterable[tuple[str, str]]:
        return ((name, version) for name, version in self.versions.items() if name in self.workers)

    def _notes(self) -> list[str]:
        """Notes, failures and warnings; one kind of warning is told once, with who has it."""
        told: dict[str, dict[str, str]] = {}
        for cell in self.results.cells:
            for warning in cell.warnings:
                kind = told.setdefault(warning.partition(":")[0], {})
                kind.setdefault(f"{cell.target}:{cell.policy}", warning)
        warnings = [_told_once(by_target) for by_target in told.values()]
        failures = [
            f"{cell.target}:{cell.policy} was not measured: {printable(cell.failure, 500)}"
            for cell in self.results.cells
            if cell.failure is not None
        ]
        return [*self.results.notes, *failures, *warnings]

    def _lines(self, form: str) -> list[str]:
        return [form.format(note.rstrip(".")) for note in self._notes()]

    def _footing(self) -> str:
        facts = [f"{name}: {value}" for name, value in self.machine.items()]
        facts += [f"{name} {version}" for name, version in self.versions.items()]
        facts += [f"{name}: {value}" for name, value in self.settings.items()]
        return "; ".join(facts)


def _told_once(by_target: Mapping[str, str]) -> str:
    """A warning as the first target has it, and who else has one of its kind."""
    first, *others = by_target
    named = ", ".join(others) if len(others) <= _NAMED_AT_MOST else f"{len(others)} others"
    also = f" (and alike at {named})" if others else ""
    return f"{first}: {by_target[first]}{also}"


def _cell(column: _Column, value: float | None) -> str:
    return _NOTHING if value is None else column.show(value)


def _empty_row(name: str, policy: str, why: str) -> list[str]:
    return [name, policy, *[_NOTHING] * len(COLUMNS), printable(why, _LONGEST_REASON)]


def _errors(cells: Sequence[CellResult]) -> str:
    total: Counter[str] = Counter()
    for cell in cells:
        total.update(cell.errors)
    if not total:
        return "none"
    sent = sum(cell.sent for cell in cells)
    kinds = ", ".join(f"{count} {kind}" for kind, count in total.most_common())
    return f"{kinds} of {sent}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    rule = "| --- | --- |" + " ---: |" * len(COLUMNS) + " --- |"
    return "\n".join([heading, rule, *body])
