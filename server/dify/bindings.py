"""Bindings as people write them: `KEY=VALUE` on a command line, or a TOML or JSON file. Pure.

    model:langgenius/openai/*:*=qwen3-8b
    knowledge:8c4620fa-15d7-464f-9cb9-561f1a59eb3f=handbook
    tool:langgenius/tavily/tavily.api_key=tvly-...
    env:SLACK_TOKEN=xoxb-...

The keys are those of the report. A file has the tables `models`, `knowledge`, `tools` and
`environment`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from server.workflow.app import Bindings

__all__ = ["BindingError", "bound", "merged", "read_bindings"]

_KINDS: Final = ("model", "knowledge", "tool", "env")
_MOST_BYTES: Final = 10 * 1024 * 1024


class BindingError(ValueError):
    """A binding that cannot be read."""


def bound(
    options: Iterable[str],
    base: Bindings | None = None,
    read: Callable[[str], str] | None = None,
) -> Bindings:
    """Lay each `KEY=VALUE` over `base`. `read` gets what follows an @ that begins a value: the name
    of a file to take it from. Raises `BindingError`."""
    made = _Making(base or Bindings())
    for option in options:
        kind, colon, rest = option.partition(":")
        if not colon or kind not in _KINDS:
            kinds = ", ".join(f"{one}:" for one in _KINDS)
            raise BindingError(f"{option[:80]!r} must begin with one of {kinds}")
        # Models and knowledge bases are named by others, who may use any sign; values are not.
        split = rest.rpartition if kind in ("model", "knowledge") else rest.partition
        key, equals, value = split("=")
        if not equals or not key or (kind != "env" and not value):
            raise BindingError(f"{kind}:{key[:80]} must be {kind}:KEY=VALUE")
        if value.startswith("@") and read is not None and kind in ("tool", "env"):
            value = read(value[1:])
        made.add(kind, key, value)
    return made.bindings()


class _Making:
    def __init__(self, base: Bindings) -> None:
        self._models = dict(base.models)
        self._knowledge = dict(base.knowledge)
        self._tools = {key: dict(settings) for key, settings in base.tools.items()}
        self._environment = dict(base.environment)

    def add(self, kind: str, key: str, value: str) -> None:
        if kind == "tool":
            provider, dot, setting = key.rpartition(".")
            if not dot or not provider or not setting:
                raise BindingError(f"tool:{key[:80]} must be tool:PROVIDER.SETTING=VALUE")
            self._tools.setdefault(provider, {})[setting] = value
            return
        tables: dict[str, dict[str, Any]] = {
            "model": self._models,
            "knowledge": self._knowledge,
            "env": self._environment,
        }
        tables[kind][key] = value

    def bindings(self) -> Bindings:
        return Bindings(
            models=self._models,
            knowledge=self._knowledge,
            tools=self._tools,
            environment=self._environment,
        )


def merged(base: Bindings, over: Bindings) -> Bindings:
    """All of both; `over` counts where both say something."""
    tools = {key: dict(settings) for key, settings in base.tools.items()}
    for key, settings in over.tools.items():
        tools[key] = {**tools.get(key, {}), **settings}
    return Bindings(
        models={**base.models, **over.models},
        knowledge={**base.knowledge, **over.knowledge},
        tools=tools,
        environment={**base.environment, **over.environment},
    )


def read_bindings(data: bytes, name: str) -> Bindings:
    """A file's, TOML unless `name` ends in ".json". Raises `BindingError`."""
    if len(data) > _MOST_BYTES:
        raise BindingError(f"{name} has {len(data)} bytes; at most {_MOST_BYTES} are read")
    try:
        found = msgspec.json.decode(data) if name.endswith(".json") else _toml(data)
        if isinstance(found, dict):
            _known(found, name)
        return msgspec.convert(found, Bindings)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise BindingError(f"{name}: {exc}") from None


def _toml(data: bytes) -> Any:
    return tomllib.loads(data.decode())


def _known(found: dict[str, Any], name: str) -> None:
    tables = Bindings.__struct_fields__
    for key in found:
        if key not in tables:
            raise BindingError(f"there is no table {key!r}; there are {', '.join(tables)}")
