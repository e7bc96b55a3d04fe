"""Graphs drawn at random: start, code, if-else, template, aggregator, iteration, answer, end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import yaml
from hypothesis import strategies as st

WORDS = st.sampled_from(["a", "ab", "b", "hello", ""])


class Drawn(NamedTuple):
    export: str
    inputs: dict[str, str]
    query: str | None
    timed: bool
    """Whether the order of its text depends on how long nodes take."""


class _Graph:
    """A graph as it grows: every node comes after those it hangs on, and names variables of those
    alone. What it named of others would depend on who is faster."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], chat: bool) -> None:
        self.draw = draw
        self.chat = chat
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, str]] = []
        self.handles: list[tuple[str, str]] = [("start", "source")]
        self._texts: list[list[str]] = [["start", "q"]]
        self._lists: list[list[str]] = []
        self._before: dict[str, set[str]] = {"start": {"start", "sys"}}
        self._now = "start"

    def begin(self, id: str) -> None:
        """A node is to come, behind one or two others."""
        edges = self.draw(
            st.lists(
                st.sampled_from(self.handles),
                min_size=1,
                max_size=2,
                unique_by=lambda each: each[0],
            )
        )
        self._before[id] = {id}.union(*(self._before[source] for source, _ in edges))
        self._now = id
        self.edges += [
            {"source": source, "target": id, "sourceHandle": handle} for source, handle in edges
        ]

    def add(self, id: str, type: str, handles: tuple[str, ...] = ("source",), **data: Any) -> None:
        self.nodes.append({"id": id, "data": {"type": type, "title": id, **data}})
        self.handles += [(id, handle) for handle in handles]

    def gives(self, selector: list[str], *, is_list: bool = False) -> None:
        self._texts.append(selector)
        if is_list:
            self._lists.append(selector)

    def text(self) -> list[str]:
        """The selector of something to show."""
        found: list[str] = self.draw(st.sampled_from(self._seen(self._texts)))
        return found

    def items(self) -> list[str] | None:
        """The selector of a list, if there is one."""
        seen = self._seen(self._lists)
        return self.draw(st.sampled_from(seen)) if seen else None

    def _seen(self, selectors: list[list[str]]) -> list[list[str]]:
        return [each for each in selectors if each[0] in self._before[self._now]]

    def mixed(self) -> str:
        """Text around one or two variables."""
        count: int = self.draw(st.integers(1, 2))
        parts = ["{{#" + ".".join(self.text()) + "#}}" for _ in range(count)]
        begin: str = self.draw(st.sampled_from(["", "x "]))
        return begin + "-".join(parts)


def _template(graph: _Graph, id: str) -> None:
    graph.begin(id)
    variables = [
        {"variable": name, "value_selector": graph.text()}
        for name in ("v", "w")[: graph.draw(st.integers(1, 2))]
    ]
    shown = " ".join(f"{{{{ {each['variable']} }}}}" for each in variables)
    source = f"<{id} {shown}>"
    graph.add(id, "template-transform", template=source, variables=variables)
    graph.gives([id, "output"])


def _if_else(graph: _Graph, id: str) -> None:
    graph.begin(id)

    def condition() -> dict[str, Any]:
        operator = graph.draw(
            st.sampled_from(["contains", "not contains", "is", "is not", "start with", "end with"])
            | st.sampled_from(["empty", "not empty"])
        )
        return {
            "id": "c",
            "varType": "string",
            # Of the start node alone: a condition on what was skipped fails the run.
            "variable_selector": ["start", graph.draw(st.sampled_from(["q", "r"]))],
            "comparison_operator": operator,
            "value": graph.draw(WORDS),
        }

    cases = [
        {
            "case_id": name,
            "logical_operator": graph.draw(st.sampled_from(["and", "or"])),
            "conditions": [condition() for _ in range(graph.draw(st.integers(1, 2)))],
        }
        for name in ("true", "second")[: graph.draw(st.integers(1, 2))]
    ]
    handles = (*(case["case_id"] for case in cases), "false")
    graph.add(id, "if-else", handles, cases=cases)


def _aggregator(graph: _Graph, id: str) -> None:
    graph.begin(id)
    variables = [graph.text() for _ in range(graph.draw(st.integers(1, 3)))]
    graph.add(id, "variable-aggregator", variables=variables, output_type="string")
    graph.gives([id, "output"])


def _code(graph: _Graph, id: str) -> None:
    graph.begin(id)
    items = graph.draw(st.lists(st.sampled_from(["x", "y", "z"]), max_size=3))
    source = f"def main():\n    return {{'result': {items!r}}}\n"
    outputs = {"result": {"type": "array[string]", "children": None}}
    graph.add(id, "code", code=source, code_language="python3", outputs=outputs, variables=[])
    graph.gives([id, "result"], is_list=True)


def _iteration(graph: _Graph, id: str) -> None:
    graph.begin(id)
    items = graph.items()
    if items is None:
        graph.add(id, "template-transform", template="no list", variables=[])
        return
    inside, begin = f"{id}inner", f"{id}start"
    graph.add(
        id,
        "iteration",
        iterator_selector=items,
        output_selector=[inside, "output"],
        start_node_id=begin,
        is_parallel=False,
        parallel_nums=10,
        error_handle_mode="terminated",
        flatten_output=True,
        output_type="array[string]",
    )
    within = {"isInIteration": True, "iteration_id": id}
    graph.nodes.append(
        {"id": begin, "parentId": id, "data": {"type": "iteration-start", "title": "", **within}}
    )
    variables = [
        {"variable": "i", "value_selector": [id, "item"]},
        {"variable": "n", "value_selector": [id, "index"]},
        {"variable": "o", "value_selector": ["start", "q"]},
    ]
    source = "{{ n }}{{ i }}{{ o }}"
    data = {"type": "template-transform", "title": "", "template": source, "variables": variables}
    graph.nodes.append({"id": inside, "parentId": id, "data": data | within})
    graph.edges.append({"source": begin, "target": inside, "sourceHandle": "source"})
    graph.gives([id, "output"], is_list=True)


def _shown(graph: _Graph, id: str) -> None:
    graph.begin(id)
    if graph.chat:
        graph.add(id, "answer", answer=graph.mixed())
        return
    outputs = [
        {"variable": f"{id}_{name}", "value_selector": graph.text()}
        for name in ("a", "b")[: graph.draw(st.integers(1, 2))]
    ]
    graph.add(id, "end", (), outputs=outputs)


_KINDS = (_template, _template, _if_else, _if_else, _aggregator, _code, _iteration, _shown)


@st.composite
def drawn(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Drawn:
    """An export and what goes into it."""
    chat = draw(st.booleans())
    graph = _Graph(draw, chat)
    if chat:
        graph.gives(["sys", "query"])
    variables = [
        {"variable": name, "label": name, "type": "text-input", "required": False}
        for name in ("q", "r")
    ]
    start = {"id": "start", "data": {"type": "start", "title": "start", "variables": variables}}
    kinds = draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=9))
    for number, kind in enumerate(kinds):
        kind(graph, f"n{number}")
    _shown(graph, "last")
    timed = not {_code, _iteration}.isdisjoint(kinds)
    export = {
        "version": "0.3.1",
        "kind": "app",
        "app": {"name": "drawn", "mode": "advanced-chat" if chat else "workflow"},
        "workflow": {
            "graph": {"nodes": [start, *graph.nodes], "edges": graph.edges},
            "features": {},
            "environment_variables": [],
            "conversation_variables": [],
        },
    }
    inputs = {"q": draw(WORDS), "r": draw(WORDS)}
    query = draw(WORDS) if chat else None
    return Drawn(yaml.safe_dump(export, sort_keys=False), inputs, query, timed)
