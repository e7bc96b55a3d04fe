"""Checking what code gave out against what its node declares, as Dify does. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec

from server.workflow.node import NodeError

__all__ = ["DEFAULT_LIMITS", "OutputLimits", "OutputSpec", "checked", "numbers_read"]


class OutputLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What code may give out; the names and defaults are those of Dify's CODE_MAX_* settings."""

    string_length: int = 400_000
    """In characters."""
    number: int = 9_223_372_036_854_775_807
    """Its negative is the least."""
    precision: int = 20
    """Digits behind the point."""
    depth: int = 5
    """Of objects within objects."""
    number_array_length: int = 1000
    string_array_length: int = 30
    object_array_length: int = 30


DEFAULT_LIMITS: Final = OutputLimits()


class OutputSpec(msgspec.Struct, frozen=True):
    """A declared output. Without `children` an object may hold anything."""

    type: str
    children: dict[str, OutputSpec] | None = None


Schema: TypeAlias = Mapping[str, OutputSpec]

_EXPONENT: Final = re.compile(r"-?\d+\.?\d*e[+-]\d+")


def numbers_read(value: Any) -> Any:
    """Texts such as "1e+5" as numbers, wherever they stand, as Dify reads a result."""
    if isinstance(value, str):
        return float(value) if _EXPONENT.fullmatch(value) else value
    if isinstance(value, dict):
        return {name: numbers_read(item) for name, item in value.items()}
    if isinstance(value, list):
        return [numbers_read(item) for item in value]
    return value


def checked(result: Any, schema: Schema, limits: OutputLimits = DEFAULT_LIMITS) -> dict[str, Any]:
    """The outputs, their texts without NUL. Raises `NodeError`, whose type is Dify's name for what
    is wrong."""
    if not isinstance(result, dict):
        raise _wrong(f"main must return an object, not {_kind(result)}")
    return _Check(limits).object(result, schema, "", 1)


class _Check:
    """One result. `path` names where a value stands, `depth` counts the objects around it."""

    def __init__(self, limits: OutputLimits) -> None:
        self._limits = limits
        self._checks: dict[str, Callable[[Any, OutputSpec, str, int], Any]] = {
            "string": lambda value, _, path, __: self._string(value, path),
            "number": lambda value, _, path, __: self._number(value, path),
            "boolean": lambda value, _, __, ___: value,
            "object": self._object,
            "array[string]": self._strings,
            "array[number]": self._numbers,
            "array[boolean]": self._booleans,
            "array[object]": self._objects,
        }

    def object(
        self, result: dict[str, Any], schema: Schema | None, prefix: str, depth: int
    ) -> dict[str, Any]:
        if depth > self._limits.depth:
            raise NodeError(
                f"Depth limit {self._limits.depth} reached, object too deep.", "DepthLimitError"
            )
        if schema is None:
            for name, value in result.items():
                self._anything(value, _below(prefix, name), depth)
            return result
        outputs = {}
        for name, spec in schema.items():
            path = _below(prefix, name)
            if name not in result:
                raise _wrong(f"Output {path} is missing.")
            outputs[name] = self._declared(result[name], spec, path, depth)
        if len(outputs) != len(result):
            raise NodeError("Not all output parameters are validated.", "CodeNodeError")
        return outputs

    def _declared(self, value: Any, spec: OutputSpec, path: str, depth: int) -> Any:
        check = self._checks.get(spec.type)
        if check is None:
            raise _wrong(f"Output type {spec.type} is not supported.")
        return None if value is None else check(value, spec, path, depth)

    def _string(self, value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise _wrong(f"Output {path} must be a string, got {type(value).__name__} instead.")
        if len(value) > self._limits.string_length:
            raise _wrong(
                f"The length of output variable `{path}` must be"
                f" less than {self._limits.string_length} characters"
            )
        return value.replace("\x00", "")

    def _number(self, value: Any, path: str) -> int | float:
        if not isinstance(value, int | float):
            raise _wrong(f"Output {path} is not a number, got {_kind(value)} instead.")
        most = self._limits.number
        if not -most <= value <= most:
            raise _wrong(
                f"Output variable `{path}` is out of range, it must be between {-most} and {most}."
            )
        if isinstance(value, float) and _digits_behind_point(value) > self._limits.precision:
            raise _wrong(
                f"Output variable `{path}` has too high precision,"
                f" it must be less than {self._limits.precision} digits."
            )
        return int(value) if isinstance(value, bool) else value

    def _object(self, value: Any, spec: OutputSpec, path: str, depth: int) -> Any:
        if not isinstance(value, dict):
            raise _wrong(f"Output {path} is not an object, got {_kind(value)} instead.")
        return self.object(value, spec.children, path, depth + 1)

    def _strings(self, value: Any, spec: OutputSpec, path: str, depth: int) -> list[Any]:
        items = self._array(value, path, self._limits.string_array_length)
        return [
            None if item is None else self._string(item, f"{path}[{at}]")
            for at, item in enumerate(items)
        ]

    def _numbers(self, value: Any, spec: OutputSpec, path: str, depth: int) -> list[Any]:
        items = self._array(value, path, self._limits.number_array_length)
        for at, item in enumerate(items):
            if not isinstance(item, int | float):
                raise _wrong(
                    f"The element at index {at} of output variable `{path}` must be a number."
                )
        return [self._number(item, f"{path}[{at}]") for at, item in enumerate(items)]

    def _booleans(self, value: Any, spec: OutputSpec, path: str, depth: int) -> list[Any]:
        items = self._array(value, path, None)
        for at, item in enumerate(items):
            if item is not None and not isinstance(item, bool):
                raise _wrong(f"Output {path}[{at}] is not a boolean, got {_kind(item)} instead.")
        return items

    def _objects(self, value: Any, spec: OutputSpec, path: str, depth: int) -> list[Any]:
        items = self._array(value, path, self._limits.object_array_length)
        outputs: list[Any] = []
        for at, item in enumerate(items):
            if item is not None and not isinstance(item, dict):
                raise _wrong(
                    f"Output {path}[{at}] is not an object,"
                    f" got {_kind(item)} instead at index {at}."
                )
            within = f"{path}[{at}]"
            outputs.append(item and self.object(item, spec.children, within, depth + 1))
        return outputs

    def _array(self, value: Any, path: str, most: int | None) -> list[Any]:
        if not isinstance(value, list):
            raise _wrong(f"Output {path} is not an array, got {_kind(value)} instead.")
        if most is not None and len(value) > most:
            raise _wrong(
                f"The length of output variable `{path}` must be less than {most} elements."
            )
        return value

    def _anything(self, value: Any, path: str, depth: int) -> None:
        """A value that nothing is declared of: its kind is what it is."""
        if isinstance(value, dict):
            self.object(value, None, path, depth + 1)
        elif isinstance(value, list):
            self._any_array(value, path, depth)
        elif isinstance(value, str):
            self._string(value, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._number(value, path)

    def _any_array(self, items: list[Any], path: str, depth: int) -> None:
        """All of the kind of the first, or null; an array that begins with null is not looked at,
        as in Dify."""
        if not items or items[0] is None:
            return
        kind = next((kind for kind in _KINDS if isinstance(items[0], kind)), None)
        if kind is None or not all(item is None or isinstance(item, kind) for item in items):
            raise _wrong(
                f"Output {path} is not a valid array. make sure all elements are of the same type."
            )
        for at, item in enumerate(items):
            if isinstance(item, list):
                self._nested(item, f"{path}[{at}]", depth + 1)
            elif item is not None:
                self._anything(item, f"{path}[{at}]", depth)

    def _nested(self, items: list[Any], path: str, depth: int) -> None:
        if depth > self._limits.depth:
            raise NodeError(
                f"Depth limit {self._limits.depth} reached, object too deep.", "DepthLimitError"
            )
        self._any_array(items, path, depth)


_KINDS: Final = ((int, float), (str,), (dict,), (list,))


def _below(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _digits_behind_point(value: float) -> int:
    exponent = Decimal(str(value)).normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def _kind(value: Any) -> str:
    return str(type(value))


def _wrong(message: str) -> NodeError:
    return NodeError(message, "OutputValidationError")
