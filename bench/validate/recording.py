"""Recorded runs: which requests an engine served, and when each had its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.validate.facts import Facts, read_facts
from bench.workload.data import bundled
from bench.workload.lines import Source, parsed_lines

__all__ = ["Recording", "RecordingError", "Served", "bundled_recordings", "find_recordings"]

_COMPRESSED = ("", ".xz", ".gz", ".bz2")


class RecordingError(ValueError):
    """A recorded run that cannot be used; the message says which and why."""


class Served(NamedTuple):
    """One request. Seconds since the first request of the run."""

    number: int
    """Which row of the workload it was, from 0."""
    input_tokens: int
    output_tokens: int
    arrived_s: float
    first_token_s: float
    last_token_s: float

    @property
    def ttft_s(self) -> float:
        """From its arrival to its first token."""
        return self.first_token_s - self.arrived_s

    @property
    def itl_s(self) -> float | None:
        """Mean time between its tokens; None for a single token."""
        if self.output_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def latency_s(self) -> float:
        """From its arrival to its last token."""
        return self.last_token_s - self.arrived_s


class Recording(NamedTuple):
    """One run."""

    name: str
    requests: tuple[Served, ...]
    """In the order of arrival."""
    facts: Facts
    """What is known of the engine."""
    place: Path | None
    """Where it was read from; None for data of the package."""
    skipped: tuple[str, ...] = ()
    """Requests left out, with the reason: they failed, or lack a stamp."""


class _Line(msgspec.Struct):
    """A line of `requests.jsonl`. The arrival is on the wall clock, the others on another one."""

    input_toks: int | None
    output_toks: int | None
    first_token_ts: float | None = None
    last_token_ts: float | None = None
    request_id: str = ""
    arrival_time: float | None = None
    queued_ts: float | None = None


def find_recordings(paths: Iterable[Path], on_skip: Callable[[str], None]) -> list[Recording]:
    """The runs in files and directories, deep or flat.

    A run is `requests.jsonl` beside `meta.json`, or `NAME_requests.jsonl` beside `NAME_meta.json`;
    compressed if it ends in .xz, .gz or .bz2. Raises RecordingError if there is none, OSError and
    BadLine for files that cannot be read.
    """
    recordings = [read_recording(file) for path in paths for file in _files(path)]
    for recording in recordings:
        for reason in recording.skipped:
            on_skip(reason)
    return recordings


def _files(path: Path) -> list[Path]:
    files = _request_files(path) if path.is_dir() else [path]
    if not files:
        raise RecordingError(
            f"{path}: no recorded run in it: neither requests.jsonl nor *_requests.jsonl"
        )
    return files


def _request_files(directory: Path) -> list[Path]:
    endings = tuple(f"requests.jsonl{suffix}" for suffix in _COMPRESSED)
    return sorted(
        file
        for file in directory.rglob("*requests.jsonl*")
        if file.name in endings or file.name.endswith(tuple(f"_{each}" for each in endings))
    )


def read_recording(file: Path) -> Recording:
    """The run whose requests are in `file`, with what is said of its engine beside it.

    Raises RecordingError if it holds no request that was served, BadLine for a malformed line.
    """
    name = _name(file)
    facts = read_facts(_meta_file(file), named=f"{file.absolute().parent}/{name}")
    return _recording(name, file, facts, file.absolute().parent)


def bundled_recordings() -> list[Recording]:
    """The runs that come with the package."""
    with bundled("runs").open("rb") as opened:
        names = msgspec.json.decode(opened.read(), type=dict[str, msgspec.Raw])
    return [
        _recording(name, bundled(f"{name}-requests"), read_facts(bytes(raw), named=name), None)
        for name, raw in names.items()
    ]


def _recording(name: str, source: Source, facts: Facts, place: Path | None) -> Recording:
    lines = list(parsed_lines(source, msgspec.json.Decoder(_Line).decode))
    shift_s = _clock_shift_s([line for line in lines if _reason(line) is None])
    reasons = [_reason(line) or _reason_in_time(line, shift_s) for line in lines]
    stamped = list(zip(_numbers(lines), lines, reasons, strict=True))
    whole = [(number, line) for number, line, reason in stamped if reason is None]
    skipped = [f"{name}: request {number}: {reason}" for number, _, reason in stamped if reason]
    if not whole:
        why = f" ({skipped[0]})" if skipped else ""
        raise RecordingError(f"{place or name}/{source.name}: no request in it was served{why}")
    requests = sorted(_served(whole, shift_s), key=lambda each: each.arrived_s)
    return Recording(name, tuple(requests), facts, place, tuple(skipped))


def _served(stamped: list[tuple[int, _Line]], shift_s: float) -> list[Served]:
    arrivals = [_arrival_s(line, shift_s) for _, line in stamped]
    begun_s = min(arrivals)
    return [
        Served(
            number,
            line.input_toks or 0,
            line.output_toks or 0,
            arrived_s - begun_s,
            (line.first_token_ts or 0.0) - begun_s,
            (line.last_token_ts or 0.0) - begun_s,
        )
        for (number, line), arrived_s in zip(stamped, arrivals, strict=True)
    ]


def _clock_shift_s(lines: list[_Line]) -> float:
    """From the clock of the arrivals to that of the other stamps.

    No request is queued before it has come: the smallest difference is the one between the clocks.
    """
    return min(
        (
            line.queued_ts - line.arrival_time
            for line in lines
            if line.queued_ts and line.arrival_time is not None
        ),
        default=0.0,
    )


def _arrival_s(line: _Line, shift_s: float) -> float:
    if line.arrival_time is not None:
        return line.arrival_time + shift_s
    assert line.queued_ts is not None
    return line.queued_ts


def _reason(line: _Line) -> str | None:
    """Why a request cannot be compared."""
    if (line.output_toks or 0) < 1 or (line.input_toks or 0) < 1:
        return f"{line.input_toks or 0} input and {line.output_toks or 0} output tokens"
    if not line.first_token_ts or not line.last_token_ts:
        return "no stamp of its first or last token"
    if line.arrival_time is None and line.queued_ts is None:
        return "neither arrival_time nor queued_ts"
    if line.last_token_ts < line.first_token_ts:
        return "its last token comes before its first"
    return None


def _reason_in_time(line: _Line, shift_s: float) -> str | None:
    assert line.first_token_ts is not None
    late_s = line.first_token_ts - _arrival_s(line, shift_s)
    if late_s > 0:
        return None
    known = "" if line.queued_ts else "; without queued_ts nothing tells if both are of one clock"
    return f"its first token comes {-late_s:g} s before the request{known}"


def _numbers(lines: list[_Line]) -> list[int]:
    """Rows of the workload: by the numbers at the end of the ids, if each is another; else as they
    come."""
    found = [re.search(r"(\d+)$", line.request_id) for line in lines]
    numbers = [int(match[1]) for match in found if match]
    return numbers if len(set(numbers)) == len(lines) else list(range(len(lines)))


def _name(file: Path) -> str:
    if stem := _prefix(file).rstrip("_-. "):
        return stem
    # .../RTX4090/Llama-3.1-8B/vllm/requests.jsonl: the directories say more than the file.
    parts = [part for part in file.absolute().parent.parts[-3:] if part not in ("vllm", "/")]
    return "_".join(parts[-2:])


def _prefix(file: Path) -> str:
    """What stands before `requests.jsonl` in its name, or before its suffixes."""
    name = file.name
    for suffix in (*_COMPRESSED, ".jsonl", "requests"):
        name = name.removesuffix(suffix)
    return name


def _meta_file(file: Path) -> Path | None:
    for name in (f"{_prefix(file)}meta.json", "meta.json"):
        if (candidate := file.with_name(name)).is_file():
            return candidate
    return None
