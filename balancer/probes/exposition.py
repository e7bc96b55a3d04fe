"""Prometheus' text form, read for a few names only.

An engine's page holds hundreds of histogram lines for every number that is wanted, so each name is
searched for in the bytes and nothing else is looked at: about 0.1 ms for each name in 500 KB. What
is malformed is left out. A page may be hostile: a `Budget` bounds what reading it costs.

The form: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Budget", "ExpositionInvalid", "Sample", "has_prefix", "number", "read_samples"]

_NAME_BYTES: Final = 262_144
_LINE_COST_BYTES: Final = 256
"""What may be read for one name, each line counted so much longer than it is: 1,024 lines at most.
An engine has one line for each rank, of a few hundred bytes."""
_LINE_BYTES: Final = 16_384
"""The longest line read; vLLM's `cache_config_info`, with all its labels, has about 2,000."""
_VALUE_BYTES: Final = 40
"""The longest number read; a double needs 24."""

_LABEL: Final = re.compile(rb'[ \t,]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"')
_AFTER_LABELS: Final = re.compile(rb"[ \t,]*\}")
_ESCAPE: Final = re.compile(r"\\(.)")


class ExpositionInvalid(ValueError):
    """No engine writes such a page: far too many lines of a name that has one for each rank."""


class Budget:
    """How much may be read, in bytes of lines; a few milliseconds for each 256 KiB."""

    def __init__(self, left_bytes: int = _NAME_BYTES) -> None:
        self.left_bytes = left_bytes

    def spend(self, line_bytes: int, name: bytes) -> None:
        """Raises `ExpositionInvalid` when there is nothing left."""
        self.left_bytes -= line_bytes + _LINE_COST_BYTES
        if self.left_bytes < 0:
            raise ExpositionInvalid(f"too many lines begin with {name.decode()}: not an engine's")


class Sample(NamedTuple):
    """One line: what was measured, of what."""

    labels: Mapping[str, str]
    value: float
    """Finite: a line with NaN or Inf says nothing and is left out."""


def has_prefix(page: bytes, prefix: bytes) -> bool:
    """Whether any sample's name begins so."""
    return _find(page, prefix, -1) >= 0


def read_samples(page: bytes, name: bytes, budget: Budget | None = None) -> list[Sample]:
    """Every readable sample of exactly that name, in the order of the page.

    Raises `ExpositionInvalid` when there are more than an engine can have: more than `budget`,
    which is that for one name unless it is given.
    """
    samples: list[Sample] = []
    budget = Budget() if budget is None else budget
    at = _find(page, name, -1)
    while at >= 0:
        end = _end_of_line(page, at)
        budget.spend(end - at, name)
        sample = _read_sample(page[at + len(name) : end])
        if sample is not None:
            samples.append(sample)
        at = _find(page, name, at)
    return samples


def _find(page: bytes, name: bytes, after: int) -> int:
    """Where the next line that begins with `name` begins, or -1."""
    if after < 0 and page.startswith(name):
        return 0
    found = page.find(b"\n" + name, max(after, 0))
    return found if found < 0 else found + 1


def _end_of_line(page: bytes, at: int) -> int:
    end = page.find(b"\n", at, at + _LINE_BYTES)
    return end if end >= 0 else min(len(page), at + _LINE_BYTES)


def _read_sample(line: bytes) -> Sample | None:
    """What stands behind the name; None if the name goes on, or this is no sample."""
    rest = line.lstrip(b" \t")
    labels: dict[str, str] = {}
    if rest.startswith(b"{"):
        end = _read_labels(rest, labels)
        if end is None:
            return None
        rest = rest[end:]
    elif len(rest) == len(line):
        return None
    words = rest.split(None, 1)  # A time may follow the value.
    value = number(words[0]) if words else None
    return None if value is None else Sample(labels, value)


def _read_labels(text: bytes, labels: dict[str, str]) -> int | None:
    """Fill `labels`; where they end, None if they do not.

    Each is looked for where the last one ended and nowhere else: no text is gone through twice.
    """
    at = 1
    while found := _LABEL.match(text, at):
        labels[found[1].decode()] = _unescape(found[2].decode(errors="replace"))
        at = found.end()
    closed = _AFTER_LABELS.match(text, at)
    return closed.end() if closed else None


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], text)


def number(word: bytes | str) -> float | None:
    """The number, if it is a finite one and of sane length."""
    if len(word) > _VALUE_BYTES or not word.isascii():
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
