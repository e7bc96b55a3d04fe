"""What is shown and written of cells that have been simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.simulate.comparing import compare, compared_text, with_best_weighting
from bench.simulate.figures import Row
from bench.simulate.planning import Scene
from bench.simulate.plot import page
from bench.simulate.ratios import Ratio, ratios_of
from bench.simulate.summary import misses_of, summary_markdown, summary_text
from bench.simulate.table import Line, lines_of, markdown, text
from bench.version import triolet_version

__all__ = ["Files", "Report"]


class _Document(msgspec.Struct):
    """What `--json` writes."""

    command: str
    version: str
    """Triolet's; empty if it is not installed."""
    fleets: Mapping[str, Sequence[str]]
    """By workload: each replica's profile."""
    workloads: Mapping[str, Sequence[Row]]
    """By workload: one row for each policy, limit and seed."""


class Files(NamedTuple):
    """Where it is written; None: nowhere."""

    json: Path | None = None
    markdown: Path | None = None
    ratios: Path | None = None
    html: Path | None = None


class Report:
    """What is shown and written of what has been simulated."""

    def __init__(self, scenes: Sequence[Scene], judged: str, seeds: int) -> None:
        self.rows: list[Row] = []
        self.judged = judged
        self._scenes = {scene.title: scene for scene in scenes}
        self._seeds = seeds

    def table_of(self, title: str) -> str:
        """The table of one scene, under its title."""
        lines = lines_of([row for row in self.rows if row.workload == title])
        return f"\n{title}: {self._scenes[title].about}\n{text(with_best_weighting(lines))}"

    def _ratios(self) -> list[Ratio]:
        """To the best; of the scenes asked for, without those played for comparison."""
        tables = self._tables()
        return ratios_of({title: tables[title] for title in tables if not self._scenes[title].like})

    def closing(self) -> str:
        """What is printed at the end."""
        compared = compare(list(self._scenes.values()), self._tables())
        parts = [f"\n{compared_text(compared)}"] if compared else []
        ratios = self._ratios()
        if len({ratio.policy for ratio in ratios}) > 1:
            parts.append("\n" + summary_text(ratios, self.judged, self._seeds))
        return "\n".join(parts)

    def misses(self, within: float) -> list[str]:
        """A line for each figure of the judged policy that is too far from the best."""
        return misses_of(self._ratios(), self.judged, within)

    def write(self, command: str, files: Files) -> None:
        """Write what there is; `command` is what was asked for."""
        tables, about = self._tables(), {name: each.about for name, each in self._scenes.items()}
        if files.json is not None:
            files.json.write_bytes(self._json(command))
        if files.markdown is not None:
            parts = [f"### {name}\n{about[name]}\n\n{markdown(tables[name])}\n" for name in tables]
            files.markdown.write_text("\n".join(parts), encoding="utf-8")
        if files.ratios is not None:
            summary = summary_markdown(self._ratios(), self.judged, self._seeds)
            files.ratios.write_text(summary, encoding="utf-8")
        if files.html is not None:
            files.html.write_text(page(tables, about, command), encoding="utf-8")

    def _tables(self) -> dict[str, list[Line]]:
        return {
            title: with_best_weighting(lines_of(rows)) for title, rows in self._by_title().items()
        }

    def _by_title(self) -> dict[str, list[Row]]:
        by_title: dict[str, list[Row]] = {}
        for row in self.rows:
            by_title.setdefault(row.workload, []).append(row)
        return by_title

    def _json(self, command: str) -> bytes:
        fleets = {title: scene.fleet for title, scene in self._scenes.items()}
        document = _Document(command, triolet_version() or "", fleets, self._by_title())
        return msgspec.json.format(msgspec.json.encode(document), indent=1)
