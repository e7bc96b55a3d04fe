"""Traces in CSV: columns found by their names in the heading."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.workload.lines import WrongFile

__all__ = ["column_reader", "heading", "positive"]


def heading(line: bytes) -> list[str]:
    """The column names in a first line, without a byte order mark."""
    return [name.strip().strip('"') for name in line.decode("utf-8-sig").split(",")]


def column_reader(names: Sequence[str]) -> Callable[[bytes], list[str] | None]:
    """Parses lines of a file whose first one is the heading; gives the values of `names`.

    None for the heading. Values hold no comma: none of the traces quotes.

    Raises (the parser):
        WrongFile: a column is missing from the heading.
        ValueError: a line has another number of values.
    """
    places: list[int] = []
    width = 0

    def values(line: bytes) -> list[str] | None:
        nonlocal width
        if not places:
            found = heading(line)
            missing = [name for name in names if name not in found]
            if missing:
                raise WrongFile(f"the heading has no column {', '.join(missing)}: {found}")
            width = len(found)
            places.extend(found.index(name) for name in names)
            return None
        cells = line.decode().split(",")
        if len(cells) != width:
            raise ValueError(f"{len(cells)} values where the heading has {width} columns")
        return [cells[place].strip() for place in places]

    return values


def positive(name: str, text: str) -> int:
    """A token count.

    Raises:
        ValueError: not a whole number of 1 or more.
    """
    try:
        count = int(text)
    except ValueError:
        raise ValueError(f"{name} is not a whole number: {text!r}") from None
    if count < 1:
        raise ValueError(f"{name} must be 1 or more, not {count}")
    return count
