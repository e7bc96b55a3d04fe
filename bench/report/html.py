"""The report as one HTML file: no script, no font, no request to anywhere.

Everything in it that came from outside (model names, error texts, command lines) is escaped; the
page's own policy forbids scripts and loads in case something was missed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import count
from typing import Final

from bench.report.layout import figure, milliseconds, share
from bench.report.metrics import Analysis, Metrics
from bench.report.page_style import STYLE
from bench.report.plots import run_charts, sweep_charts
from bench.report.run import Run
from bench.report.svg import Chart
from bench.report.sweep import knee_line, sweep_rows
from bench.report.table import latency_rows, load_label, outcome_line, probe_rows, throughput_rows

__all__ = ["document", "page", "table_html"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(analyses: Sequence[Analysis], *, title: str = "Triolet bench") -> str:
    """One report over one run or the load points of a sweep."""
    numbers = count(1)
    return document(
        title,
        [
            *_head(analyses),
            *(_sweep(analyses, numbers) if len(analyses) > 1 else ()),
            *(part for one in analyses for part in _run(one, numbers, heading=len(analyses) > 1)),
            *_identity(analyses),
        ],
    )


def document(title: str, body: Sequence[str]) -> str:
    """A whole page; `body` is HTML, the title is not."""
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def table_html(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table whose first row is the heading."""
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f"<div class='wide'><table>{named}<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _head(analyses: Sequence[Analysis]) -> Iterator[str]:
    targets = dict.fromkeys(f"{one.run.model} at {one.run.url}" for one in analyses)
    yield "<p>" + "<br>".join(map(escape, targets)) + "</p>"
    for one in analyses:
        label = f"{load_label(one.run)}: " if len(analyses) > 1 else ""
        for warning in one.metrics.warnings:
            yield f"<p class='warn'>Warning: {escape(label + warning)}</p>"


def _sweep(analyses: Sequence[Analysis], numbers: Iterator[int]) -> Iterator[str]:
    yield "<h2>Sweep</h2>"
    yield table_html(sweep_rows(analyses), "One line a load point")
    yield f"<p>{escape(knee_line(analyses))}</p>"
    yield _charts(sweep_charts(analyses), numbers)


def _run(analysis: Analysis, numbers: Iterator[int], *, heading: bool) -> Iterator[str]:
    run, metrics = analysis.run, analysis.metrics
    yield f"<h2>{escape(load_label(run).capitalize() if heading else 'Results')}</h2>"
    if metrics.distributions:
        caption = "Of requests that succeeded in the measured phase"
        yield table_html(latency_rows(metrics.distributions), caption)
    if metrics.rates is not None:
        yield table_html(throughput_rows(metrics))
    yield f"<p>{escape(outcome_line(metrics))}</p>"
    yield from _facts(metrics)
    yield _charts(run_charts(analysis), numbers)


def _charts(charts: Sequence[Chart], numbers: Iterator[int]) -> str:
    return "<div class='charts'>" + "".join(one.svg(next(numbers)) for one in charts) + "</div>"


def _facts(metrics: Metrics) -> Iterator[str]:
    if metrics.outcomes.failures:
        rows = [["Error", "requests", "status", "example"]]
        for one in metrics.outcomes.failures:
            status = "" if one.status is None else str(one.status)
            rows.append([one.kind, f"{one.count:,}", status, (one.message or "")[:300]])
        yield table_html(rows)
    if metrics.turns:
        rows = [["Time to First Token", "avg ms", "p50 ms", "p90 ms", "p99 ms", "requests"]]
        for name, summary in metrics.turns.items():
            ranks = map(milliseconds, (summary.avg, summary.p50, summary.p90, summary.p99))
            turn = "turn 1" if name == "first" else "later turns"
            rows.append([turn, *ranks, f"{summary.count:,}"])
        yield table_html(rows)
    if metrics.cache is not None:
        cache = metrics.cache
        yield (
            f"<p>Prefix cache: {share(cache.hit_share)} of prompt tokens, as {cache.requests:,} "
            f"of {metrics.outcomes.completed:,} answers report.</p>"
        )
    if metrics.replicas is not None:
        counts = list(metrics.replicas.requests.items())[:64]
        rows = [["Replica", "requests"], *([name, f"{number:,}"] for name, number in counts)]
        yield table_html(rows, f"Busiest over average: {figure(metrics.replicas.skew)}")
    if metrics.probes:
        yield table_html(probe_rows(metrics.probes), "Probes beside the load, and before it")


def _identity(analyses: Sequence[Analysis]) -> Iterator[str]:
    yield "<h2>What was run</h2>"
    seen: list[list[tuple[str, str]]] = []
    for one in analyses:
        facts = [(name, value) for name, value in _identity_facts(one.run) if value]
        if facts not in seen:
            seen.append(facts)
    for facts in seen:
        body = "".join(
            f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in facts
        )
        yield f"<table class='identity'><tbody>{body}</tbody></table>"


def _identity_facts(run: Run) -> Iterator[tuple[str, str]]:
    yield "command line", run.command_line
    yield "started", datetime.fromtimestamp(run.started_at, UTC).isoformat(timespec="seconds")
    yield "load", load_label(run)
    yield "target", f"{run.url} ({run.endpoint_type}, {'streamed' if run.streamed else 'whole'})"
    yield "model", run.model
    yield "workload", run.workload
    yield "seed", "" if run.seed is None else str(run.seed)
    yield "objectives", ", ".join(f"{name}:{limit:g}" for name, limit in run.goodput.items())
    yield "version", run.version
    if run.server is not None:
        yield "target's software", run.server.software or ""
    if run.client_lag is not None:
        lag = run.client_lag
        yield (
            "client lag",
            f"mean {lag.mean_s * 1e3:.2f} ms, p99 {lag.p99_s * 1e3:.2f} ms, "
            f"max {lag.max_s * 1e3:.2f} ms, {lag.late_sends} late sends",
        )
    yield from run.environment.items()
    if run.config:
        yield "options", json.dumps(run.config, indent=1, sort_keys=True)
