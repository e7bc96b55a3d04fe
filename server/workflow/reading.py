"""Reading a node's `data`: lenient where exports vary, exact where a node could not run. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["GraphError", "Reader"]


class GraphError(ValueError):
    """A graph that cannot be compiled. `place` is the path in the file, `message` what to mend."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place
        self.message = message


class Reader:
    """A mapping of an export and where it stands. null is as good as absent, as in Dify."""

    __slots__ = ("data", "place")

    def __init__(self, data: Mapping[str, Any], place: str) -> None:
        self.data = data
        self.place = place

    def wrong(self, key: str, message: str) -> GraphError:
        """An error that names the place of `key`."""
        return GraphError(f"{self.place}.{key}" if self.place else key, message)

    def value(self, key: str, default: Any = None) -> Any:
        found = self.data.get(key)
        return default if found is None else found

    def text(self, key: str, default: str = "") -> str:
        """Numbers and booleans are read as their text: YAML has guessed them."""
        found = self.value(key, default)
        if isinstance(found, str):
            return found
        if isinstance(found, int | float):
            return str(found)
        raise self.wrong(key, f"expected a text, got {_kind(found)}")

    def flag(self, key: str, default: bool = False) -> bool:
        found = self.value(key, default)
        if isinstance(found, bool):
            return found
        if isinstance(found, int | float):
            return bool(found)
        if isinstance(found, str):
            return found.strip().lower() in ("true", "1", "yes", "on")
        raise self.wrong(key, f"expected true or false, got {_kind(found)}")

    def number(self, key: str, default: float) -> float:
        found = self.value(key, default)
        if isinstance(found, str) and not found.strip():
            return default
        try:
            number = float(found)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isnan(number):
            raise self.wrong(key, f"expected a number, got {found!r}"[:200])
        return number

    def whole(self, key: str, default: int) -> int:
        number = self.number(key, default)
        if math.isinf(number):
            raise self.wrong(key, f"expected a whole number, got {number}")
        return int(number)

    def table(self, key: str) -> Reader:
        """The mapping there; an empty one if there is none."""
        found = self.value(key, {})
        if not isinstance(found, Mapping):
            raise self.wrong(key, f"expected a mapping, got {_kind(found)}")
        return Reader(found, f"{self.place}.{key}" if self.place else key)

    def items(self, key: str) -> list[Any]:
        """The list there; an empty one if there is none."""
        found = self.value(key, [])
        if not isinstance(found, list | tuple):
            raise self.wrong(key, f"expected a list, got {_kind(found)}")
        return list(found)

    def tables(self, key: str) -> Iterator[Reader]:
        """The mappings of the list there."""
        for number, found in enumerate(self.items(key)):
            place = f"{self.place}.{key}[{number}]" if self.place else f"{key}[{number}]"
            if not isinstance(found, Mapping):
                raise GraphError(place, f"expected a mapping, got {_kind(found)}")
            yield Reader(found, place)

    def selector(self, key: str) -> tuple[str, ...]:
        """A node's id, a name, perhaps a path; empty if there is none."""
        found = self.value(key, ())
        if isinstance(found, str):
            return tuple(part for part in found.split(".") if part)
        if not isinstance(found, list | tuple) or not all(
            isinstance(part, str | int) for part in found
        ):
            raise self.wrong(key, f"expected a list such as [node, name], got {found!r}"[:200])
        return tuple(map(str, found))


def _kind(found: object) -> str:
    if isinstance(found, Mapping):
        return "a mapping"
    if isinstance(found, list | tuple):
        return "a list"
    return f"{found!r}"[:80]
