"""What the requests of a recorded run were made of: which prompts began alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from bench.validate.recording import Recording, RecordingError
from bench.workload.data import BUNDLED, bundled
from bench.workload.lines import BadLine, Source, parsed_lines
from bench.workload.model import Prompt, Segment, segment_key

__all__ = ["Prompts", "find_prompts"]

_BLOCK = 16
_MOONCAKE_BLOCK = 512


class Prompts:
    """Prompts by row of the workload; a request without one shares nothing."""

    def __init__(self, prompts: Sequence[Prompt], source: str) -> None:
        self._prompts = prompts
        self.source = source
        """Where they are from, in words."""

    def of(self, number: int, tokens: int) -> Prompt:
        """The prompt of row `number`, which has `tokens` tokens."""
        if self._prompts:
            return self._prompts[number]
        return (Segment(segment_key("alone", number), tokens),)


class _Row(msgspec.Struct):
    """A row of any workload file that is known here."""

    input_toks: int | None = None
    input_length: int | None = None
    input_tok_ids: list[int] | None = None
    blocks: list[int] | None = None
    hash_ids: list[int] | None = None


def find_prompts(recording: Recording, workload: Path | None) -> Prompts:
    """The prompts of a run: from `workload`, from the file that its record names, or from any file
    beside it, or of the package, whose prompts are as long, request by request; else none shared.

    Raises RecordingError if `workload` does not fit to the run, BadLine and OSError if it cannot be
    read.
    """
    if not recording.facts.prefix_caching:
        return Prompts((), "no prefix cache: nothing is shared")
    if workload is not None:
        rows = list(parsed_lines(workload, msgspec.json.Decoder(_Row).decode))
        _check(recording, rows, workload)
        return _prompts(rows, workload.name)
    for source in _candidates(recording):
        found = _rows_if_any(source, recording)
        if found is not None:
            return _prompts(found, source.name)
    return Prompts((), "no workload found: no prompt shares anything")


def _candidates(recording: Recording) -> Iterator[Source]:
    place = recording.place
    if place is not None:
        dataset = recording.facts.dataset
        for directory in (place, *place.parents) if dataset else ():
            for path in (directory / (dataset or ""), directory / Path(dataset or "").name):
                if path.is_file():
                    yield path
        yield from (path for path in sorted(place.glob("*.jsonl*")) if "requests" not in path.name)
    for name in BUNDLED:
        if name.startswith("sharegpt"):
            yield bundled(name)


def _rows_if_any(source: Source, recording: Recording) -> list[_Row] | None:
    """The rows of a file that may be the run's workload; None if it is not."""
    enough = 1 + max(each.number for each in recording.requests)
    try:
        rows = list(islice(parsed_lines(source, msgspec.json.Decoder(_Row).decode), enough))
        _check(recording, rows, source)
    except (BadLine, RecordingError):
        return None
    return rows


def _check(recording: Recording, rows: Sequence[_Row], source: Source) -> None:
    for each in recording.requests:
        if each.number >= len(rows):
            raise RecordingError(
                f"{recording.name}: request {each.number} is in no row of {source.name}, which has "
                f"{len(rows)}"
            )
        tokens = _tokens(rows[each.number])
        if tokens != each.input_tokens:
            raise RecordingError(
                f"{recording.name}: request {each.number} has {each.input_tokens} prompt tokens, "
                f"row {each.number + 1} of {source.name} has {tokens}: not the workload of this run"
            )


def _tokens(row: _Row) -> int | None:
    if row.input_toks is not None:
        return row.input_toks
    return row.input_length


def _prompts(rows: Sequence[_Row], source: str) -> Prompts:
    shared = any(row.blocks or row.input_tok_ids or row.hash_ids for row in rows)
    if not shared:
        return Prompts((), f"{source}: lengths only, no prompt shares anything")
    return Prompts([_prompt(row, number) for number, row in enumerate(rows)], source)


def _prompt(row: _Row, number: int) -> Prompt:
    """Whole blocks by what is in them, and a rest of its own."""
    tokens = _tokens(row) or 0
    size = _MOONCAKE_BLOCK if row.hash_ids is not None else _BLOCK
    keys = row.blocks or row.hash_ids or list(_hashes(row.input_tok_ids or []))
    whole = [Segment(key + 1, size) for key in keys[: tokens // size]]
    rest = tokens - size * len(whole)
    return (*whole, *((Segment(segment_key("rest", number), rest),) if rest else ()))


def _hashes(tokens: list[int]) -> Iterator[int]:
    """One key for each whole block, of all that comes up to its end."""
    key = 0
    for end in range(_BLOCK, len(tokens) + 1, _BLOCK):
        key = segment_key(key, tokens[end - _BLOCK : end])
        yield key
