"""The comparison as a table for the terminal, a document and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from bench.clients.compare import LIMIT, METRICS, Comparison, Metric, Spread, compare, spread
from bench.clients.result import Load, Result
from bench.clients.server import Pace, Seen
from bench.clients.session import Run
from bench.report.layout import aligned

__all__ = ["Report"]

Table = Callable[[Sequence[Sequence[str]]], str]
"""Lays rows out; the first row is the heading."""

_MARKS: Final = {"agrees": "", "explained": " *", "scatter": " ~", "differs": " !", "not given": ""}
_LEGEND: Final = (
    "Medians over the repetitions; in brackets theirs over ours. Without a mark: within "
    f"{LIMIT:.0%}. *: off by a known cause; ~: the repetitions overlap; !: not explained."
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that one session found."""

    own: str
    """The name of our client."""
    load: Load
    pace: Pace
    repeat: int
    direct: bool = False
    """Whether Triolet was left out."""
    runs: Sequence[Run]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    notes: Sequence[str]
    """What is missing or went wrong."""

    @property
    def comparisons(self) -> list[Comparison]:
        """Every number of every client beside ours."""
        ttft_ms = {}
        for name in self._results():
            seen = self._seen(name)
            if seen.ttft_count:
                ttft_ms[name] = seen.ttft_s / seen.ttft_count * 1e3
        return compare(self._results(), self.own, ttft_ms)

    @property
    def agrees(self) -> bool:
        """Whether something was compared, no request failed, and no difference is unexplained."""
        found = [one for one in self.comparisons if one.ratio is not None]
        return (
            bool(found)
            and not any(one.verdict == "differs" for one in found)
            and not any(run.result.errors for run in self.runs)
        )

    def text(self) -> str:
        """For a terminal."""
        return "\n\n".join(self._parts(_aligned, "")) + "\n"

    def markdown(self) -> str:
        """For docs/."""
        return "\n\n".join(self._parts(_markdown, "# ")) + "\n"

    def json(self) -> str:
        """Every run and every comparison."""
        content: dict[str, Any] = {
            "load": self.load,
            "replicas": self.pace._asdict(),
            "repetitions": self.repeat,
            "direct": self.direct,
            "versions": dict(self.versions),
            "machine": dict(self.machine),
            "runs": [
                {
                    "repetition": run.repetition + 1,
                    "result": run.result,
                    "replicas": run.seen._asdict(),
                }
                for run in self.runs
            ],
            "comparisons": [_plain(one) for one in self.comparisons],
            "notes": list(self.notes),
            "agrees": self.agrees,
        }
        return msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n"

    def _results(self) -> dict[str, list[Result]]:
        """By client, in the order of first coming; ours first, also when it has none."""
        found: dict[str, list[Result]] = {self.own: []}
        for run in self.runs:
            found.setdefault(run.result.client, []).append(run.result)
        return found

    def _seen(self, client: str | None = None) -> Seen:
        """What the replicas did in all runs, or in those of one client."""
        looks = [run.seen for run in self.runs if client is None or run.result.client == client]
        return Seen(*map(sum, zip(Seen(*[0.0] * len(Seen._fields)), *looks, strict=True)))

    def _parts(self, table: Table, heading: str) -> list[str]:
        parts = [
            f"{heading}The same load by {len(self.versions)} clients",
            self._about(),
            table(self._rows()),
            _LEGEND,
            _listed(self._reasons()),
            _listed(self._counts()),
            _listed([f"note: {note}" for note in self.notes]),
            "; ".join(f"{name}: {value}" for name, value in self.machine.items()),
        ]
        return [part for part in parts if part]

    def _about(self) -> str:
        load, pace = self.load, self.pace
        before = "no Triolet," if self.direct else "Triolet before"
        return (
            f"{load.requests} streamed chat requests, {load.concurrency} at once, "
            f"{load.input_tokens} tokens in and {load.output_tokens} out, after "
            f"{load.warmup_requests} to warm up; {self.repeat} repetitions, the order reversed "
            f"each time; {before} {pace.replicas} demo replicas that give the first token after "
            f"{pace.ttft_s * 1e3:g} ms and {pace.tokens_per_s:g} tokens/s from then on."
        )

    def _rows(self) -> list[list[str]]:
        """One line a metric: what the replicas say, ours, theirs."""
        results = self._results()
        compared = {(one.client, one.metric): one for one in self.comparisons}
        others = [name for name in results if name != self.own]
        names = [f"{name} {self.versions.get(name, '')}".strip() for name in others]
        rows = [["", "the replicas", self.own, *names]]
        for metric in METRICS:
            ours = _number(spread(metric, results[self.own]))
            cells = [_cell(compared[name, metric]) for name in others]
            rows.append([_title(metric), self._by_replicas(metric), ours, *cells])
        return rows

    def _by_replicas(self, metric: Metric) -> str:
        """The same average as the replicas have it, over all runs, warm-up included."""
        seen = self._seen()
        averages = {
            "times.ttft_avg_ms": (seen.ttft_s, seen.ttft_count),
            "times.itl_avg_ms": (seen.itl_s, seen.itl_count),
            "times.latency_avg_ms": (seen.latency_s, seen.latency_count),
        }
        total, count = averages.get(metric.path, (0.0, 0.0))
        return f"{total / count * 1e3:.2f}" if count else ""

    def _reasons(self) -> list[str]:
        """Every reason once, with the numbers that it is for."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for one in self.comparisons:
            if one.reason:
                key = (one.client, one.verdict, one.reason)
                found.setdefault(key, []).append(one.metric.title)
        return [
            f"{client}, {', '.join(titles)}: {verdict}: {reason}"
            for (client, verdict, reason), titles in found.items()
        ]

    def _counts(self) -> list[str]:
        """Requests as a client and as the replicas counted them; what the client said of itself."""
        lines = []
        for name, results in self._results().items():
            sent, failed = sum(one.sent for one in results), sum(one.errors for one in results)
            remarks = sorted({remark for one in results for remark in one.remarks})
            lines.append(
                f"{name}: {len(results)} runs, {sent} requests measured, {failed} failed; the "
                f"replicas ended {self._seen(name).requests:.0f}, warm-up included"
                + "".join(f'; it says: "{remark}"' for remark in remarks)
            )
        return lines


def _title(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def _cell(one: Comparison) -> str:
    if one.ratio is None:
        return _number(one.theirs)
    return f"{_number(one.theirs)} ({one.ratio:.3f}){_MARKS[one.verdict]}"


def _number(value: Spread | None) -> str:
    return "-" if value is None else f"{value.median:.2f}"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plain(one: Comparison) -> dict[str, Any]:
    return {
        "client": one.client,
        "metric": one.metric.path.removeprefix("times."),
        "ours": None if one.ours is None else one.ours._asdict(),
        "theirs": None if one.theirs is None else one.theirs._asdict(),
        "ratio": one.ratio,
        "verdict": one.verdict,
        "reason": one.reason,
    }


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    return aligned(rows, left=len(rows[0]))


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])
