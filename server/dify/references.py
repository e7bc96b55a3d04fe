"""Placeholders that name a node, or a variable, that the app does not have. Pure.

A prompt with one fails when it runs, an answer leaves it out; mostly it is a slip of the pen, or
what was left behind when a node was deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.dify.report import Findings
from server.workflow.app import App, NodeSpec
from server.workflow.template import Template

__all__ = ["reference_findings"]

_ELSEWHERE = frozenset({"sys", "env", "conversation", "rag", "context", "histories", "url"})


def reference_findings(app: App, findings: Findings) -> None:
    nodes = {node.id for node in app.graph.nodes}
    declared = {
        "env": {each.name for each in app.environment},
        "conversation": {each.name for each in app.conversation},
    }
    for node in app.graph.nodes:
        for path, selector in _selectors(node):
            head, name = selector[0], selector[1]
            wrong = head not in nodes and head not in _ELSEWHERE
            if wrong or (head in declared and name not in declared[head]):
                what = "a node" if wrong else "a variable"
                message = f"{{{{#{'.'.join(selector)}#}}}} names {what} that is not there"
                findings.add("warning", "reference", _place(node, path), message)


def _selectors(node: NodeSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each once for a node, with where it stands first."""
    seen: set[tuple[str, ...]] = set()
    for path, text in _texts(node.data, ""):
        if "{{#" not in text:
            continue
        for selector in Template(text).selectors:
            if selector not in seen:
                seen.add(selector)
                yield path, selector


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(each, f"{path}.{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _texts(each, f"{path}[{number}]")


def _place(node: NodeSpec, path: str) -> str:
    return node.place if node.place.startswith("model_config") else f"{node.place}.data{path}"
