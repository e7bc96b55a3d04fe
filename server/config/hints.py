"""The words of configuration errors: what was found, what was expected, what was perhaps meant."""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import inspect

_LONGEST_SHOWN: Final = 80
_FIRST_LONG_ESCAPE: Final = 0x10000
_LONGEST_WHOLE: Final = 10**18
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_USER_INFO = re.compile(r"//[^/?#\s]*@")
_QUERY = re.compile(r"(://[^?\s]*)\?.*", re.DOTALL)
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", re.ASCII)
_TIME_SUFFIX = re.compile(
    r"_(?:[mun]?s|secs?|seconds?|m|mins?|minutes?|h|hours?|millis|milliseconds?)\Z", re.ASCII
)
_SIZE_SUFFIX = re.compile(r"_(?:b|bytes?|[kmg]i?b?)\Z", re.ASCII)
_SUFFIX_UNITS: Final = {"s": "seconds", "bytes": "bytes"}
_TIMES: Final = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_SIZES: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_UNITS: Final[dict[str, Mapping[str, float]]] = {"seconds": _TIMES, "bytes": _SIZES}


def joined(key: str, name: str) -> str:
    """The dotted key of `name` in the table at `key`; a name TOML would quote is quoted."""
    own = name if _PLAIN_KEY.fullmatch(name) else quoted(name)
    return f"{key}.{own}" if key else own


def quoted(text: str) -> str:
    """A TOML basic string, of printable characters alone: nothing in it moves a terminal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{"".join(map(_printable, escaped))}"'


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < _FIRST_LONG_ESCAPE else f"\\U{code:08x}"


def shown(value: object, *, secret: bool = False) -> str:
    """The value as a message shows it: short, on one line, URLs without passwords and queries."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "a string" if secret and value else _shown_text(value)
    if isinstance(value, int | float) and not secret:
        return _shown_number(value)
    return _kind(value)


def _shown_text(value: str) -> str:
    clear = _QUERY.sub(r"\1?***", _USER_INFO.sub("//***@", value))
    cut = clear if len(clear) <= _LONGEST_SHOWN else clear[:_LONGEST_SHOWN] + "…"
    return quoted(cut)


def _shown_number(value: int | float) -> str:
    if isinstance(value, int) and abs(value) < _LONGEST_WHOLE:
        return str(value)
    try:
        return repr(float(value))
    except OverflowError:
        return "a number out of range"


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case int() | float():
            return "a number"
        case dict():
            return "a table"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case datetime.date() | datetime.time():
            return "a date or time"
    return f"a Python {type(value).__name__}"


def expected(kind: inspect.Type, extra: Mapping[str, Any]) -> str:
    """What a field takes, as a phrase."""
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            unit = f" of {extra['unit']}" if "unit" in extra else ""
            return f"a whole number{unit}{_bounds(kind)}"
        case inspect.FloatType():
            unit = extra.get("unit", "seconds")
            return f"a number{'' if unit == '1' else f' of {unit}'}{_bounds(kind)}"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(quoted(str(value)) for value in values)
        case inspect.StrType(min_length=shortest):
            noun = f" ({extra['noun']})" if "noun" in extra else ""
            return f"a string{noun}, not empty" if shortest else f"a string{noun}"
        case inspect.VarTupleType():
            return _expected_list(kind)
        case inspect.Metadata():
            return expected(kind.type, {**extra, **(kind.extra or {})})
        case inspect.UnionType(types=types):
            return " or ".join(
                expected(one, extra) for one in types if not isinstance(one, inspect.NoneType)
            )
    return f"a string or a table with {extra['shorthand']}" if "shorthand" in extra else "a table"


def _expected_list(kind: inspect.VarTupleType) -> str:
    item = kind.item_type
    extra: Mapping[str, Any] = {}
    while isinstance(item, inspect.Metadata):
        extra = {**extra, **(item.extra or {})}
        item = item.type
    things = "tables" if isinstance(item, inspect.StructType) else "strings"
    if isinstance(item, inspect.UnionType):
        things = "whole numbers or strings"
    if "shorthand" in extra:
        things = f"strings or tables with {extra['shorthand']}"
    return f"a list of {things}, not empty" if kind.min_length else f"a list of {things}"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        most = "" if kind.le is None else f" and at most {kind.le}"
        return f" greater than {kind.gt}{most}"
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge} to {kind.le}"
    return "" if kind.ge is None else f" of at least {kind.ge}"


def hint(kind: inspect.Type, extra: Mapping[str, Any], value: object, key: str) -> str:
    """How the value was perhaps meant, beginning with a separator; "" where nobody can tell."""
    match kind, value:
        case ((inspect.IntType() | inspect.FloatType()), str()):
            return _quantity_hint(kind, extra, value)
        case inspect.FloatType(), float() if not math.isfinite(value):
            return ", and finite"
        case inspect.IntType(), float() if value.is_integer():
            return f": write {int(value)}"
        case inspect.BoolType(), "true" | "false":
            return f": write {value} without quotes"
        case inspect.LiteralType(values=values), str():
            close = difflib.get_close_matches(value.lower(), [str(one) for one in values], 1)
            return f"; did you mean {quoted(close[0])}?" if close else ""
        case inspect.VarTupleType(), str():
            return f": write [{_shown_text(value)}]"
        case inspect.VarTupleType(), dict():
            return f": write [[{key}]], with two brackets" if "." not in key else ""
    return ""


def _quantity_hint(kind: inspect.Type, extra: Mapping[str, Any], text: str) -> str:
    matched = _QUANTITY.fullmatch(text)
    factors = _UNITS.get(extra.get("unit", ""), {})
    factor = factors.get(matched[2].lower(), 1 if not matched[2] else None) if matched else None
    if matched is None or factor is None:
        return ", without a unit" if "unit" in extra else ""
    amount = float(matched[1]) * factor
    if isinstance(kind, inspect.IntType) and not amount.is_integer():
        return ""
    plain = f"{int(amount)}" if amount.is_integer() else f"{amount:g}"
    return f": write {plain}, without {'a unit or ' if matched[2] else ''}quotes"


def suggestion(unknown: str, known: Sequence[str], place: str | None) -> str:
    """What an unknown key was perhaps meant to be.

    `place`: the table that does have a key of this name ("" is the top of the file), if any.
    """
    renamed = _same_stem(unknown, known)
    if renamed is not None:
        unit = _SUFFIX_UNITS[renamed.rsplit("_", 1)[-1]]
        return f"did you mean {renamed} ({unit})?"
    if place == "":
        return f"{unknown} belongs at the top of the file, above the first [table]"
    if place is not None:
        return f"{unknown} belongs in {place}"
    close = difflib.get_close_matches(unknown.lower(), known, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"the keys here are {', '.join(known)}"


def _same_stem(unknown: str, known: Sequence[str]) -> str | None:
    """The known key that differs in its unit alone: connect_s for connect_ms, or for connect."""
    name = unknown.lower().replace("-", "_")
    meant = [f"{name}_s", f"{name}_bytes"]
    if _SIZE_SUFFIX.search(name):
        meant.insert(0, _SIZE_SUFFIX.sub("_bytes", name))
    if _TIME_SUFFIX.search(name):
        meant.insert(0, _TIME_SUFFIX.sub("_s", name))
    return next((one for one in meant if one in known), None)
