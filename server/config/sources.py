"""Where configuration comes from: a TOML file, environment variables, flags.

Each source yields entries: a value and the path of the key it sets. A file is one entry at the
root; a variable or a flag is one entry each. Entries come weakest first, and `merged_into` lays
one over another: tables key by key, everything else (lists too) as a whole.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import inspect

from server.config.check import Problem, Source, from_text, node_at
from server.config.hints import quoted

PREFIX: Final = "TRIOLET_"
FILE_VARIABLE: Final = "TRIOLET_CONFIG"
DEFAULT_FILE: Final = "triolet.toml"

_SERVICE_HOST: Final = "_SERVICE_HOST"
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_.+)?)|_PORT(_[0-9]+_[A-Z]+(_[A-Z]+)?)?")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")

Path = tuple[str, ...]


class Entry(NamedTuple):
    """One value and where it goes; the empty path is the whole configuration."""

    source: Source
    path: Path
    value: object


class ConfigSourceError(Exception):
    """A source as a whole makes no sense. Holds its name and the reason."""

    def __init__(self, source: str, message: str) -> None:
        super().__init__(source, message)
        self.source = source
        self.message = message


def file_entry(path: str | None, environ: Mapping[str, str]) -> Entry | None:
    """Read the file: the one named, else TRIOLET_CONFIG's, else ./triolet.toml if there is one.

    Raises ConfigSourceError if a named file is missing, or a file cannot be read or is not TOML.
    """
    named = path or environ.get(FILE_VARIABLE) or None
    by_variable = not path and named is not None
    if named is None and not os.path.exists(DEFAULT_FILE):
        return None
    chosen = named or DEFAULT_FILE
    name = f"file {_printable(chosen)}"
    asked_by = f" (named by {FILE_VARIABLE})" if by_variable else ""
    tree = _toml(_text(chosen, name, asked_by), name)
    return Entry(Source(name, os.path.dirname(os.path.abspath(chosen)), environ), (), tree)


def listing_entry(path: str, environ: Mapping[str, str]) -> Entry:
    """Read a file that lists replicas: JSON if its name says so, else TOML.

    Raises ConfigSourceError if it cannot be read, or is not what its name says.
    """
    name = f"file {_printable(path)}"
    text = _text(path, name, "")
    tree = _json_tree(text, name) if path.endswith(".json") else _toml(text, name)
    return Entry(Source(name, os.path.dirname(os.path.abspath(path)), environ), (), tree)


def _json_tree(text: str, name: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigSourceError(name, f"is not JSON: {error}") from error


def _text(path: str, name: str, asked_by: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigSourceError(name, f"cannot be read{asked_by}: {reason}") from error
    try:
        # Some editors begin a UTF-8 file with a byte order mark, which TOML does not know.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigSourceError(
            name, f"line {line}: is not UTF-8; save the file as UTF-8"
        ) from error


def _toml(text: str, name: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigSourceError(name, "is nested too deeply") from error
    except ValueError as error:
        raise ConfigSourceError(name, _toml_fault(str(error), text)) from error


def _toml_fault(message: str, text: str) -> str:
    place = _TOML_PLACE.search(message)
    if place is None:
        return f"is not TOML: {message}"
    lines = text.rstrip("\n").split("\n")
    line, column = place[1] or len(lines), place[2] or len(lines[-1]) + 1
    return f"line {line}, column {column}: is not TOML: {message[: place.start()]}"


def environment_entries(
    environ: Mapping[str, str], root: inspect.Type, keys: Sequence[Path], problems: list[Problem]
) -> Iterator[Entry]:
    """One entry per TRIOLET_ variable that has a value, tables before the keys inside them.

    A variable of no key, and a text that is not the JSON it must be, go to `problems`.
    """
    variables = {variable_of(key): key for key in keys}
    services = _service_prefixes(environ)
    given = [name for name in environ if name.startswith(PREFIX) and environ[name]]
    for name in sorted(given, key=lambda one: (one.count("__"), one)):
        if name == FILE_VARIABLE or _is_service_link(name, services):
            continue
        source = Source(f"environment variable {_printable(name)}", os.getcwd(), environ)
        if name in variables:
            yield from _typed(source, root, variables[name], environ[name], problems)
        else:
            advice = _advice(name.upper(), list(variables))
            problems.append(Problem(source.name, "", f"is not a variable of Triolet; {advice}"))


def variable_of(path: Path) -> str:
    """The environment variable that sets a key: ("limits", "body_s") is TRIOLET_LIMITS__BODY_S."""
    return PREFIX + "__".join(path).upper()


def _service_prefixes(environ: Mapping[str, str]) -> list[str]:
    return [name.removesuffix(_SERVICE_HOST) for name in environ if name.endswith(_SERVICE_HOST)]


def _is_service_link(name: str, services: Sequence[str]) -> bool:
    """Whether Kubernetes set this variable, for a Service whose name begins with "triolet"."""
    return any(
        name.startswith(service) and _SERVICE_LINK.fullmatch(name, len(service))
        for service in services
    )


def flag_entries(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    root: inspect.Type,
    keys: Sequence[Path],
    problems: list[Problem],
) -> Iterator[Entry]:
    """One entry per flag that was given, tables before the keys inside them.

    None and () stand for a flag that was not given. A flag of no key, and a text that is not the
    JSON it must be, go to `problems`.
    """
    paths = {".".join(key): key for key in keys}
    source = Source("flag", os.getcwd(), environ)
    for name in sorted(flags, key=lambda one: (one.count("."), one)):
        value = flags[name]
        if value is None or value == ():
            continue
        if name not in paths:
            advice = _advice(name, list(paths))
            problems.append(Problem(source.name, _printable(name), f"is not a key; {advice}"))
        elif isinstance(value, str):
            yield from _typed(source, root, paths[name], value, problems)
        else:
            yield Entry(source, paths[name], value)


def _typed(
    source: Source, root: inspect.Type, path: Path, text: str, problems: list[Problem]
) -> Iterator[Entry]:
    try:
        value = from_text(node_at(root, path), text)
    except ValueError as error:
        problems.append(Problem(source.name, ".".join(path), str(error)))
    else:
        yield Entry(source, path, value)


def _printable(name: str) -> str:
    return name if name.isprintable() else quoted(name)


def _advice(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def merged_into(tree: dict[str, object], path: Path, value: object) -> None:
    """Lay a value over the tree, at a path: tables are merged, anything else is replaced."""
    if not path:
        for name, item in value.items() if isinstance(value, dict) else ():
            merged_into(tree, (name,), item)
        return
    below = tree.get(path[0])
    if len(path) == 1 and not isinstance(value, dict):
        tree[path[0]] = value
        return
    table = below if isinstance(below, dict) else {}
    tree[path[0]] = table
    merged_into(table, path[1:], value)
