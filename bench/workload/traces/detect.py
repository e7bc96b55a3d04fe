"""Which trace a file is, told by its first line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bench.workload.lines import BadLine, Source, numbered_lines
from bench.workload.model import Workload
from bench.workload.traces.azure import AZURE_COLUMNS, BURSTGPT_COLUMNS, azure, burstgpt
from bench.workload.traces.columns import heading
from bench.workload.traces.mooncake import mooncake
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.servegen import SERVEGEN_COLUMNS, servegen
from bench.workload.traces.weka import weka

__all__ = ["READERS", "read_trace", "trace_format"]

READERS: dict[str, Callable[[Source, TraceOptions | None], Workload]] = {
    "mooncake": mooncake,
    "azure": azure,
    "burstgpt": burstgpt,
    "servegen": servegen,
    "weka": weka,
}
"""Reader by the name of a format."""

_COLUMNS = {"azure": AZURE_COLUMNS, "burstgpt": BURSTGPT_COLUMNS, "servegen": SERVEGEN_COLUMNS}


def read_trace(
    source: Source, options: TraceOptions | None = None, form: str | None = None
) -> Workload:
    """The trace in `source`, in the format `form` or the one its first line shows.

    Raises:
        ValueError: the format is not known.
        OSError: the file cannot be opened.
    """
    form = form or trace_format(source)
    if form not in READERS:
        raise ValueError(f"no such trace format: {form!r}; known are {', '.join(READERS)}")
    return READERS[form](source, options)


def trace_format(source: Source) -> str:
    """The name in `READERS` of the format of `source`.

    Raises:
        BadLine: the first line is like none of the formats.
        OSError: the file cannot be opened.
    """
    for number, line in numbered_lines(source):
        form = _json_format(line) if line.startswith(b"{") else _csv_format(line)
        if form is None:
            raise BadLine(source, number, f"no trace of a known format: {_KNOWN}")
        return form
    raise BadLine(source, 1, "the file is empty")


_KNOWN = (
    "JSON lines with input_length and output_length (mooncake), JSON lines with reqs and "
    "block_size (weka), or CSV with the columns "
    + ", or ".join(f"{','.join(columns)} ({name})" for name, columns in _COLUMNS.items())
)


def _json_format(line: bytes) -> str | None:
    try:
        fields: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    if {"reqs", "block_size"} <= fields.keys():
        return "weka"
    return "mooncake" if {"input_length", "output_length"} <= fields.keys() else None


def _csv_format(line: bytes) -> str | None:
    try:
        found = set(heading(line))
    except UnicodeDecodeError:
        return None
    return next((name for name, columns in _COLUMNS.items() if found >= set(columns)), None)
