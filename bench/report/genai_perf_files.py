"""Results in GenAI-Perf's files, so that what reads them reads ours.

Shapes after triton-inference-server/perf_analyzer (genai-perf 0.0.16): `export_data/
json_exporter.py`, `csv_exporter.py` and `metrics/`, and for the raw file `src/
profile_data_exporter.cc` with `profile_data_parser/`, which reads it back.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, Final

import msgspec

from bench.load.record import Record
from bench.report.measures import input_length, output_length
from bench.report.metrics import Analysis, profiled, succeeded
from bench.report.run import Run
from bench.report.statistics import STATISTICS, Summary

__all__ = ["genai_perf_csv", "genai_perf_json", "raw_bytes", "raw_json", "stand_in"]

_CSV_COLUMNS: Final = ("avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25", "p10", "p5",
                       "p1")  # fmt: skip
_STREAM_MEASURES: Final = (
    ("time_to_first_token", "ms"),
    ("time_to_second_token", "ms"),
    ("inter_token_latency", "ms"),
    ("output_token_throughput_per_user", "tokens/sec/user"),
)
_CSV_ROWS: Final = (
    *_STREAM_MEASURES[:2],
    ("request_latency", "ms"),
    *_STREAM_MEASURES[2:],
    ("output_sequence_length", "tokens"),
    ("input_sequence_length", "tokens"),
)
_JSON_ORDER: Final = (
    "request_throughput",
    "request_latency",
    "request_count",
    "time_to_first_token",
    "time_to_second_token",
    "inter_token_latency",
    "output_token_throughput",
    "output_token_throughput_per_user",
    "output_sequence_length",
    "input_sequence_length",
    "request_goodput",
)


def genai_perf_json(analysis: Analysis) -> dict[str, Any]:
    """`profile_export_genai_perf.json`: an object a metric, and the configuration."""
    metrics = analysis.metrics
    content: dict[str, Any] = dict(_system(analysis))
    for name, unit in _CSV_ROWS:
        if name in metrics.distributions:
            content[name] = _statistics(metrics.distributions[name], unit)
    ordered: dict[str, Any] = {name: content[name] for name in _JSON_ORDER if name in content}
    ordered["input_config"] = _input_config(analysis.run)
    return ordered


def genai_perf_csv(analysis: Analysis) -> str:
    """`profile_export_genai_perf.csv`: distributions, an empty line, single figures."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["Metric", *_CSV_COLUMNS])
    for name, unit in _CSV_ROWS:
        summary = analysis.metrics.distributions.get(name)
        if summary is not None:
            cells = [f"{summary.get(column):,.2f}" for column in _CSV_COLUMNS]
            writer.writerow([_title(name, unit), *cells])
    writer.writerow([])
    writer.writerow(["Metric", "Value"])
    system = dict(_system(analysis))
    for name, unit in (
        ("output_token_throughput", "tokens/sec"),
        ("request_throughput", "per sec"),
        ("request_goodput", "per sec"),
        ("request_count", "count"),
    ):
        if name in system:
            writer.writerow([_title(name, unit), f"{system[name]['avg']:,.2f}"])
    return text.getvalue()


def _title(name: str, unit: str) -> str:
    return f"{name.replace('_', ' ').title()} ({unit})"


def _system(analysis: Analysis) -> Iterator[tuple[str, dict[str, Any]]]:
    metrics = analysis.metrics
    if metrics.rates is None:
        return
    yield "request_throughput", _one("requests/sec", metrics.rates.request_throughput)
    yield "request_count", _one("count", float(metrics.outcomes.completed))
    yield "output_token_throughput", _one("tokens/sec", metrics.rates.output_token_throughput)
    if metrics.goodput is not None and metrics.goodput.per_s is not None:
        yield "request_goodput", _one("requests/sec", metrics.goodput.per_s)


def _one(unit: str, value: float) -> dict[str, Any]:
    return {"unit": unit, "avg": value}


def _statistics(summary: Summary, unit: str) -> dict[str, Any]:
    return {"unit": unit, **{name: summary.get(name) for name in STATISTICS}}


def _input_config(run: Run) -> dict[str, Any]:
    """The parts of GenAI-Perf's configuration that its `process-export-files` reads."""
    mode, value = _stimulus(run)
    return {
        "model_names": [run.model],
        "endpoint": {
            "service_kind": "openai",
            "type": run.endpoint_type,
            "streaming": run.streamed,
            "url": run.url,
        },
        "perf_analyzer": {"stimulus": {mode: value}},
        "input": {"goodput": run.goodput, "random_seed": 0 if run.seed is None else run.seed},
        "tokenizer": {"name": run.model},
        "output": {"profile_export_file": "profile_export.json"},
    }


def _stimulus(run: Run) -> tuple[str, int | float]:
    """The load as Perf Analyzer writes it. It knows no schedule: that becomes a rate of 0."""
    if run.load is None or run.mode == "schedule" or not isfinite(run.load):
        return "request_rate", 0.0
    return run.mode, int(run.load) if run.mode == "concurrency" else float(run.load)


_PATHS: Final = {"chat": "v1/chat/completions", "completions": "v1/completions"}


def raw_bytes(run: Run) -> int:
    """About how large `raw_json` is."""
    good = succeeded(profiled(run.records))
    chunks = sum(max(len(one.content_s), 1) for one in good)
    words = sum(input_length(one) + output_length(one) for one in good)
    return 200 * len(good) + 150 * chunks + 2 * words


def raw_json(run: Run) -> Iterator[str]:
    """`profile_export.json`, in pieces: every request that succeeded, chunk by chunk.

    The reader counts tokens in the texts. The records hold none, so the texts are stand-ins: one
    short word a token, as many as were counted.
    """
    mode, value = _stimulus(run)
    head = {"mode": mode, "value": value}
    yield '{"experiments": [{"experiment": ' + json.dumps(head) + ', "requests": [\n'
    separator = ""
    good = succeeded(profiled(run.records))
    several = any(record.turn for record in good)
    for record in good:
        yield separator + msgspec.json.encode(_raw_request(run, record, several)).decode()
        separator = ",\n"
    path = _PATHS.get(run.endpoint_type, run.endpoint_type)
    tail = {"version": "", "service_kind": "openai", "endpoint": path}
    yield '\n], "window_boundaries": []}], ' + json.dumps(tail)[1:] + "\n"


def stand_in(tokens: int) -> str:
    """A text that byte-pair tokenizers take for `tokens` tokens."""
    return " a" * tokens


def _raw_request(run: Run, record: Record, several_turns: bool) -> dict[str, Any]:
    inputs = {"payload": json.dumps(_payload(run, record))}
    if several_turns:
        inputs["session_id"] = str(record.session)
    times = _response_times(record)
    return {
        "timestamp": _wall_ns(run, record.sent_s),
        "request_inputs": inputs,
        "response_timestamps": [_wall_ns(run, time) for time in times],
        "response_outputs": [
            _response(run.endpoint_type, record.streamed, tokens)
            for tokens in _tokens_by_chunk(record, len(times))
        ],
    }


def _wall_ns(run: Run, time_s: float) -> int:
    return round(run.started_at * 1e9) + round(time_s * 1e9)


def _payload(run: Run, record: Record) -> dict[str, Any]:
    text = stand_in(input_length(record))
    shared = {"model": run.model, "stream": record.streamed}
    if run.endpoint_type == "completions":
        return {**shared, "prompt": [text]}
    return {**shared, "messages": [{"role": "user", "content": text}]}


def _response_times(record: Record) -> Sequence[float]:
    if record.streamed and record.content_s:
        return record.content_s
    return [record.sent_s if record.ended_s is None else record.ended_s]


@lru_cache(maxsize=1024)
def _response(endpoint_type: str, streamed: bool, tokens: int) -> msgspec.Raw:
    """One element of `response_outputs`, encoded: most chunks of a run are alike."""
    text = stand_in(tokens)
    if endpoint_type == "completions":
        body: dict[str, Any] = {"object": "text_completion", "choices": [{"text": text}]}
    elif streamed:
        body = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": text}}]}
    else:
        body = {"object": "chat.completion", "choices": [{"message": {"content": text}}]}
    encoded = json.dumps(body)
    response = f"data: {encoded}\n\n" if streamed else encoded
    return msgspec.Raw(msgspec.json.encode({"response": response}))


def _tokens_by_chunk(record: Record, chunks: int) -> list[int]:
    """The first chunk's tokens, then the rest spread evenly, one at least in each."""
    total = max(output_length(record), chunks)
    if chunks == 1:
        return [total]
    first = min(max(record.first_chunk_tokens, 1), total - chunks + 1)
    each, extra = divmod(total - first, chunks - 1)
    return [first, *(each + (place < extra) for place in range(chunks - 1))]
