"""What is measured of one request, by the names GenAI-Perf and AIPerf gave.

The definitions are theirs (and are not other tools' definitions of the same words):

- time to first token: from the first byte sent to the first chunk with text; an empty delta or a
  role does not count, reasoning and a tool call's text do;
- time to second token: from the first to the second chunk with text;
- inter-token latency: (last chunk - first chunk) / (output tokens - tokens of the first chunk), one
  number a request; inter-chunk latency: every gap between two chunks, all requests pooled;
- request latency: from the first byte sent to the last chunk with text, so that what follows it
  (usage, the end mark) does not count; without a stream, to the end of the answer.

Only requests that succeeded are asked: a failed one has no latency.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from bench.load.record import Record

__all__ = [
    "INTER_CHUNK",
    "MEASURES",
    "OBJECTIVES",
    "Measure",
    "Unit",
    "chunk_gaps_ms",
    "input_length",
    "last_text_s",
    "measured",
    "output_length",
]

Unit = Literal["ms", "tokens", "tokens/sec/user"]


class Measure(NamedTuple):
    """One kind of number that a request has."""

    name: str
    header: str
    unit: Unit
    larger_is_better: bool = False
    main: bool = True
    """Whether the table shows it; the files have them all."""


_ALL: Final = (
    Measure("time_to_first_token", "Time to First Token", "ms"),
    Measure("time_to_second_token", "Time to Second Token", "ms"),
    Measure("time_to_first_output_token", "Time to First Output Token", "ms", main=False),
    Measure("request_latency", "Request Latency", "ms"),
    Measure("inter_token_latency", "Inter Token Latency", "ms"),
    Measure("inter_chunk_latency", "Inter Chunk Latency", "ms"),
    Measure("stall_max", "Longest Stall", "ms"),
    Measure(
        "output_token_throughput_per_user",
        "Output Token Throughput Per User",
        "tokens/sec/user",
        larger_is_better=True,
    ),
    Measure("output_sequence_length", "Output Sequence Length", "tokens"),
    Measure("input_sequence_length", "Input Sequence Length", "tokens"),
    Measure("effective_time_to_first_token", "Effective Time to First Token", "ms"),
    Measure("effective_request_latency", "Effective Request Latency", "ms"),
    Measure("schedule_delay", "Schedule Delay", "ms"),
    Measure("queue_time", "Queue Time", "ms"),
    Measure("reasoning_token_count", "Reasoning Tokens", "tokens", main=False),
    Measure("cached_token_count", "Cached Tokens", "tokens", main=False),
)

MEASURES: Final = {measure.name: measure for measure in _ALL}
"""In the order of tables and files."""

INTER_CHUNK: Final = "inter_chunk_latency"
"""The one measure of which a request has many values."""

OBJECTIVES: Final = tuple(
    measure.name for measure in _ALL if measure.unit != "tokens" and measure.name != INTER_CHUNK
)
"""What goodput may set a limit to: measures with one value a request."""


def output_length(record: Record) -> int:
    """Output tokens: the server's count where it gives one, else the client's."""
    if record.output_tokens is not None:
        return record.output_tokens
    return record.counted_output_tokens


def input_length(record: Record) -> int:
    """Prompt tokens: the server's count where it gives one, else what the plan asked for."""
    return record.asked_input_tokens if record.input_tokens is None else record.input_tokens


def last_text_s(record: Record) -> float | None:
    """When the answer was there: the last chunk with text of a stream, else its end."""
    if record.streamed and record.content_s:
        return record.content_s[-1]
    return record.ended_s


def chunk_gaps_ms(record: Record) -> Iterator[float]:
    """The gaps between a stream's chunks with text."""
    if record.streamed:
        for earlier, later in pairwise(record.content_s):
            yield (later - earlier) * 1e3


def measured(record: Record) -> dict[str, float]:
    """Every number of a request that succeeded, by measure; what it lacks is left out.

    Raises ValueError for a request that did not succeed.
    """
    if record.outcome != "ok":
        raise ValueError(f"request {record.request_id}: {record.outcome}, so it has no latency")
    found = {
        "output_sequence_length": float(output_length(record)),
        "input_sequence_length": float(input_length(record)),
    }
    found.update(_reported(record))
    found.update(_timed(record))
    if record.scheduled_s is not None:
        found.update(_from_schedule(record, record.scheduled_s, found))
    return found


def _timed(record: Record) -> Iterator[tuple[str, float]]:
    last = last_text_s(record)
    if last is not None:
        yield "request_latency", (last - record.sent_s) * 1e3
    if not record.streamed or not record.content_s:
        return
    yield "time_to_first_token", (record.content_s[0] - record.sent_s) * 1e3
    if record.first_answer_s is not None:
        yield "time_to_first_output_token", (record.first_answer_s - record.sent_s) * 1e3
    if len(record.content_s) > 1:
        yield from _of_many_chunks(record)


def _of_many_chunks(record: Record) -> Iterator[tuple[str, float]]:
    first, second = record.content_s[:2]
    yield "time_to_second_token", (second - first) * 1e3
    yield "stall_max", max(chunk_gaps_ms(record))
    decoded = _decoded_tokens(record)
    if decoded is None:
        return
    latency_s = (record.content_s[-1] - first) / decoded
    yield "inter_token_latency", latency_s * 1e3
    if latency_s > 0:
        yield "output_token_throughput_per_user", 1 / latency_s


def _decoded_tokens(record: Record) -> int | None:
    """Tokens that came after the first chunk; None for an answer of a single token.

    Every later chunk holds one token at least: a first chunk said to leave fewer was counted
    wrongly (the client's count of a text is an estimate). A server that says there were fewer
    tokens than chunks leaves one for the first, as AIPerf does.
    """
    length = output_length(record)
    if length < 2:
        return None
    most = max(1, length - (len(record.content_s) - 1))
    return length - min(max(1, record.first_chunk_tokens), most)


def _from_schedule(
    record: Record, scheduled_s: float, found: dict[str, float]
) -> Iterator[tuple[str, float]]:
    """From when it should have been sent: a target that holds the client up cannot hide it."""
    late_ms = (record.sent_s - scheduled_s) * 1e3
    yield "schedule_delay", late_ms
    for name in ("time_to_first_token", "request_latency"):
        if name in found:
            yield f"effective_{name}", found[name] + late_ms


def _reported(record: Record) -> Iterator[tuple[str, float]]:
    if record.queue_s is not None:
        yield "queue_time", record.queue_s * 1e3
    if record.reasoning_tokens is not None:
        yield "reasoning_token_count", float(record.reasoning_tokens)
    if record.cached_tokens is not None:
        yield "cached_token_count", float(record.cached_tokens)
