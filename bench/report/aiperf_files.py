"""Results in AIPerf's files: the summary, its CSV, and one line a request.

Shapes after ai-dynamo/aiperf 0.13: `common/models/export_models.py` (`JsonExportData`, schema 1.4),
`exporters/metrics_{json,csv}_exporter.py`, `common/models/record_models.py` (`MetricRecordInfo`).
What Triolet measures beyond it keeps its own name beside AIPerf's; readers allow that.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

import msgspec

from bench.load.record import Record
from bench.report.measures import INTER_CHUNK, MEASURES, chunk_gaps_ms, measured
from bench.report.metrics import Analysis, duration_s, profiled
from bench.report.outcomes import Failure
from bench.report.run import Run
from bench.report.statistics import Summary

__all__ = ["aiperf_csv", "aiperf_json", "jsonl_line"]

_SCHEMA: Final = "1.4"
_COLUMNS: Final = ("avg", "min", "max", "sum", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95",
                   "p99", "std")  # fmt: skip
_TAGS: Final = {
    "schedule_delay": ("credit_to_start_latency", "Credit-to-Start Latency"),
    "effective_request_latency": ("effective_latency", "Effective Latency (CO-aware)"),
    "cached_token_count": ("usage_prompt_cache_read_tokens", "Usage Prompt Cache Read Tokens"),
    "reasoning_token_count": ("reasoning_token_count", "Reasoning Token Count"),
}
"""Where AIPerf has another name for a measure: its tag and header."""


class _Single(msgspec.Struct, frozen=True):
    tag: str
    header: str
    unit: str
    value: float | int


def aiperf_json(analysis: Analysis) -> dict[str, Any]:
    """`profile_export_aiperf.json`."""
    run, metrics = analysis.run, analysis.metrics
    phase = profiled(run.records)
    start = run.started_at + min((record.sent_s for record in phase), default=0.0)
    end = start + (duration_s(phase) or run.duration_s)
    content: dict[str, Any] = {
        "schema_version": _SCHEMA,
        "input_config": _input_config(run),
        "run_info": _run_info(run),
        "was_cancelled": run.was_cancelled,
        "is_complete": not run.was_cancelled,
        "error_summary": [_failure(one) for one in metrics.outcomes.failures],
        "start_time": datetime.fromtimestamp(start, UTC).isoformat(),
        "end_time": datetime.fromtimestamp(end, UTC).isoformat(),
        "triolet": {"version": run.version, "config": run.config, "warnings": metrics.warnings},
    }
    content.update(_distributions(metrics.distributions))
    for one in _singles(analysis):
        content[one.tag] = {"unit": one.unit, "avg": one.value}
    if metrics.warmup:
        content["warmup_metrics"] = dict(_distributions(metrics.warmup))
    return {name: value for name, value in content.items() if value is not None}


def aiperf_csv(analysis: Analysis) -> str:
    """`profile_export_aiperf.csv`: distributions, an empty line, single figures; by tag."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    rows = sorted((_tag(name), summary) for name, summary in analysis.metrics.distributions.items())
    if rows:
        writer.writerow(["Metric", *_COLUMNS])
    for (_, header, unit), summary in rows:
        writer.writerow([_titled(header, unit), *(f"{summary.get(c):.2f}" for c in _COLUMNS)])
    singles = sorted(_singles(analysis), key=lambda one: one.tag)
    if rows and singles:
        writer.writerow([])
    if singles:
        writer.writerow(["Metric", "Value"])
    for one in singles:
        shown = f"{one.value}" if isinstance(one.value, int) else f"{one.value:.2f}"
        writer.writerow([_titled(one.header, one.unit), shown])
    return text.getvalue()


def _titled(header: str, unit: str) -> str:
    return header if unit in ("count", "requests") else f"{header} ({unit})"


def _tag(name: str) -> tuple[str, str, str]:
    """A measure's tag, header and unit."""
    measure = MEASURES[name]
    tag, header = _TAGS.get(name, (name, measure.header))
    return tag, header, measure.unit


def _distributions(summaries: Mapping[str, Summary]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, summary in summaries.items():
        tag, _, unit = _tag(name)
        yield tag, {"unit": unit, **msgspec.structs.asdict(summary)}


def _singles(analysis: Analysis) -> Iterator[_Single]:
    metrics, counted = analysis.metrics, analysis.metrics.outcomes
    if counted.completed:
        yield _Single("request_count", "Request Count", "requests", counted.completed)
    ended = counted.completed + counted.errored
    if ended:
        share = 100 * counted.errored / ended
        title = "Completed Requests (Success + Error)"
        yield _Single("completed_request_count", title, "requests", ended)
        yield _Single("request_error_rate", "Request Error Rate", "%", share)
    if counted.errored:
        yield _Single("error_request_count", "Error Request Count", "requests", counted.errored)
    yield _Single("sent_request_count", "Sent Request Count", "requests", counted.sent)
    yield from _rates(analysis)
    if metrics.goodput is not None:
        judged = metrics.goodput
        yield _Single("good_request_count", "Good Request Count", "requests", judged.good)
        yield _Single("good_request_fraction", "GoodRequestFraction", "ratio", judged.fraction)
        if judged.per_s is not None:
            yield _Single("goodput", "Goodput", "requests/sec", judged.per_s)
    if metrics.cache is not None:
        hit = 100 * metrics.cache.hit_share
        title = "Overall Usage Prompt Cache Read %"
        yield _Single("overall_usage_prompt_cache_read_pct", title, "%", hit)


def _rates(analysis: Analysis) -> Iterator[_Single]:
    rates, run = analysis.metrics.rates, analysis.run
    if rates is None:
        return
    per_s, first_s = rates.request_throughput, min(one.sent_s for one in profiled(run.records))
    yield _Single("request_throughput", "Request Throughput", "requests/sec", per_s)
    yield _Single("output_token_throughput", "Output Token Throughput", "tokens/sec",
                  rates.output_token_throughput)  # fmt: skip
    yield _Single("total_token_throughput", "Total Token Throughput", "tokens/sec",
                  rates.total_token_throughput)  # fmt: skip
    yield _Single("total_isl", "Total Input Sequence Length", "tokens", rates.input_tokens)
    yield _Single("total_osl", "Total Output Sequence Length", "tokens", rates.output_tokens)
    yield _Single("benchmark_duration", "Benchmark Duration", "sec", rates.duration_s)
    yield _Single(
        "min_request_timestamp", "Minimum Request Timestamp", "ns", _wall_ns(run, first_s)
    )
    yield _Single("max_response_timestamp", "Maximum Response Timestamp", "ns",
                  _wall_ns(run, first_s + rates.duration_s))  # fmt: skip


def _wall_ns(run: Run, time_s: float) -> int:
    return round(run.started_at * 1e9) + round(time_s * 1e9)


def _input_config(run: Run) -> dict[str, Any]:
    """The parts of AIPerf's configuration that its plots read."""
    phase: dict[str, Any] = {"name": "profiling", "requests": len(profiled(run.records))}
    if run.load is not None and run.mode == "concurrency" and isfinite(run.load):
        phase |= {"type": "concurrency", "concurrency": int(run.load)}
    elif run.load is not None:
        phase |= {"type": "poisson", "rate": run.load}
    else:
        phase["type"] = "fixed_schedule"
    return {
        "models": {"items": [{"name": run.model}]},
        "endpoint": {"urls": [run.url], "type": run.endpoint_type, "streaming": run.streamed},
        "datasets": [{"name": run.workload or "main", "type": "synthetic"}],
        "phases": [phase],
    }


def _run_info(run: Run) -> dict[str, Any]:
    known = {
        "random_seed": run.seed,
        "run_label": run.name or None,
        "cli_command": run.command_line or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _failure(failure: Failure) -> dict[str, Any]:
    return {"error_details": _error(failure.kind, failure.status, failure.message),
            "count": failure.count}  # fmt: skip


def _error(kind: str, status: int | None, message: str | None) -> dict[str, Any]:
    details = {"code": status, "type": kind, "message": message or kind}
    return {name: value for name, value in details.items() if value is not None}


def jsonl_line(run: Run, record: Record) -> dict[str, Any]:
    """One line of `profile_export.jsonl`; `record` in it is the whole of what was recorded."""
    line: dict[str, Any] = {
        "metadata": _metadata(run, record),
        "metrics": dict(_values(record)) if record.outcome == "ok" else {},
    }
    if record.outcome != "ok":
        line["error"] = _error(record.error or record.outcome, record.status, record.error_message)
    line["record"] = msgspec.to_builtins(_rounded(record))
    return line


def _metadata(run: Run, record: Record) -> dict[str, Any]:
    known = {
        "session_num": record.session,
        "x_request_id": record.request_id,
        "conversation_id": f"session_{record.session:06d}",
        "turn_index": record.turn,
        "credit_issued_ns": _wall(run, record.scheduled_s),
        "request_start_ns": _wall_ns(run, record.sent_s),
        "request_ack_ns": _wall(run, record.head_s),
        "request_end_ns": _wall_ns(run, _last_sign_s(record)),
        "worker_id": "triolet",
        "record_processor_id": "triolet",
        "benchmark_phase": record.phase,
        "was_cancelled": record.outcome in ("cancelled", "unfinished"),
    }
    return {name: value for name, value in known.items() if value is not None}


def _wall(run: Run, time_s: float | None) -> int | None:
    return None if time_s is None else _wall_ns(run, time_s)


def _last_sign_s(record: Record) -> float:
    if record.ended_s is not None:
        return record.ended_s
    return max([record.sent_s, *record.content_s[-1:]])


def _values(record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in measured(record).items():
        tag, _, unit = _tag(name)
        yield tag, {"value": value, "unit": unit}
    gaps = [round(gap, 3) for gap in chunk_gaps_ms(record)]
    if gaps:
        yield INTER_CHUNK, {"value": gaps, "unit": "ms"}


def _rounded(record: Record) -> Record:
    """Chunk times to the microsecond: half of the file's size, and finer than any clock's use."""
    times = [round(time, 6) for time in record.content_s]
    return msgspec.structs.replace(record, content_s=times)
