"""Looking into data that nobody has checked: what is not of the shape is as good as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.workflow.app import ModelRef, NodeSpec

__all__ = ["at", "items", "mapping", "model_key", "model_ref", "text"]


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    if isinstance(value, bool):
        return ""
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def model_ref(value: Any) -> ModelRef | None:
    """A model as nodes name it, {provider, name}, or as agents do, {provider, model}."""
    found = mapping(value)
    name = text(found.get("name")) or text(found.get("model"))
    if not name:
        return None
    provider = text(found.get("provider"))
    if found.get("mode") == "completion":
        return ModelRef(provider, name, "completion")
    return ModelRef(provider, name)


def model_key(ref: ModelRef) -> str:
    """As bindings and `[models]` name it; files written by hand may say no provider."""
    if ref.provider:
        return ref.key
    return f"*:{ref.name}" if ":" in ref.name else ref.name


_EASY: Final = {
    "model": "model_config.model",
    "agent_parameters.model.value": "model_config.model",
    "metadata_model_config": "model_config.dataset_configs.metadata_model_config",
}


def at(node: NodeSpec, path: str) -> str:
    """Where a key of the node's data stands in the file. The nodes of chat, agent-chat and
    completion apps were made: for them it is where they were made from."""
    if not node.place.startswith("model_config"):
        return f"{node.place}.data.{path}"
    if path in _EASY:
        return _EASY[path]
    if path.startswith("agent_parameters.tools.value"):
        return "model_config.agent_mode.tools" + path.removeprefix("agent_parameters.tools.value")
    if path.startswith("dataset_ids"):
        number = path.removeprefix("dataset_ids")
        return f"model_config.dataset_configs.datasets.datasets{number}"
    return node.place
