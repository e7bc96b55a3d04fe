"""The parameter-extractor node: typed values out of a text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.extracted import Parameter, read_parameter, read_values
from server.workflow.node import GraphError, NodeError, Result, Run
from server.workflow.reading import Reader
from server.workflow.services import ModelFacts, ModelFailed, ToolCall, Usage
from server.workflow.values import kind_of
from tests.server.workflow.fakes import FakeRun, app, execute, node, services
from tests.server.workflow.nodes.test_llm import MODEL, REFUSED, Shelf, talk
from tests.server.workflow.scripted_models import Says, ScriptedModels, json_says

PARAMETERS = [
    {"name": "city", "type": "string", "description": "Where to", "required": True},
    {"name": "nights", "type": "number", "description": "", "required": False},
    {"name": "smokes", "type": "bool", "description": "", "required": False},
    {"name": "room", "type": "select", "options": ["single", "double"], "description": ""},
    {"name": "guests", "type": "array[string]", "description": "", "required": False},
]
EMPTY = {"city": "", "nights": 0, "smokes": False, "room": "", "guests": []}
WORDS = {"reasoning_mode": "prompt"}


def data(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "query": ["start", "q"], "parameters": PARAMETERS} | fields


async def ask(models: ScriptedModels, fields: dict[str, Any] | None = None, **run: Any) -> Result:
    served = services(models=models, files=Shelf())
    given = Run(id="run", app=app(), services=served, **run)
    variables = {"start": {"q": "To Porto!"}, "env": {"how": "exactly"}}
    return await execute(
        node("parameter-extractor", data(**(fields or {}))), FakeRun(variables, run=given)
    )


def values(result: Result) -> dict[str, Any]:
    return {name: value for name, value in result.outputs.items() if not name.startswith("__")}


async def test_by_a_tool() -> None:
    """A model with tools is given one whose arguments are the values."""
    arguments = json_says({"city": "Porto", "nights": 3, "guests": ["A"], "room": "double"})
    says = Says(tool_calls=(ToolCall("c", "extract_parameters", arguments),), usage=Usage(9, 3))
    models = ScriptedModels(says)
    result = await ask(models)
    assert values(result) == EMPTY | {
        "city": "Porto",
        "nights": 3,
        "guests": ["A"],
        "room": "double",
    }
    assert (result.outputs["__is_success"], result.outputs["__reason"]) == (1, None)
    assert result.outputs["__usage"]["total_tokens"] == 12
    call = models.calls[0]
    assert not call.stream
    function = call.tools[0]["function"]
    assert call.tool_choice == {"type": "function", "function": {"name": function["name"]}}
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where to"},
            "nights": {"type": "number"},
            "smokes": {"type": "boolean"},
            "room": {"type": "string", "enum": ["single", "double"]},
            "guests": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    }
    record = result.process_data
    assert record["function"] == function
    assert record["tool_call"]["arguments"] == arguments
    assert record["prompts"][-1]["text"] == models.messages[-1]["content"]
    assert result.inputs["query"] == "To Porto!"


async def test_a_tool_that_is_not_called() -> None:
    """What the model says instead is read."""
    assert values(await ask(ScriptedModels('{"city": "Porto"}')))["city"] == "Porto"


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        (WORDS, ModelFacts()),
        ({}, ModelFacts(tools=False)),
        ({"model": MODEL | {"mode": "completion"}}, ModelFacts()),
    ],
)
async def test_in_words(fields: dict[str, Any], facts: ModelFacts) -> None:
    """Where the file says so, or the model has no tools."""
    models = ScriptedModels("<think>{}</think>Here:\n```json\n{'city': 'Porto',}\n```", facts=facts)
    result = await ask(models, fields)
    assert values(result) == EMPTY | {"city": "Porto"}
    assert result.outputs["__is_success"] == 1
    assert models.calls[0].tools == ()
    assert result.process_data["function"] == {}
    assert result.process_data["tool_call"] is None


async def test_an_engine_that_refuses() -> None:
    """First its tools, then its schema: asked in words in the end."""
    models = ScriptedModels(
        Says(failure=REFUSED, learned={"tools": False}),
        Says(failure=REFUSED, learned={"json_schema": False}),
        '{"city": "Porto"}',
    )
    result = await ask(models)
    assert values(result)["city"] == "Porto"
    assert [bool(call.tools) for call in models.calls] == [True, False, False]
    assert [bool(call.response_format) for call in models.calls] == [False, True, False]
    assert "JSON object" in result.process_data["prompts"][0]["text"]


@pytest.mark.parametrize(
    ("answer", "found", "reason"),
    [
        ("I do not know", {}, "no JSON object"),
        ("{}", {}, "city is required"),
        ('{"city": null}', {}, "city is required"),
        ('{"city": {"a": 1}, "nights": 2}', {"nights": 2}, "city is no string"),
        ('{"city": "P", "room": "triple"}', {"city": "P"}, "room is none of its options"),
        ('{"city": "P", "nights": "3"}', {"city": "P", "nights": 3}, None),
        ('{"city": "P", "nights": "3.5"}', {"city": "P", "nights": 3.5}, None),
        ('{"city": "P", "nights": "many"}', {"city": "P"}, "nights is no number"),
        ('{"city": 5, "smokes": "true"}', {"city": "5", "smokes": True}, None),
        ('{"city": "P", "guests": ["a", {}, 2]}', {"city": "P", "guests": ["a", "2"]}, None),
        ('{"city": "P", "guests": "a"}', {"city": "P"}, "guests is no array"),
        ('{"city": "P", "more": 1}', {"city": "P"}, None),
    ],
)
async def test_answers(answer: str, found: dict[str, Any], reason: str | None) -> None:
    """What cannot be read has its default and a reason; the node succeeds all the same."""
    result = await ask(ScriptedModels(answer), WORDS)
    assert values(result) == EMPTY | found
    assert result.outputs["__is_success"] == (0 if reason else 1)
    told = result.outputs["__reason"]
    assert told is None if reason is None else reason in told


async def test_instructions_and_conversation() -> None:
    """Both are shown, with variables filled in."""
    models = ScriptedModels("{}")
    fields = {"instruction": "Read {{#env.how#}}.", "memory": {"window": {"enabled": False}}}
    result = await ask(models, fields, history=talk(1))
    asked = models.messages[-1]["content"]
    assert "<instructions>\nRead exactly.\n</instructions>" in asked
    assert "<conversation>\nHuman: question 0 " in asked
    assert result.inputs["instruction"] == "Read exactly."


async def test_a_model_that_fails() -> None:
    """That alone fails the node."""
    with pytest.raises(NodeError, match="no way") as failed:
        await ask(ScriptedModels(Says(failure=ModelFailed("no way", "InvokeConnectionError"))))
    assert failed.value.outputs["__is_success"] == 0
    assert failed.value.process_data["prompts"]


@pytest.mark.parametrize(
    ("parameter", "place"),
    [
        ({"name": "", "type": "string"}, r"parameters\[0\].name"),
        ({"name": "__reason", "type": "string"}, r"parameters\[0\].name"),
        ({"name": "a", "type": "date"}, r"parameters\[0\].type"),
    ],
)
def test_wrong_parameters(parameter: dict[str, Any], place: str) -> None:
    """Told at import, with their place."""
    with pytest.raises(GraphError, match=place):
        node("parameter-extractor", data(parameters=[parameter]))


def test_options_are_those_of_a_text() -> None:
    """Exports keep them when the type is changed to a list; no list is one of them."""
    kept = read_parameter(
        Reader({"name": "a", "type": "array[string]", "options": ["x", "y"]}, "at")
    )
    assert "enum" not in kept.schema
    assert read_values([kept], {"a": ["x"]}).reason is None


TYPES = ["string", "number", "boolean"]
TYPES += [f"array[{item}]" for item in ("string", "number", "boolean", "object")]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner, max_size=1),
    max_leaves=5,
)


@given(st.sampled_from(TYPES), st.dictionaries(st.just("a"), JSON))
def test_values_have_their_types(type: str, answer: dict[str, Any]) -> None:
    """Whatever a model answers, a value is of the type that was asked for."""
    value = read_values([Parameter(name="a", type=type)], answer).values["a"]
    assert kind_of(value) == type or (value == [] and type.startswith("array"))
