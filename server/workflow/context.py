"""The context that a model is given to answer from: text, and where it was found. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from server.workflow.node import NodeError
from server.workflow.values import Value

__all__ = ["Context", "read_context"]


class Context(NamedTuple):
    """`resources` are the passages of knowledge in it, as clients show them."""

    text: str = ""
    resources: tuple[dict[str, Any], ...] = ()


def read_context(value: Value) -> Context:
    """A text as it is; a list as its items, one under the other. Anything else is no context.

    Raises `NodeError` for a list item without content.
    """
    if isinstance(value, str):
        return Context(value)
    if not isinstance(value, list):
        return Context()
    texts: list[str] = []
    resources: list[dict[str, Any]] = []
    for item in value:
        if isinstance(item, str):
            texts.append(item)
            continue
        if not isinstance(item, dict) or "content" not in item:
            raise NodeError(
                f"Invalid context structure: {str(item)[:200]}", "InvalidContextStructureError"
            )
        if item.get("summary"):
            texts.append(str(item["summary"]))
        texts.append(str(item["content"]))
        resource = _resource(item)
        if resource is not None:
            resources.append(resource)
    return Context("".join(f"{text}\n" for text in texts).strip(), tuple(resources))


_OF_METADATA = (
    ("position", "position"),
    ("dataset_id", "dataset_id"),
    ("dataset_name", "dataset_name"),
    ("document_id", "document_id"),
    ("document_name", "document_name"),
    ("data_source_type", "data_source_type"),
    ("segment_id", "segment_id"),
    ("retriever_from", "retriever_from"),
    ("score", "score"),
    ("hit_count", "segment_hit_count"),
    ("word_count", "segment_word_count"),
    ("segment_position", "segment_position"),
    ("index_node_hash", "segment_index_node_hash"),
    ("page", "page"),
    ("doc_metadata", "doc_metadata"),
)


def _resource(item: dict[str, Any]) -> dict[str, Any] | None:
    metadata = item.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("_source") != "knowledge":
        return None
    found = {name: metadata.get(key) for name, key in _OF_METADATA}
    of_item = {name: item.get(name) for name in ("content", "files", "summary")}
    return found | of_item
