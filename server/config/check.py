"""Check plain data (as read from TOML, JSON or a flag) against the configuration's Structs.

Walks the data once beside the Structs' types and reports everything that is wrong, where a plain
conversion would stop at the first fault. What is sound is returned, so that later checks still
see it. A field's type says the rest, through the `extra` of its `msgspec.Meta`:

`unit`       "seconds" or "bytes": named in messages, and understood in hints ("2s": write 2)
`read`       a function (text, Source) -> text that canonicalises a string; ValueError if bad
`noun`       what a string is, for messages
`secret`     true: messages never quote the value
`shorthand`  on a Struct: a bare string stands for a table with this one key
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect

from server.config.hints import expected, hint, joined, shown, suggestion

INVALID: Final = object()
"""Stands in a list for an item that was reported, so that the indices of the others hold."""


class Source(NamedTuple):
    """Where values come from: how messages name it, and what its values may refer to."""

    name: str
    directory: str
    """Relative paths start here."""
    environ: Mapping[str, str] | None
    """What an "env:NAME" string is looked up in; None where it must not be."""


class Problem(NamedTuple):
    """One thing that is wrong: its source, the dotted key ("" for the source as a whole), why."""

    source: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class Field(NamedTuple):
    """One type of the tree, without its wrappers: what may be None, and the Meta's `extra`."""

    type: inspect.Type
    optional: bool
    extra: Mapping[str, Any]


Reporter = Callable[[str, str], None]
"""Takes a dotted key and a message."""


def field_of(node: inspect.Type) -> Field:
    """Unwrap `X | None` and `Annotated[X, Meta(...)]`, in either order."""
    optional = False
    extra: dict[str, Any] = {}
    while isinstance(node, inspect.Metadata | inspect.UnionType):
        if isinstance(node, inspect.Metadata):
            extra = {**extra, **(node.extra or {})}
            node = node.type
            continue
        types = [one for one in node.types if not isinstance(one, inspect.NoneType)]
        optional = optional or len(types) < len(node.types)
        if len(types) > 1:  # several scalars: whichever fits
            break
        node = types[0]
    return Field(node, optional, extra)


def reachable(node: inspect.Type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key that leads only through tables, so that one name can set it."""
    table = field_of(node).type
    for one in table.fields if isinstance(table, inspect.StructType) else ():
        yield (*path, one.name)
        yield from reachable(one.type, (*path, one.name))


def node_at(node: inspect.Type, path: tuple[str, ...]) -> inspect.Type:
    """The type at a path that `reachable` gave."""
    for name in path:
        table = field_of(node).type
        assert isinstance(table, inspect.StructType)
        node = next(one.type for one in table.fields if one.name == name)
    return node


def places(node: inspect.Type, path: str = "") -> Iterator[tuple[str, str]]:
    """Every key's own name and the table it belongs to ("" at the top, "pool[]" in a list)."""
    table = field_of(node).type
    if isinstance(table, inspect.VarTupleType):
        yield from places(table.item_type, f"{path}[]")
    for one in table.fields if isinstance(table, inspect.StructType) else ():
        yield one.name, path
        yield from places(one.type, joined(path, one.name))


class Checker:
    """Checks the values of one source; faults go to `report`."""

    def __init__(self, root: inspect.Type, source: Source, report: Reporter) -> None:
        self._places = dict(places(root))
        self._source = source
        self._report = report

    def check(self, node: inspect.Type, value: object, key: str, *, whole: bool) -> object:
        """Return the sound part of `value`, or INVALID.

        `whole`: a table must hold its required keys now (a table that several sources fill may
        get them later).
        """
        field = field_of(node)
        if value is None and field.optional:
            return None
        match field.type:
            case inspect.StructType():
                return self._table(field, value, key, whole=whole)
            case inspect.VarTupleType():
                return self._items(field, value, key)
            case inspect.DictType():
                return self._mapping(field, value, key)
            case _:
                return self._scalar(field, value, key)

    def _table(self, field: Field, value: object, key: str, *, whole: bool) -> object:
        table = field.type
        assert isinstance(table, inspect.StructType)
        if isinstance(value, str) and "shorthand" in field.extra:
            value = {field.extra["shorthand"]: value}
        if not isinstance(value, dict):
            return self._refuse(field, value, key)
        types = {one.name: one.type for one in table.fields}
        self._unknown_keys(value, types, key)
        if whole:
            report_missing(table, value, key, self._report)
        return {
            name: checked
            for name, item in value.items()
            if name in types
            and (checked := self.check(types[name], item, joined(key, name), whole=whole))
            is not INVALID
        }

    def _unknown_keys(
        self, value: Mapping[str, object], known: Mapping[str, object], key: str
    ) -> None:
        for name in value:
            if name not in known:
                advice = suggestion(name, list(known), self._places.get(name))
                self._report(joined(key, name), f"is not a key; {advice}")

    def _items(self, field: Field, value: object, key: str) -> object:
        array = field.type
        assert isinstance(array, inspect.VarTupleType)
        if not isinstance(value, list | tuple) or len(value) < (array.min_length or 0):
            return self._refuse(field, value, key)
        return [
            self.check(array.item_type, item, f"{key}[{index}]", whole=True)
            for index, item in enumerate(value)
        ]

    def _mapping(self, field: Field, value: object, key: str) -> object:
        if not isinstance(value, dict):
            return self._refuse(field, value, key)
        assert isinstance(field.type, inspect.DictType)
        checked: dict[str, object] = {}
        for name, item in value.items():
            own_key = joined(key, name)
            read_name = self._scalar(field_of(field.type.key_type), name, own_key)
            read_item = self.check(field.type.value_type, item, own_key, whole=True)
            if isinstance(read_name, str) and read_name in checked:
                self._report(own_key, f"is given twice, as {name} and in another spelling")
            elif isinstance(read_name, str) and read_item is not INVALID:
                checked[read_name] = read_item
        return checked

    def _scalar(self, field: Field, value: object, key: str) -> object:
        if not _fits(field.type, value):
            return self._refuse(field, value, key)
        if isinstance(value, str):
            return self._text(field, value, key)
        return float(value) if isinstance(field.type, inspect.FloatType) else value  # type: ignore[arg-type]

    def _text(self, field: Field, value: str, key: str) -> object:
        found = "found a string" if field.extra.get("secret") else f"found {shown(value)}"
        # A control character in a name, URL, header or path is a copying accident or an attack.
        if not value.isprintable():
            return self._fault(key, f"{found}, expected no line break or control character in it")
        try:
            read = field.extra.get("read")
            return value if read is None else read(value, self._source)
        except ValueError as error:
            return self._fault(key, f"{found}, {error}")

    def _refuse(self, field: Field, value: object, key: str) -> object:
        found = shown(value, secret=bool(field.extra.get("secret")))
        wanted = expected(field.type, field.extra)
        advice = hint(field.type, field.extra, value, key)
        return self._fault(key, f"found {found}, expected {wanted}{advice}")

    def _fault(self, key: str, message: str) -> object:
        self._report(key, message)
        return INVALID


def report_missing(
    table: inspect.StructType, value: Mapping[str, object], key: str, report: Reporter
) -> None:
    """Report each required key that the table lacks."""
    for one in table.fields:
        if one.required and one.name not in value:
            field = field_of(one.type)
            report(
                joined(key, one.name), f"is missing; expected {expected(field.type, field.extra)}"
            )


def from_text(node: inspect.Type, text: str) -> object:
    """Give a value written as plain text (an environment variable, a flag) its type.

    Numbers and booleans as in TOML (and 1, 0, yes, no, on, off), lists of strings separated by
    commas or as JSON, tables and lists of tables as JSON. A text that is none of these is
    returned as it is, for the check to refuse. Raises ValueError where JSON was needed.
    """
    match field_of(node).type:
        case inspect.IntType():
            return _number(int, text)
        case inspect.FloatType():
            return _number(float, text)
        case inspect.BoolType():
            return _TRUTH.get(text.strip().lower(), text)
        case inspect.VarTupleType(item_type=inspect.Metadata(type=inspect.StrType())) if (
            not text.lstrip().startswith("[")
        ):
            return [part.strip() for part in text.split(",")]
        case inspect.VarTupleType() | inspect.StructType() | inspect.DictType():
            return _json(text)
        case _:
            return text


_TRUTH: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _number(kind: Callable[[str], int | float], text: str) -> int | float | str:
    try:
        return kind(text)
    except ValueError:
        return text


def _json(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # The text itself stays out of the message: it may hold an API key.
        raise ValueError(f"expected JSON: {error}") from error


def _fits(kind: inspect.Type, value: object) -> bool:
    match kind:
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and _bounded(kind, value)
        case inspect.FloatType():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and _is_finite(value) and _bounded(kind, value)
        case inspect.LiteralType(values=values):
            return value in values
        case inspect.StrType(min_length=shortest):
            return isinstance(value, str) and len(value) >= (shortest or 0)
        case inspect.UnionType(types=types):
            return any(_fits(field_of(one).type, value) for one in types)
    raise TypeError(f"a field of type {kind} cannot be configured")


def _is_finite(value: object) -> bool:
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False


def _bounded(kind: inspect.IntType | inspect.FloatType, value: object) -> bool:
    assert isinstance(value, int | float)
    return (
        (kind.gt is None or value > kind.gt)
        and (kind.ge is None or value >= kind.ge)
        and (kind.le is None or value <= kind.le)
    )
