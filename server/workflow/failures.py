"""What a node's data say about its failures: try again, take another branch, use defaults. Pure."""

from __future__ import annotations

import json
from typing import Any, Final, Literal, TypeAlias

import msgspec

from server.workflow.app import NodeSpec
from server.workflow.reading import Reader
from server.workflow.values import Value

__all__ = ["MOST_RETRIES", "FailurePolicy", "Strategy", "read_policy"]

Strategy: TypeAlias = Literal["fail-branch", "default-value"] | None

MOST_RETRIES: Final = 100
"""Dify's editor allows ten."""

_MOST_WAIT_S: Final = 3600.0
_MOST_DEFAULT_CHARS: Final = 1024 * 1024


class FailurePolicy(msgspec.Struct, frozen=True):
    """Of one node."""

    strategy: Strategy = None
    """None: the run fails with the node."""
    defaults: dict[str, Value] = {}
    retries: int = 0
    wait_s: float = 0.0
    """Before each further try."""


_NONE: Final = FailurePolicy()


def read_policy(spec: NodeSpec, retries: bool) -> FailurePolicy:
    """`retries`: whether nodes of this type try again at all. Raises `GraphError`."""
    if not spec.data.get("error_strategy") and not (retries and spec.data.get("retry_config")):
        return _NONE
    data = Reader(spec.data, f"{spec.place}.data" if spec.place else spec.id)
    strategy = _strategy(data)
    count, wait_s = _retry(data.table("retry_config")) if retries else (0, 0.0)
    defaults = _defaults(data) if strategy == "default-value" else {}
    return FailurePolicy(strategy, defaults, count, wait_s)


def _strategy(data: Reader) -> Strategy:
    match data.text("error_strategy"):
        case "fail-branch":
            return "fail-branch"
        case "default-value":
            return "default-value"
        case "" | "none":
            return None
        case other:
            raise data.wrong(
                "error_strategy", f"expected fail-branch or default-value, got {other!r}"[:200]
            )


def _retry(data: Reader) -> tuple[int, float]:
    if not data.flag("retry_enabled"):
        return 0, 0.0
    count = min(max(data.whole("max_retries", 0), 0), MOST_RETRIES)
    wait_s = data.number("retry_interval", 0) / 1000
    return count, min(max(wait_s, 0.0), _MOST_WAIT_S)


def _defaults(data: Reader) -> dict[str, Value]:
    return {each.text("key"): _default(each) for each in data.tables("default_value")}


def _default(data: Reader) -> Any:
    """Values that are no texts may stand there as JSON, since the editor has a text field."""
    value = data.value("value")
    kind = data.text("type", "string")
    if not isinstance(value, str) or kind == "string":
        return str(value) if kind == "string" and isinstance(value, int | float) else value
    if len(value) > _MOST_DEFAULT_CHARS:
        raise data.wrong("value", f"longer than {_MOST_DEFAULT_CHARS} characters")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise data.wrong("value", f"expected a {kind} as JSON, got {value!r}"[:200]) from None
