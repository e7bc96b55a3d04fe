"""tool: how parameters reach a tool in all versions of the format, and what comes of its answer."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.app import ToolRef
from server.workflow.node import NodeError
from server.workflow.reading import GraphError
from server.workflow.services import Tool, ToolFailed, ToolOutput
from server.workflow.tool_arguments import coerced
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, execute, node

FILE = File(type="image", transfer_method="remote_url", url="http://x/y.png", name="y.png")
VARIABLES: dict[str, dict[str, Any]] = {
    "n": {"text": "hello", "num": 3, "list": ["a"], "file": FILE, "none": None}
}


class FakeTool:
    """Keeps what it was called with, and answers as told."""

    name = "search"
    description = ""

    def __init__(self, output: ToolOutput | ToolFailed, schema: dict[str, Any]) -> None:
        self.output, self.schema = output, schema
        self.called: list[tuple[dict[str, Any], dict[str, Any]]] = []

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: Any
    ) -> ToolOutput:
        self.called.append((arguments, settings))
        if isinstance(self.output, ToolFailed):
            raise self.output
        return self.output


class FakeTools:
    def __init__(self, tool: FakeTool | None) -> None:
        self.tool = tool
        self.asked: list[ToolRef] = []

    async def find(self, tool: ToolRef, run: Any) -> Tool:
        self.asked.append(tool)
        if self.tool is None:
            raise ToolFailed("there is no tool; it needs the binding tools.x", "ToolNotFound")
        return self.tool

    async def all_of(self, provider: ToolRef, run: Any) -> list[Tool]:
        raise AssertionError


def data(**fields: Any) -> dict[str, Any]:
    return {
        "provider_id": "langgenius/x/x",
        "provider_type": "builtin",
        "provider_name": "x",
        "tool_name": "search",
        "tool_parameters": {},
        "tool_configurations": {},
    } | fields


async def call(
    output: ToolOutput | ToolFailed | None = None,
    schema: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[FakeTool, FakeRun, Any]:
    tool = FakeTool(output or ToolOutput(text="found"), schema or {"type": "object"})
    run = FakeRun(VARIABLES, tools=FakeTools(tool))
    return tool, run, await execute(node("tool", data(**fields)), run)


async def test_parameters_of_every_kind() -> None:
    """Templates, selectors and constants, those that older editors put elsewhere, and settings."""
    tool, _, result = await call(
        tool_parameters={
            "mixed": {"type": "mixed", "value": "say {{#n.text#}}"},
            "variable": {"type": "variable", "value": ["n", "list"]},
            "file": {"type": "file", "value": ["n", "file"]},
            "constant": {"type": "constant", "value": 5},
            "flag": {"type": "constant", "value": False},
            "text": {"type": "constant", "value": "{{#n.num#}}"},
            "plain": "p {{#n.text#}}",
            "gone": {"type": "variable", "value": ["n", "nothing"]},
            "none": {"type": "mixed", "value": None},
            "null": None,
        },
        tool_configurations={
            "timezone": {"type": "constant", "value": "UTC"},
            "format": "%Y",
            "empty": None,
        },
    )
    arguments, settings = tool.called[0]
    assert arguments == {
        "mixed": "say hello",
        "variable": ["a"],
        "file": FILE,
        "constant": 5,
        "flag": False,
        "text": "3",
        "plain": "p hello",
        "timezone": "UTC",
    }
    assert settings == {"format": "%Y"}
    assert result.inputs["file"] == FILE.as_dict()
    assert result.metadata["tool_info"]["provider_id"] == "langgenius/x/x"


async def test_outputs_and_stream() -> None:
    """Text streams, and is there with files, JSON and the tool's own variables."""
    output = ToolOutput(text="t", files=[FILE], json=[{"a": 1}], variables={"v": 2})
    _, run, result = await call(output)
    assert result.outputs == {"text": "t", "files": [FILE], "json": [{"a": 1}], "v": 2}
    assert run.streamed == [("text", "t")]
    assert run.drained == 1


async def test_no_json_is_an_empty_record() -> None:
    """As in Dify, where graphs look for `json[0].data`."""
    _, run, result = await call(ToolOutput())
    assert result.outputs == {"text": "", "files": [], "json": [{"data": []}]}
    assert run.streamed == []


async def test_an_unknown_tool_names_its_binding() -> None:
    """As an error of the node, so that a failure branch can follow it."""
    run = FakeRun(VARIABLES, tools=FakeTools(None))
    with pytest.raises(NodeError, match=r"binding tools\.x") as caught:
        await execute(node("tool", data()), run)
    assert caught.value.type == "ToolNotFound"


async def test_a_tool_that_fails_shows_its_inputs() -> None:
    """The message is the tool's."""
    with pytest.raises(NodeError, match="no luck") as caught:
        await call(
            ToolFailed("no luck", "ToolInvokeError"),
            tool_parameters={"q": {"type": "mixed", "value": "{{#n.text#}}"}},
        )
    assert caught.value.inputs == {"q": "hello"}


async def test_a_required_variable_must_be_there() -> None:
    """What the tool needs and the graph does not have is named."""
    with pytest.raises(NodeError, match=r"Variable \['n', 'nothing'\] does not exist"):
        await call(
            schema={"required": ["q"]},
            tool_parameters={"q": {"type": "variable", "value": ["n", "nothing"]}},
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_name": ""},
        {"provider_id": "", "provider_name": ""},
        {"tool_parameters": {"q": {"type": "variable", "value": "text"}}},
        {"tool_parameters": {"q": {"type": "variable", "value": ["n", 5]}}},
        {"tool_parameters": []},
    ],
)
def test_wrong_data_is_refused(fields: Any) -> None:
    """At the compiling, with its place."""
    with pytest.raises(GraphError):
        node("tool", data(**fields))


@pytest.mark.parametrize("kind", ["variable", "file"])
@pytest.mark.parametrize("unchosen", ["", [], None])
async def test_a_variable_that_was_not_chosen_is_absent(kind: str, unchosen: Any) -> None:
    """Editors store what nobody filled in; the app runs without it."""
    tool, _, _ = await call(tool_parameters={"q": {"type": kind, "value": unchosen}})
    assert tool.called == [({}, {})]


async def test_runs_do_not_share_settings() -> None:
    """What a tool does to its settings is gone with the run."""
    tool = FakeTool(ToolOutput(text="found"), {"type": "object"})
    compiled = node("tool", data(tool_configurations={"depth": 1}))
    for _ in range(2):
        await execute(compiled, FakeRun(VARIABLES, tools=FakeTools(tool)))
        assert tool.called[-1][1] == {"depth": 1}
        tool.called[-1][1].clear()


def test_what_it_reads() -> None:
    """Selectors of templates and of variables, of old and new parameters."""
    made = node(
        "tool",
        data(
            tool_parameters={
                "a": {"type": "mixed", "value": "{{#a.b#}}"},
                "b": {"type": "variable", "value": ["c", "d"]},
            },
            tool_configurations={"c": {"type": "mixed", "value": "{{#e.f#}}"}},
        ),
    )
    assert set(map(tuple, made.reads())) == {("a", "b"), ("c", "d"), ("e", "f")}
    assert list(made.streams()) == ["text"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("integer", "5", 5),
        ("number", "1.5", 1.5),
        ("number", "many", "many"),
        ("boolean", "True", True),
        ("boolean", "0", False),
        ("boolean", 1, True),
        ("array", "[1]", [1]),
        ("array", "{}", "{}"),
        ("object", '{"a": 1}', {"a": 1}),
        ("string", 5, "5"),
        ("string", {"a": 1}, '{"a": 1}'),
        (["integer", "null"], "5", 5),
        (None, "x", "x"),
    ],
)
def test_coercion(kind: Any, value: Any, expected: Any) -> None:
    """Texts become what the schema says, if they are that."""
    schema = {"properties": {"x": {"type": kind} if kind else {}}}
    assert coerced({"x": value}, schema) == {"x": expected}


def test_empty_is_absent() -> None:
    """An optional number that the graph leaves empty is not sent; an empty text is."""
    schema = {"properties": {"n": {"type": "number"}, "s": {"type": "string"}}}
    assert coerced({"n": "", "s": "", "x": None}, schema) == {"s": ""}
