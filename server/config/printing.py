"""A configuration as text, in the form of a configuration file, with its secrets hidden."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from server.config.hints import joined, quoted
from server.config.model import MASK, AdminConfig, Config, PoolConfig, ReplicaConfig


def describe(config: Config) -> str:
    """Every key in effect, defaults included, as TOML that `load` takes back.

    API keys and the values of headers are printed as "***", which `load` refuses; a key that is not
    set is a comment.
    """
    top = [line for name, value in _fields(config) for line in _plain(name, value)]
    tables = [
        _table(name, value) for name, value in _fields(config) if isinstance(value, msgspec.Struct)
    ]
    maps = [_map(name, value) for name, value in _fields(config) if isinstance(value, dict)]
    pools = [_pool(pool) for pool in config.pool]
    return "\n\n".join(["\n".join(top), *tables, *filter(None, maps), *pools]) + "\n"


def _fields(table: msgspec.Struct) -> list[tuple[str, object]]:
    """Names and values, secrets hidden."""
    shown = msgspec.structs.asdict(table)
    if isinstance(table, ReplicaConfig):
        shown["api_key"] = table.api_key and MASK
        shown["headers"] = dict.fromkeys(table.headers, MASK)
    elif isinstance(table, AdminConfig):
        shown["key"] = table.key and MASK
    elif isinstance(table, Config):
        shown["tools"] = table.shown_tools()
    return list(shown.items())


def _table(name: str, table: msgspec.Struct) -> str:
    lines = [line for key, value in _fields(table) for line in _plain(key, value)]
    return "\n".join([f"[{name}]", *lines])


def _map(name: str, given: dict[str, object]) -> str:
    """A table whose keys are free; nothing if it is empty, since that is said above."""
    lines = [f"{joined('', key)} = {_value(value)}" for key, value in given.items()]
    return "\n".join([f"[{name}]", *lines]) if lines else ""


def _pool(pool: PoolConfig) -> str:
    lines = [line for name, value in _fields(pool) for line in _plain(name, value)]
    tables = [
        _table(f"pool.{name}", value)
        for name, value in _fields(pool)
        if isinstance(value, msgspec.Struct)
    ]
    return "\n".join(["[[pool]]", *lines, *tables])


def _plain(name: str, value: object) -> Iterator[str]:
    """The lines of a key that is no table and no list of tables at the top."""
    if name == "pool" or isinstance(value, msgspec.Struct) or (value and isinstance(value, dict)):
        return
    if value is None:
        yield f"# {name} is not set"
    elif isinstance(value, tuple) and any(isinstance(item, msgspec.Struct) for item in value):
        yield from (f"{name} = [", *(f"  {_inline(item)}," for item in value), "]")
    else:
        yield f"{name} = {_value(value)}"


def _inline(table: msgspec.Struct) -> str:
    defaults = {field.name: field.default for field in msgspec.structs.fields(table)}
    given = {
        name: value
        for name, value in _fields(table)
        if value != defaults[name] and value not in (None, {}, ())
    }
    return _value(given)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case msgspec.Struct():
            return _inline(value)
        case dict():
            pairs = (f"{joined('', name)} = {_value(item)}" for name, item in value.items())
            return f"{{ {', '.join(pairs)} }}"
    return repr(value)
