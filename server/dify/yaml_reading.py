"""YAML from anywhere into plain values, within bounds, and where each value stood. Pure.

The values are what JSON can carry: null, booleans, numbers of 64 bits, texts, lists, mappings with
text keys. Texts that YAML 1.1 takes for something else (dates, numbers beyond 64 bits) stay texts.
Aliases share one value, so that a small file can stand for a huge one: what it would be when
written out is counted, and bounded, without doing so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from server.dify.yaml_scalars import Scalars

__all__ = ["Document", "DslError", "Limits", "read_yaml"]


class DslError(ValueError):
    """A file that is not imported. `place` is the path in it, such as
    "workflow.graph.nodes[3].data"; `line` counts from 1, if it is known."""

    def __init__(self, place: str, message: str, line: int | None = None) -> None:
        where = place if line is None else f"{place} (line {line})" if place else f"line {line}"
        super().__init__(f"{where}: {message}" if where else message)
        self.place = place
        self.message = message
        self.line = line


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a file may take. Dify itself takes files of 10 MB; the largest public export that we
    know of has 104 nodes and 30,000 values."""

    file_bytes: int = 10 * 1024 * 1024
    values: int = 250_000
    """Scalars, lists and mappings, aliases written out."""
    text_characters: int = 4 * 1024 * 1024
    """Of one text."""
    all_characters: int = 20 * 1024 * 1024
    """Of all texts, aliases written out."""
    depth: int = 64
    """Lists and mappings inside one another."""
    key_characters: int = 1024


class Document(msgspec.Struct, frozen=True):
    """A value and where its parts stand in the file."""

    value: Any
    lines: dict[int, dict[str | int, int]]
    """By `id` of a list or mapping in `value`, the line (from 1) of each of its parts."""

    def line_of(self, place: str) -> int | None:
        """The line of a path such as "workflow.graph.nodes[3].data.model", or of what stands
        nearest around it; None for no line at all."""
        value, line = self.value, None
        for step in _steps(place):
            line = self.lines.get(id(value), {}).get(step, line)
            try:
                value = value[step]
            except (LookupError, TypeError):
                break
        return line


_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def _steps(place: str) -> Iterator[str | int]:
    for found in _STEP.finditer(place):
        yield int(found[1]) if found[1] else found[2]


def read_yaml(data: bytes | str, limits: Limits | None = None) -> Document:
    """Read the one document in `data`. Raises `DslError`."""
    limits = limits or Limits()
    raw = _encoded(data)
    if len(raw) > limits.file_bytes:
        raise DslError("", f"the file has {len(raw)} bytes; at most {limits.file_bytes} are read")
    from yaml import YAMLError

    builder = _Builder(limits)
    try:
        return builder.document(_events(raw))
    except YAMLError as exc:
        raise _broken(exc) from None


def _encoded(data: bytes | str) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return data.encode()
    except UnicodeEncodeError:
        raise DslError("", "the text has half of a surrogate pair in it: not Unicode") from None


def _events(raw: bytes) -> Iterator[Any]:
    import yaml

    return yaml.parse(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _broken(exc: Exception) -> DslError:
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or getattr(exc, "reason", None) or str(exc)
    line = None if mark is None else mark.line + 1
    return DslError("", f"this is not YAML: {problem}"[:300], line)


class _Open:
    """A list or mapping that is being read."""

    __slots__ = ("anchor", "characters", "key", "line", "lines", "merged", "value", "values")

    def __init__(self, value: Any, anchor: str | None, line: int) -> None:
        self.value = value
        self.anchor = anchor
        self.line = line
        self.key: str | None = None
        self.merged: list[Any] = []
        self.lines: dict[str | int, int] = {}
        self.values = 0
        self.characters = 0


class _Anchored(msgspec.Struct, frozen=True):
    value: Any
    values: int
    characters: int


class _Builder:
    """Builds the value of a document, event by event."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored | None] = {}
        self._lines: dict[int, dict[str | int, int]] = {}
        self._values = 0
        self._characters = 0
        self._done: list[Any] = []
        self._scalars = Scalars()

    def document(self, events: Iterator[Any]) -> Document:
        for event in events:
            name = type(event).__name__
            if name == "ScalarEvent":
                self._scalar(event)
            elif name in ("MappingStartEvent", "SequenceStartEvent"):
                self._start(event, {} if name[0] == "M" else [])
            elif name in ("MappingEndEvent", "SequenceEndEvent"):
                self._end()
            elif name == "AliasEvent":
                self._alias(event)
            elif name == "DocumentStartEvent" and self._done:
                raise DslError("", "a second document begins here; a file has one", _line(event))
        if not self._done:
            raise DslError("", "the file is empty")
        return Document(self._done[0], self._lines)

    def _scalar(self, event: Any) -> None:
        text = event.value
        if len(text) > self._limits.text_characters:
            raise self._error(
                f"a text of {len(text)} characters; at most {self._limits.text_characters}", event
            )
        self._count(1, len(text), event)
        if self._expects_key():
            self._take_key(text, event)
            return
        try:
            value = self._scalars.value(event)
        except ValueError as exc:
            raise self._error(str(exc), event) from None
        if event.anchor:
            self._anchors[event.anchor] = _Anchored(value, 1, len(text))
        self._add(value, event)

    def _start(self, event: Any, value: Any) -> None:
        expected = "map" if isinstance(value, dict) else "seq"
        if event.tag not in (None, "!", f"tag:yaml.org,2002:{expected}"):
            raise self._error(f"the tag {event.tag!r} is not read"[:200], event)
        if self._expects_key():
            raise self._error("the key of a mapping must be a text", event)
        if len(self._open) >= self._limits.depth:
            raise self._error(f"more than {self._limits.depth} levels deep", event)
        self._count(1, 0, event)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(value, event.anchor, _line(event)))

    def _end(self) -> None:
        done = self._open.pop()
        for merged in reversed(done.merged):
            done.value = {**merged, **done.value}
        self._lines[id(done.value)] = done.lines
        if done.anchor:
            self._anchors[done.anchor] = _Anchored(done.value, done.values + 1, done.characters)
        if self._open:
            self._open[-1].values += done.values
            self._open[-1].characters += done.characters
        self._add(done.value, None, done.line)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        if name not in self._anchors:
            raise self._error(f"*{name} refers to nothing before it"[:200], event)
        found = self._anchors[name]
        if found is None:
            raise self._error(f"*{name} refers to what it stands in"[:200], event)
        self._count(found.values, found.characters, event)
        if self._expects_key():
            self._take_key(found.value, event)
        else:
            self._add(found.value, event)

    def _expects_key(self) -> bool:
        return (
            bool(self._open) and self._open[-1].key is None and type(self._open[-1].value) is dict
        )

    def _take_key(self, key: Any, event: Any) -> None:
        if not isinstance(key, str) or len(key) > self._limits.key_characters:
            raise self._error("the key of a mapping must be a short text", event)
        home = self._open[-1]
        if key in home.value:
            raise self._error(f"the key {key!r} is there twice"[:200], event)
        home.key = key
        home.lines[key] = _line(event)

    def _add(self, value: Any, event: Any, line: int = 0) -> None:
        if not self._open:
            self._done.append(value)
            return
        home = self._open[-1]
        if type(home.value) is list:
            home.lines[len(home.value)] = line or _line(event)
            home.value.append(value)
            return
        key, home.key = home.key, None
        if key == "<<":
            home.merged.extend(self._merged(value, event))
        else:
            home.value[key] = value

    def _merged(self, value: Any, event: Any) -> list[Mapping[str, Any]]:
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in found):
            raise self._error("<< takes a mapping, or a list of them", event)
        return found

    def _count(self, values: int, characters: int, event: Any) -> None:
        self._values += values
        self._characters += characters
        if self._open:
            self._open[-1].values += values
            self._open[-1].characters += characters
        limits = self._limits
        if self._values > limits.values:
            raise self._error(f"more than {limits.values} values, aliases written out", event)
        if self._characters > limits.all_characters:
            message = f"more than {limits.all_characters} characters, aliases written out"
            raise self._error(message, event)

    def _error(self, message: str, event: Any) -> DslError:
        return DslError(self._place(), message, None if event is None else _line(event))

    def _place(self) -> str:
        place = ""
        for level in self._open:
            if type(level.value) is list:
                place += f"[{len(level.value)}]"
            elif level.key is not None:
                place += f".{level.key}" if place else level.key
        return place[:300]


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
