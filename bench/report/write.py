"""Runs to files and back.

A run's directory holds: `run.json` (what was run), `profile_export.jsonl` (one line a request, all
there is to know), GenAI-Perf's and AIPerf's files (see `genai_perf_files`, `aiperf_files`), the
terminal's table as text, and the HTML report. A sweep has one such directory a load point, and
above them the report, the sweep's table, and a `run.json` that names the directories.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.load.record import Record
from bench.report.aiperf_files import aiperf_csv, aiperf_json, jsonl_line
from bench.report.genai_perf_files import genai_perf_csv, genai_perf_json, raw_bytes, raw_json
from bench.report.html import page
from bench.report.metrics import Analysis, analyse
from bench.report.run import Run
from bench.report.sweep import sweep_rows, sweep_text
from bench.report.table import run_text

__all__ = [
    "ReadError",
    "artifact_name",
    "check_destination",
    "find_runs",
    "read_run",
    "replace_file",
    "write_reports",
]

_RUN_FILE: Final = "run.json"
_SCHEMA: Final = 1
_RAW_AT_MOST_BYTES: Final = 512 * 1024 * 1024
"""`profile_export.json` would be larger than this for very long runs; then it is not written (the
JSONL holds the same) and a line in the text says so."""

_NAME_AT_MOST: Final = 120


_PREFIX: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class ReadError(ValueError):
    """A file of a run is missing or is not what it should be; says which, where and why."""


def check_destination(directory: Path | None, prefix: str) -> None:
    """Find out before a run whether `write_reports` could write it; raises what that would."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix {prefix!r}: letters, digits, '_', '-' and '.' only")
    top = Path("artifacts") if directory is None else directory
    top.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=top).close()


def write_reports(
    runs: Sequence[Run], directory: Path | None = None, *, prefix: str = "profile_export"
) -> list[Path]:
    """Write every file of one run, or of a sweep's runs; gives what was written, the report first.

    Without a directory: `artifacts/<model>-openai-<endpoint>-concurrency4` (or `-sweep`) under
    the working directory. Each file appears whole or not at all; files of an earlier run of the
    same name are replaced. Raises OSError where the directory cannot be written, ValueError for
    no runs or a prefix that is not a plain file name.
    """
    if not runs:
        raise ValueError("no run to report")
    check_destination(directory, prefix)
    top = Path("artifacts") / artifact_name(runs) if directory is None else directory
    (top / _RUN_FILE).unlink(missing_ok=True)
    analyses = [analyse(_encodable(run)) for run in runs]
    written = [replace_file(top / f"{prefix}.html", [page(analyses)])]
    if len(analyses) == 1:
        return written + _write_run(analyses[0], top, prefix)
    written.append(replace_file(top / f"{prefix}_sweep.csv", [_csv(sweep_rows(analyses))]))
    written.append(replace_file(top / f"{prefix}_sweep.txt", [sweep_text(analyses)]))
    names = list(_directory_names(runs))
    for analysis, name in zip(analyses, names, strict=True):
        written += _write_run(analysis, top / name, prefix)
    return [*written, replace_file(top / _RUN_FILE, [_json({"schema": _SCHEMA, "points": names})])]


def _encodable(run: Run) -> Run:
    """Texts from outside with what UTF-8 cannot hold replaced: no report is lost for one."""
    records = [
        msgspec.structs.replace(
            record, error_message=_utf8(record.error_message), replica=_utf8(record.replica)
        )
        for record in run.records
    ]
    return msgspec.structs.replace(
        run,
        records=records,
        name=_utf8(run.name),
        workload=_utf8(run.workload),
        command_line=_utf8(run.command_line),
        config={
            option: _utf8(value) if isinstance(value, str) else value
            for option, value in run.config.items()
        },
    )


def _utf8(text: str | None) -> str | None:
    return text if text is None else text.encode(errors="replace").decode()


def artifact_name(runs: Sequence[Run]) -> str:
    """GenAI-Perf's directory name for a run; for several runs the same with `sweep`."""
    run = runs[0]
    stem = f"{_plain(run.model)}-openai-{_plain(run.endpoint_type)}"
    if len(runs) > 1:
        return f"{stem}-sweep"
    if run.load is None:
        return f"{stem}-fixed_schedule"
    return f"{stem}-{run.mode}{run.load:g}"


def _plain(name: str) -> str:
    """A name from outside as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_NAME_AT_MOST].lstrip(".") or "_"


def _directory_names(runs: Sequence[Run]) -> Iterator[str]:
    """One a run; a repeated load point gets a number."""
    seen: dict[str, int] = {}
    for run in runs:
        name = artifact_name([run])
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


def _write_run(analysis: Analysis, directory: Path, prefix: str) -> list[Path]:
    run = analysis.run
    raw = raw_bytes(run) <= _RAW_AT_MOST_BYTES
    note = "" if raw else f"\n{prefix}.json was left out: it would be over 512 MiB\n"
    records = f"{prefix}.jsonl"
    (directory / _RUN_FILE).unlink(missing_ok=True)
    content: dict[str, Iterable[str]] = {
        f"{prefix}.txt": [run_text(run, analysis.metrics), note],
        f"{prefix}_genai_perf.json": [_json(genai_perf_json(analysis))],
        f"{prefix}_genai_perf.csv": [genai_perf_csv(analysis)],
        f"{prefix}_aiperf.json": [_json(aiperf_json(analysis))],
        f"{prefix}_aiperf.csv": [aiperf_csv(analysis)],
        records: (_line(jsonl_line(run, record)) for record in run.records),
    }
    if raw:
        content[f"{prefix}.json"] = raw_json(run)
    written = [replace_file(directory / name, pieces) for name, pieces in content.items()]
    written.append(replace_file(directory / _RUN_FILE, [_json(_run_content(run, records))]))
    return written


def _run_content(run: Run, records: str) -> dict[str, Any]:
    """`run.json`, written last: where it is, the rest is too."""
    known = msgspec.to_builtins(msgspec.structs.replace(run, records=[]))
    return {"schema": _SCHEMA, "records": records, "run": known}


def _json(content: object) -> str:
    """Indented; an infinite number (a rate without limit) becomes null, as JSON has none."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def _line(content: object) -> str:
    return msgspec.json.encode(content).decode() + "\n"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def replace_file(path: Path, pieces: Iterable[str]) -> Path:
    """Beside its place first, then moved there: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            file.writelines(pieces)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_run(path: Path) -> Run:
    """Read a run's directory, or its `run.json`. Raises ReadError."""
    file = path / _RUN_FILE if path.is_dir() else path
    content = _object(file)
    if content.get("schema") != _SCHEMA or not isinstance(content.get("records"), str):
        raise ReadError(f"{file}: not a run of this version of triolet bench (schema {_SCHEMA})")
    try:
        run = msgspec.convert(content.get("run"), Run)
    except msgspec.ValidationError as error:
        raise ReadError(f"{file}: {error}") from error
    return msgspec.structs.replace(run, records=_records(file.with_name(content["records"])))


def find_runs(path: Path) -> list[Run]:
    """The run at `path`, or, for the directory of a sweep, its runs by load. Raises ReadError."""
    if not path.exists():
        raise ReadError(f"{path}: no such file or directory")
    if path.is_file():
        return [read_run(path)]
    if (path / _RUN_FILE).exists():
        below = _points(path / _RUN_FILE)
        if below is None:
            return [read_run(path)]
    else:
        below = sorted(one.parent for one in path.glob(f"*/{_RUN_FILE}"))
    if not below:
        raise ReadError(f"{path}: no {_RUN_FILE} in it or in a directory directly below")
    return sorted((read_run(one) for one in below), key=lambda run: (run.mode, run.load or 0.0))


def _points(file: Path) -> list[Path] | None:
    """The directories of a sweep's load points; None for the file of a single run."""
    names = _object(file).get("points")
    if not isinstance(names, list):
        return None
    return [file.with_name(str(name)) for name in names]


def _object(file: Path) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise ReadError(f"{file}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ReadError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReadError(f"{file}: not an object")
    return content


class _Line(msgspec.Struct):
    """What is read back of a line: the rest of it is for other readers."""

    record: Record


def _records(file: Path) -> list[Record]:
    decoder = msgspec.json.Decoder(_Line)
    records = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    records.append(decoder.decode(line).record)
                except msgspec.DecodeError as error:
                    raise ReadError(f"{file}, line {number}: {error}") from error
    except OSError as error:
        raise ReadError(f"{file}: {error.strerror}") from error
    return records
