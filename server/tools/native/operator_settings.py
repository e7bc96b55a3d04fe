"""Settings that know which of them the operator gave, and which came with a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["OperatorSettings", "told_by_operator"]


class OperatorSettings(dict[str, Any]):
    """A graph's settings with the operator's over them. An address counts only from the operator:
    else a file could send a credential that is bound here to a server of its choice."""

    def __init__(self, of_graph: Mapping[str, Any], of_operator: Mapping[str, Any]) -> None:
        super().__init__({**of_graph, **of_operator})
        self.of_operator = of_operator


def told_by_operator(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of the operator alone."""
    return settings.of_operator if isinstance(settings, OperatorSettings) else {}
