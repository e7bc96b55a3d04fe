"""Inputs as they are written on a command line, by the kinds that the app declares."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from server.workflow.app import InputSpec

__all__ = ["GivenError", "GivenFile", "given_event", "given_file", "given_inputs"]

_MOST_BYTES: Final = 100 * 1024 * 1024
_FILES: Final = ("file", "file-list")


class GivenError(ValueError):
    """An input that cannot be what it is written as. The message says what to write."""


class GivenFile(msgspec.Struct, frozen=True):
    """A file of this machine, to be kept where runs find it."""

    content: bytes
    name: str
    mime_type: str


def given_inputs(specs: Sequence[InputSpec], written: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` for each, by name. Files are `GivenFile` or, for a URL, what a client sends.

    Whether they are what the app takes is found later. Raises `GivenError`.
    """
    known = {spec.name: spec for spec in specs}
    given: dict[str, Any] = {}
    for text in written:
        name, equals, value = text.partition("=")
        spec = known.get(name)
        if not equals:
            raise GivenError(f"--input {text!r} is not NAME=VALUE")
        if spec is None:
            raise GivenError(f"the app has no input {name!r}; {_all_of(specs)}")
        if spec.type == "file-list":
            given.setdefault(name, []).append(given_file(name, value))
        elif name in given:
            raise GivenError(f"the input {name!r} is given twice")
        else:
            given[name] = _one(spec, value)
    missing = [spec for spec in specs if spec.required and spec.name not in given]
    if missing:
        raise GivenError(_missing(missing))
    return given


def given_event(written: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` for each field of the event that begins the run: no app declares them. A value
    that is JSON is what it says, any other is a text. Raises `GivenError`."""
    given: dict[str, Any] = {}
    for text in written:
        name, equals, value = text.partition("=")
        if not equals:
            raise GivenError(f"--input {text!r} is not NAME=VALUE")
        try:
            given[name] = json.loads(value)
        except (ValueError, RecursionError):
            given[name] = value
    return given


def _one(spec: InputSpec, value: str) -> Any:
    if spec.type == "file":
        return given_file(spec.name, value)
    if spec.type == "json_object":
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise GivenError(f"the input {spec.name!r} must be a JSON object: {exc}") from None
    return value


def given_file(name: str, value: str) -> GivenFile | dict[str, Any]:
    """`@FILE` of this machine, or a URL as a client sends it. Raises `GivenError`."""
    if value.startswith(("http://", "https://")):
        return {"transfer_method": "remote_url", "url": value}
    if not value.startswith("@"):
        raise GivenError(f"the input {name!r} is a file: write {name}=@FILE, or its URL")
    path = Path(value[1:])
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as exc:
        raise GivenError(f"{path}: {exc.strerror or exc}") from None
    if len(content) > _MOST_BYTES:
        raise GivenError(f"{path}: it has more than {_MOST_BYTES} bytes")
    mime_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return GivenFile(content, path.name, mime_type)


def _missing(specs: Sequence[InputSpec]) -> str:
    options = " ".join(f"--input {spec.name}={_example(spec)}" for spec in specs)
    return f"the app needs more: {options}"


def _example(spec: InputSpec) -> str:
    if spec.type in _FILES:
        return "@FILE"
    if spec.type == "json_object":
        return "'{...}'"
    if spec.options:
        return "|".join(spec.options)
    return {"number": "NUMBER", "checkbox": "true"}.get(spec.type, "TEXT")


def _all_of(specs: Sequence[InputSpec]) -> str:
    if not specs:
        return "it takes none"
    return "it has " + ", ".join(f"{spec.name} ({spec.type})" for spec in specs)
