"""A configuration as text, in the form of a configuration file, with its secrets hidden."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from server.config.hints import joined, quoted
from server.config.model import MASK, Config, PoolConfig, ReplicaConfig


def describe(config: Config) -> str:
    """Every key in effect, defaults included, as TOML that `load` takes back.

    API keys and the values of headers are printed as "***"; a key that is not set is a comment.
    """
    tables = [_table("limits", config.limits), _table("health", config.health)]
    if config.tls is not None:
        tables.insert(0, _table("tls", config.tls))
    top = _lines(config, skip=("tls", "pool", "limits", "health"))
    pools = [_pool(pool) for pool in config.pool]
    return "\n\n".join(["\n".join(top), *tables, *pools]) + "\n"


def _table(name: str, table: msgspec.Struct) -> str:
    return "\n".join([f"[{name}]", *_lines(table)])


def _pool(pool: PoolConfig) -> str:
    replicas = [f"  {_inline(replica)}," for replica in pool.replicas]
    return "\n".join(
        [
            "[[pool]]",
            *_lines(pool, skip=("replicas", "timeouts")),
            "replicas = [",
            *replicas,
            "]",
            "[pool.timeouts]",
            *_lines(pool.timeouts),
        ]
    )


def _lines(table: msgspec.Struct, skip: tuple[str, ...] = ()) -> Iterator[str]:
    for name, value in msgspec.structs.asdict(table).items():
        if name not in skip:
            yield f"# {name} is not set" if value is None else f"{name} = {_value(value)}"


def _inline(replica: ReplicaConfig) -> str:
    shown = msgspec.structs.asdict(replica)
    if replica.api_key is not None:
        shown["api_key"] = MASK
    shown["headers"] = dict.fromkeys(replica.headers, MASK)
    return _value({name: value for name, value in shown.items() if value not in (None, {})})


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            pairs = (f"{joined('', name)} = {_value(item)}" for name, item in value.items())
            return f"{{ {', '.join(pairs)} }}"
    return repr(value)
