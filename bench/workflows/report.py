"""The results as tables for the terminal, a document and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Final

import msgspec

from bench.simulate.summary import aligned
from bench.workflows.cases import CASES
from bench.workflows.figures import OURS, Figure, Ratio, Spread, figures, ratios
from bench.workflows.graphon import GRAPHON, READ_ONCE
from bench.workflows.session import Results

__all__ = ["Report"]

Rows = Sequence[Sequence[str]]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one benchmark found, and how to print it."""

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, object]
    results: Results
    recorded: Mapping[str, float] = {}
    """graphon's CPU per run, in ms, where it was not measured; by case."""

    def text(self) -> str:
        """For a terminal."""
        return "\n\n".join(self._parts(lambda rows: "\n".join(aligned(rows)))) + "\n"

    def markdown(self) -> str:
        """For docs/."""
        head = [
            "# What the workflow engine costs",
            "Measured by `scripts/bench engine`: contenders are processes on one core each, in "
            "turn; their CPU is read from outside. Medians over the repetitions, lowest and "
            "highest in brackets.",
        ]
        return "\n\n".join([*head, *self._parts(_markdown)]) + "\n"

    def json(self) -> str:
        """Every figure and every measurement."""
        results = self.results
        content: dict[str, Any] = {
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "settings": dict(self.settings),
            "figures": [
                {**one._asdict(), **{name: getattr(one, name)._asdict() for name in _SPREADS}}
                for one in figures(results.measured).values()
            ],
            "ratios": [
                {**one._asdict(), "interval": one.interval and one.interval._asdict()}
                for one in self._ratios()
            ],
            "recorded_cpu_ms": dict(self.recorded),
            **msgspec.to_builtins(results),
        }
        return json.dumps(content, indent=1) + "\n"

    def _ratios(self) -> list[Ratio]:
        return ratios(self.results.measured, dict(self.recorded))

    def _parts(self, table: Callable[[Rows], str]) -> list[str]:
        parts = [table(self._run_rows())]
        if len(ratio_rows := self._ratio_rows()) > 1:
            about = f"Runs per CPU second: how many times those of another {OURS} has, with 95 %"
            parts += [f"{about} intervals over the repetitions:", table(ratio_rows)]
        if len(other_rows := self._other_rows()) > 1:
            parts.append(table(other_rows))
        if len(aims := self._aim_rows()) > 1:
            parts.append(table(aims))
        parts += [f"note: {note}" for note in self.results.notes]
        return [*parts, self._footing()]

    def _run_rows(self) -> list[list[str]]:
        rows = [["case", "at once", "contender", "CPU ms/run", "runs/s", "runs/CPU s"]]
        found = sorted(figures(self.results.measured).values(), key=_place)
        for one in found:
            spreads = (one.cpu_ms, one.runs_per_s, one.runs_per_cpu_s)
            title = CASES[one.case].title
            rows.append([title, str(one.concurrency), one.contender, *map(_spread, spreads)])
        for case, cpu_ms in self.recorded.items():
            cells = [_number(cpu_ms), "-", _number(1e3 / cpu_ms)]
            rows.append([CASES[case].title, "1", "graphon, as recorded", *cells])
        return rows

    def _ratio_rows(self) -> list[list[str]]:
        rows = [["case", "at once", "than", "times"]]
        for one in sorted(self._ratios(), key=lambda one: (_NUMBERS[one.case], one.concurrency)):
            between = ""
            if one.interval is not None:
                between = f" [{_number(one.interval.low)}, {_number(one.interval.high)}]"
            than = f"{one.than}, as recorded" if one.recorded else one.than
            times = _number(one.times) + between
            rows.append([CASES[one.case].title, str(one.concurrency), than, times])
        return rows

    def _other_rows(self) -> list[list[str]]:
        rows = [["figure", "contender", "value"]]
        for one in self.results.compiling:
            rows.append(["read the export of 50 nodes", one.contender, f"{one.read_ms:.3g} ms"])
            rows.append(["compile its graph", one.contender, f"{one.compile_ms:.3g} ms"])
        for waiting in self.results.waiting:
            title = f"memory of one of {waiting.runs} runs that wait"
            value = f"{waiting.bytes_per_run / 1e3:.3g} kB"
            rows.append([title, waiting.contender, value])
        for contender in dict.fromkeys(one.contender for one in self.results.streaming):
            own = [one.cpu_us for one in self.results.streaming if one.contender == contender]
            rows.append(["CPU of a streamed token", contender, f"{median(own):.3g} us"])
        return rows

    def _aim_rows(self) -> list[list[str]]:
        """What the engine is to reach, of ten nodes in a row at their dearest, one at a time."""
        rows = [["aim", "limit", "found", ""]]
        own = figures(self.results.measured).get((OURS, _JUDGED, 1))
        if own is not None:
            rows.append(_aim("CPU of a 10-node run, ms", own.cpu_ms.median, at_most=1.0))
        for one in self._ratios():
            if one.case == _JUDGED and one.concurrency == 1 and one.than in _TOLD:
                rows.append(_aim(_TOLD[one.than], one.times, at_least=50.0))
        for compiling in self.results.compiling:
            if compiling.contender == OURS:
                rows.append(_aim("compile 50 nodes, ms", compiling.compile_ms, at_most=20.0))
        for waiting in self.results.waiting:
            kilobytes = waiting.bytes_per_run / 1e3
            rows.append(_aim("memory of a run that waits, kB", kilobytes, at_most=30.0))
        return rows

    def _footing(self) -> str:
        facts = [f"{name}: {value}" for name, value in self.machine.items()]
        facts += [f"{name}: {version}" for name, version in self.versions.items()]
        facts += [f"{name}: {value}" for name, value in self.settings.items()]
        return "; ".join(facts)


def _aim(
    title: str, found: float, *, at_most: float | None = None, at_least: float | None = None
) -> list[str]:
    if at_most is not None:
        return [title, f"<= {at_most:g}", _number(found), "kept" if found <= at_most else "missed"]
    assert at_least is not None
    return [title, f">= {at_least:g}", _number(found), "kept" if found >= at_least else "missed"]


_JUDGED: Final = "chain-10"
_TOLD: Final = {
    GRAPHON: "runs per CPU second, times graphon's, which reads the export in each run",
    READ_ONCE: "runs per CPU second, times graphon's with the export read once",
}
_SPREADS: Final = ("cpu_ms", "runs_per_s", "runs_per_cpu_s")
_NUMBERS: Final = {name: number for number, name in enumerate(CASES)}


def _place(figure: Figure) -> tuple[int, int, str]:
    return (_NUMBERS[figure.case], figure.concurrency, figure.contender)


def _spread(value: Spread) -> str:
    if value.low == value.high:
        return _number(value.median)
    return f"{_number(value.median)} ({_number(value.low)} to {_number(value.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _markdown(rows: Rows) -> str:
    heading, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([heading, "|" + " --- |" * len(rows[0]), *body])
