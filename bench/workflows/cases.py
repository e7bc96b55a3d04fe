"""What is run: small apps, as exports that every contender reads.

Each is a text in Dify's format. Their nodes only compute, so that what is measured is the engine:
aggregators that hand a value on, a condition, templates, an iteration. In one the rounds wait for a
scripted model, which graphon has none of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

__all__ = ["CASES", "CHAIN_50", "Case", "STREAM", "WAIT"]

QUERY: Final = "to and fro"
ITEMS: Final = ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")

Node = dict[str, Any]


class Case(NamedTuple):
    """An app, what it is run with, and what must come out."""

    name: str
    title: str
    nodes: int
    """Node runs of one run."""
    export: str
    """YAML, in the part of it that JSON is."""
    inputs: dict[str, Any]
    expected: dict[str, Any]
    model_s: float | None = None
    """How long a call of its scripted model takes; None: it calls none."""


def _node(id: str, type: str, **data: Any) -> Node:
    return {"id": id, "type": "custom", "data": {"type": type, "title": id, "desc": "", **data}}


def _start() -> Node:
    variable = {"variable": "q", "label": "q", "type": "paragraph", "required": True}
    return _node("start", "start", variables=[{**variable, "max_length": 1000, "options": []}])


def _hand_on(id: str, *selectors: Sequence[str]) -> Node:
    """An aggregator: the first of the values that is there."""
    listed = [list(selector) for selector in selectors]
    return _node(id, "variable-aggregator", output_type="string", variables=listed)


def _end(*selector: str) -> Node:
    output = {"variable": "result", "value_selector": list(selector), "value_type": "string"}
    return _node("end", "end", outputs=[output])


def _edge(source: str, target: str, handle: str = "source") -> dict[str, Any]:
    return {
        "id": f"{source}-{handle}-{target}-target",
        "source": source,
        "target": target,
        "sourceHandle": handle,
        "targetHandle": "target",
        "type": "custom",
    }


def _chained(ids: Sequence[str]) -> list[dict[str, Any]]:
    return [_edge(one, other) for one, other in pairwise(ids)]


def _export(
    name: str, nodes: Sequence[Node], edges: Sequence[dict[str, Any]], mode: str = "workflow",
    conversation: Sequence[dict[str, Any]] = (),
) -> str:  # fmt: skip
    graph = {"nodes": list(nodes), "edges": list(edges), "viewport": {"x": 0, "y": 0, "zoom": 1}}
    workflow = {
        "graph": graph,
        "features": {},
        "environment_variables": [],
        "conversation_variables": list(conversation),
    }
    app = {"name": name, "mode": mode, "description": "", "icon": "", "icon_background": ""}
    content = {"version": "0.3.0", "kind": "app", "app": app, "dependencies": []}
    return json.dumps({**content, "workflow": workflow}, indent=1)


def _chain(name: str, title: str, length: int) -> Case:
    """start, aggregators in a row, end: `length` nodes."""
    middle = [f"n{number}" for number in range(1, length - 1)]
    nodes, before = [_start()], ("start", "q")
    for id in middle:
        nodes.append(_hand_on(id, before))
        before = (id, "output")
    nodes.append(_end(*before))
    export = _export(name, nodes, _chained(["start", *middle, "end"]))
    return Case(name, title, length, export, {"q": QUERY}, {"result": QUERY})


def _branch() -> Case:
    """A condition, three nodes on either side, a join: 10 nodes, 7 of them run."""
    condition = {
        "id": "c",
        "varType": "string",
        "variable_selector": ["start", "q"],
        "comparison_operator": "contains",
        "value": "fro",
    }
    nodes = [
        _start(),
        _node("if", "if-else", cases=[
            {"case_id": "true", "id": "true", "logical_operator": "and", "conditions": [condition]}
        ]),
        *(_hand_on(f"{side}{number}", (f"{side}{number - 1}", "output") if number > 1
                   else ("start", "q"))
          for side in "ab" for number in (1, 2, 3)),
        _hand_on("join", ("a3", "output"), ("b3", "output")),
        _end("join", "output"),
    ]  # fmt: skip
    edges = [
        _edge("start", "if"),
        _edge("if", "a1", "true"),
        _edge("if", "b1", "false"),
        *_chained(["a1", "a2", "a3", "join"]),
        *_chained(["b1", "b2", "b3", "join", "end"]),
    ]
    export = _export("branch", nodes, edges)
    title = "10 nodes, branch and join"
    return Case("branch-10", title, 7, export, {"q": QUERY}, {"result": QUERY})


def _templates() -> Case:
    """start, eight templates in a row, each with what the one before it gave out, end."""
    middle = [f"n{number}" for number in range(1, 9)]
    nodes, before = [_start()], ["start", "q"]
    for id in middle:
        variables = [{"variable": "text", "value_selector": before}]
        template = "{{ text | trim }}{% if text | length > 100 %}...{% endif %}"
        nodes.append(_node(id, "template-transform", template=template, variables=variables))
        before = [id, "output"]
    nodes.append(_end(*before))
    export = _export("templates", nodes, _chained(["start", *middle, "end"]))
    title = "10 nodes in a row, 8 templates"
    return Case("templates-10", title, 10, export, {"q": QUERY}, {"result": QUERY})


def _iteration() -> Case:
    """Ten rounds of five nodes each, all rounds at once."""
    inside, before = [], ("it", "item")
    for number in range(1, 6):
        inside.append(_hand_on(f"r{number}", before))
        before = (f"r{number}", "output")
    export = _iterated("iteration", inside)
    expected = {"answer": "\n".join(f"- {item}" for item in ITEMS)}
    title = "10 x 5 nodes, parallel iteration"
    return Case("iteration-10x5", title, 53, export, {}, expected)


def _waiting_iteration() -> Case:
    """Ten rounds that wait for a model, all at once: each is a task, as rounds of real apps are."""
    inside = [_hand_on("r1", ("it", "item")), _model("r2", "{{#r1.output#}}"),
              _hand_on("r3", ("r1", "output"))]  # fmt: skip
    expected = {"answer": "\n".join(f"- {item}" for item in ITEMS)}
    title = "10 x 3 nodes, parallel iteration, 1 ms of waiting"
    export = _iterated("waiting", inside)
    return Case("iteration-waits", title, 33, export, {}, expected, model_s=0.001)


def _iterated(name: str, inside: Sequence[Node]) -> str:
    """All rounds at once over a conversation variable; each gives what the last node gives out."""
    marks = {"isInIteration": True, "iteration_id": "it"}
    rounds = [{**one, "data": {**one["data"], **marks}, "parentId": "it"} for one in inside]
    first = _node("itstart", "iteration-start", **marks)
    container = _node(
        "it", "iteration",
        start_node_id="itstart", iterator_selector=["conversation", "items"],
        output_selector=[inside[-1]["id"], "output"], output_type="array[string]",
        iterator_input_type="array[string]", is_parallel=True, parallel_nums=10,
        error_handle_mode="terminated", flatten_output=False,
    )  # fmt: skip
    answer = _node("answer", "answer", answer="{{#it.output#}}", variables=[])
    start = _node("start", "start", variables=[])
    edges = [
        *_chained(["start", "it", "answer"]),
        *_chained(["itstart", *(one["id"] for one in inside)]),
    ]
    items = {"id": "0", "name": "items", "value_type": "array[string]", "value": list(ITEMS)}
    nodes = [start, container, {**first, "parentId": "it"}, *rounds, answer]
    return _export(
        name, nodes, edges, "advanced-chat",
        [{**items, "selector": ["conversation", "items"], "description": ""}],
    )  # fmt: skip


_MODEL: Final = {
    "provider": "langgenius/openai/openai",
    "name": "scripted",
    "mode": "chat",
    "completion_params": {},
}


def _model(id: str, text: str) -> Node:
    prompt = [{"role": "user", "text": text, "id": "p"}]
    return _node(
        id, "llm",
        model=_MODEL, prompt_template=prompt, context={"enabled": False, "variable_selector": []},
        vision={"enabled": False},
    )  # fmt: skip


CHAIN_50: Final = _chain("chain-50", "50 nodes in a row", 50)

CASES: Final = {
    case.name: case
    for case in (
        _chain("start-end", "start, end", 2),
        _chain("chain-10", "10 nodes in a row", 10),
        _branch(),
        CHAIN_50,
        _templates(),
        _iteration(),
        _waiting_iteration(),
    )
}


def _with_model(name: str, last: Node, before: str = "llm") -> str:
    model = _model("llm", "{{#start.q#}}")
    mode = "advanced-chat" if last["data"]["type"] == "answer" else "workflow"
    edges = _chained(["start", before, last["id"]])
    return _export(name, [_start(), model, last], edges, mode)


STREAM: Final = Case(
    "stream", "start, a scripted model, answer", 3,
    _with_model("stream", _node("answer", "answer", answer="{{#llm.text#}}", variables=[])),
    {"q": QUERY}, {},
)  # fmt: skip
"""One run that streams; how many tokens the contender is told."""

WAIT: Final = Case(
    "wait", "start, a model that hangs, end", 3, _with_model("wait", _end("llm", "text")),
    {"q": QUERY}, {},
)  # fmt: skip
"""Runs that wait for a node."""
