"""Traces of stamps and lengths without prefixes: Azure's and BurstGPT's, in CSV.

Azure (github.com/Azure/AzurePublicDataset, Splitwise, ISCA 2024): `TIMESTAMP` as date and time.
BurstGPT (github.com/HPMLL/BurstGPT): `Timestamp` in seconds; its failed requests, those with an
empty answer, count as malformed lines.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from bench.workload.lines import Source
from bench.workload.model import Segment, Workload, segment_key
from bench.workload.traces.columns import column_reader, positive
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.timed import Timed, timed_sessions

__all__ = ["AZURE_COLUMNS", "BURSTGPT_COLUMNS", "azure", "burstgpt"]

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT_COLUMNS = ("Timestamp", "Request tokens", "Response tokens")


def azure(source: Source, options: TraceOptions | None = None) -> Workload:
    """The requests of an Azure LLM inference trace; no two share a prefix."""
    return _lengths_trace("azure", source, options, AZURE_COLUMNS, _date_s)


def burstgpt(source: Source, options: TraceOptions | None = None) -> Workload:
    """The requests of a BurstGPT trace; no two share a prefix."""
    return _lengths_trace("burstgpt", source, options, BURSTGPT_COLUMNS, float)


def _lengths_trace(
    name: str,
    source: Source,
    options: TraceOptions | None,
    columns: tuple[str, str, str],
    at_s: Callable[[str], float],
) -> Workload:
    chosen = options or TraceOptions()
    return Workload(
        name=name,
        sessions=timed_sessions(source, lambda: _parser(chosen, columns, at_s), chosen),
        about=f"Requests of {source.name}, at the trace's times; no shared prefixes.",
    )


def _parser(
    options: TraceOptions, columns: tuple[str, str, str], at_s: Callable[[str], float]
) -> Callable[[bytes], Timed | None]:
    values = column_reader(columns)
    row = 0

    def parse(line: bytes) -> Timed | None:
        nonlocal row
        row += 1
        cells = values(line)
        if cells is None:
            return None
        prompt = Segment(segment_key("row", options.namespace, row), positive(columns[1], cells[1]))
        return Timed(at_s(cells[0]), (prompt,), positive(columns[2], cells[2]))

    return parse


def _date_s(text: str) -> float:
    stamp = datetime.fromisoformat(text)
    # The files of 2023 name no zone, those of 2024 do; both are UTC.
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
