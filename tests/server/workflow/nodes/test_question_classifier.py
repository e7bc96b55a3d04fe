"""The question-classifier node: which way the run goes."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.node import GraphError, NodeError, Result, Run
from server.workflow.services import ModelFacts, ModelFailed, Usage
from server.workflow.values import File, Value
from tests.server.workflow.fakes import FakeRun, app, execute, node, services
from tests.server.workflow.nodes.test_llm import MODEL, REFUSED, Shelf, talk
from tests.server.workflow.scripted_models import Says, ScriptedModels, json_says

CLASSES = [
    {"id": "1", "name": "Weather"},
    {"id": "1711512811520", "name": "{{#env.product#}} questions", "label": "Product"},
    {"id": "x-3", "name": "Other"},
]
VARIABLES: dict[str, dict[str, Value]] = {"start": {"q": "Will it rain?"}, "env": {"product": "T"}}


def data(**fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "classes": CLASSES,
        "query_variable_selector": ["start", "q"],
    } | fields


async def ask(models: ScriptedModels, fields: dict[str, Any] | None = None, **run: Any) -> Result:
    served = services(models=models, files=Shelf())
    given = Run(id="run", app=app(), services=served, **run)
    return await execute(
        node("question-classifier", data(**(fields or {}))), FakeRun(VARIABLES, run=given)
    )


def category(id: Any, name: str = "?") -> str:
    return json_says({"keywords": [], "category_id": id, "category_name": name})


async def test_a_class() -> None:
    """Its name with variables filled in, its label, its id; the run goes on by that handle."""
    models = ScriptedModels(Says(pieces=[category("1711512811520")], usage=Usage(30, 9)))
    result = await ask(models)
    assert result.handle == "1711512811520"
    usage = result.outputs.pop("usage")
    assert result.outputs == {
        "class_name": "T questions",
        "class_label": "Product",
        "class_id": "1711512811520",
    }
    assert (usage["total_tokens"], result.metadata["total_tokens"]) == (39, 39)
    assert result.inputs == {
        "query": "Will it rain?",
        "model_provider": "openai",
        "model_name": "gpt-4o",
    }
    asked = result.process_data["prompts"][-1]["text"]
    assert asked == models.messages[-1]["content"]
    assert asked.endswith("<text>\nWill it rain?\n</text>")
    assert '{"category_id": "1711512811520", "category_name": "T questions"}' in asked
    assert result.outputs.get("class_label") == "Product"


@pytest.mark.parametrize(
    ("answer", "handle"),
    [
        (category("x-3"), "x-3"),
        (category(1), "1"),
        ("<think>1? no</think>```json\n" + category("x-3") + "\n```", "x-3"),
        ("It is {'category_id': 'x-3', 'category_name': 'Other',}", "x-3"),
        (category("made up", "Other"), "x-3"),
        (category("made up"), "1"),
        ('{"category_id": ["x-3"]}', "1"),
        ("I do not know", "1"),
        ("", "1"),
        ("[1, 2]", "1"),
        ("[" + category("x-3") + "]", "x-3"),
    ],
)
async def test_answers(answer: str, handle: str) -> None:
    """What is nearly right is read; what is not known is the first class."""
    assert (await ask(ScriptedModels(answer))).handle == handle


async def test_labels() -> None:
    """A class without one has its number."""
    assert (await ask(ScriptedModels(category("x-3")))).outputs["class_label"] == "CLASS 3"


async def test_a_schema_of_the_classes() -> None:
    """Engines that make answers fit can make no class up; those that refuse are asked without."""
    refuses = Says(failure=REFUSED, learned={"json_schema": False})
    models = ScriptedModels(refuses, category("x-3"))
    assert (await ask(models)).handle == "x-3"
    first, second = models.calls
    assert first.response_format is not None
    schema = first.response_format["json_schema"]["schema"]
    assert schema["properties"]["category_id"]["enum"] == ["1", "1711512811520", "x-3"]
    assert second.response_format is None
    assert first.messages == second.messages
    models = ScriptedModels(category("x-3"), facts=ModelFacts(json_schema=False))
    await ask(models)
    assert models.calls[0].response_format is None


async def test_instructions_conversation_and_files() -> None:
    """All of them are shown; the rules come first, and are the same for every question."""
    fields = {
        "instruction": "Prefer {{#env.product#}}.",
        "memory": {"window": {"enabled": True, "size": 1}},
        "vision": {"enabled": True, "configs": {"variable_selector": ["start", "f"]}},
    }
    models = ScriptedModels(category("1"))
    image = File(type="image", transfer_method="local_file", name="a.png")
    VARIABLES["start"]["f"] = image
    try:
        await ask(models, fields, history=talk(3))
    finally:
        del VARIABLES["start"]["f"]
    picture, text = models.messages[-1]["content"]
    assert picture["type"] == "image_url"
    assert "<instructions>\nPrefer T.\n</instructions>" in text["text"]
    assert "<conversation>\nHuman: question 2 " in text["text"]
    assert "question 1" not in text["text"]
    await ask(models)
    assert models.calls[0].messages[:-1] == models.calls[1].messages[:-1]


async def test_a_completion_model() -> None:
    """It gets all in one text."""
    models = ScriptedModels(category("x-3"))
    result = await ask(models, {"model": MODEL | {"mode": "completion"}})
    assert result.handle == "x-3"
    prompt = models.calls[0].prompt
    assert prompt is not None
    assert prompt.endswith("Will it rain?\n</text>\n\nOutput:\n")


async def test_no_query() -> None:
    """An empty one is sorted too."""
    models = ScriptedModels(category("x-3"))
    result = await ask(models, {"query_variable_selector": ["gone", "q"]})
    assert result.inputs["query"] is None
    assert models.messages[-1]["content"].endswith("<text>\n\n</text>")


async def test_a_model_that_fails() -> None:
    """The failure is the node's."""
    with pytest.raises(NodeError, match="no way") as failed:
        await ask(ScriptedModels(Says(failure=ModelFailed("no way", "InvokeConnectionError"))))
    assert failed.value.type == "InvokeConnectionError"
    assert failed.value.inputs["query"] == "Will it rain?"


@pytest.mark.parametrize("classes", [[], None, [{"name": "no id"}]])
def test_wrong_classes(classes: Any) -> None:
    """Told at import."""
    with pytest.raises(GraphError, match="class"):
        node("question-classifier", data(classes=classes))


def test_what_it_reads() -> None:
    """All selectors, for the import's report."""
    found = node("question-classifier", data(instructions="{{#a.b#}}"))
    assert list(found.reads()) == [("start", "q"), ("a", "b"), ("env", "product")]
    assert found.branches
