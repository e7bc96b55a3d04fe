"""Chat, agent-chat and completion apps become graphs that do the same."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from server.dify.dsl import read_app
from server.dify.report import Report
from server.workflow.app import App
from server.workflow.graph import compile_graph
from tests.server.dify.exports import easy, model, written

FORM = [
    {"text-input": {"variable": "city", "label": "City", "required": True, "max_length": 10}},
    {"select": {"variable": "tone", "options": ["warm", "dry"], "default": "warm"}},
]


def read(mode: str, **config: Any) -> tuple[App, Report]:
    return read_app(written(easy(mode, **config)))


def data(app: App, id: str) -> dict[str, Any]:
    return next(node.data for node in app.graph.nodes if node.id == id)


def chain(app: App) -> list[str]:
    names = [node.id for node in app.graph.nodes]
    assert [(edge.source, edge.target) for edge in app.graph.edges] == [*pairwise(names)]
    return names


def test_chat() -> None:
    """A chat asks a model with its instruction, the history and the question."""
    app, report = read("chat", pre_prompt="Talk about {{city}}, {{ tone }}.", user_input_form=FORM)
    assert chain(app) == ["start", "llm", "answer"]
    llm = data(app, "llm")
    assert llm["prompt_template"] == [
        {"role": "system", "text": "Talk about {{#start.city#}}, {{ tone }}."}
    ]
    assert llm["memory"]["query_prompt_template"] == "{{#sys.query#}}"
    assert data(app, "answer")["answer"] == "{{#llm.text#}}"
    assert [each.name for each in app.inputs] == ["city", "tone"]
    assert report.models[0].places == ("model_config.model",)
    compile_graph(app.graph, app.mode)


def test_names_that_the_form_does_not_have_stay() -> None:
    """Braces that are no variable of the form are the author's text."""
    app, _ = read("chat", pre_prompt="{{nobody}} {{#context#}} {{city}}", user_input_form=FORM)
    text = data(app, "llm")["prompt_template"][0]["text"]
    assert text == "{{nobody}} {{#context#}} {{#start.city#}}"


def test_names_that_placeholders_cannot_have() -> None:
    """A Chinese variable goes through a node whose name can be written."""
    form = [{"text-input": {"variable": "城市", "required": True}}]
    app, _ = read("chat", pre_prompt="{{城市}}!", user_input_form=form)
    assert chain(app) == ["start", "input_1", "llm", "answer"]
    assert data(app, "llm")["prompt_template"][0]["text"] == "{{#input_1.output#}}!"
    assert data(app, "input_1")["variables"][0]["value_selector"] == ["start", "城市"]
    compile_graph(app.graph, app.mode)


def test_completion() -> None:
    """A completion app asks its prompt, without history."""
    app, _ = read("completion", pre_prompt="Write of {{city}}", user_input_form=FORM)
    llm = data(app, "llm")
    assert llm["prompt_template"] == [{"role": "user", "text": "Write of {{#start.city#}}"}]
    assert llm["memory"] is None
    compile_graph(app.graph, app.mode)


def test_chat_with_a_completion_model() -> None:
    """One text with the history in it, which ends where the model's answer begins."""
    app, _ = read("chat", model=model(mode="completion"), pre_prompt="Be kind.")
    llm = data(app, "llm")
    text = llm["prompt_template"]["text"]
    assert text.startswith("Be kind.\n\n")
    assert "<histories>\n{{#histories#}}\n</histories>" in text
    assert text.endswith("Human: {{#sys.query#}}\n\nAssistant: ")
    assert llm["model"]["completion_params"]["stop"] == ["\nHuman:", "</histories>"]


def test_advanced_prompts() -> None:
    """The author's messages; the one that asks the question comes after the history."""
    prompt = [
        {"role": "system", "text": "For {{city}}: {{#context#}}"},
        {"role": "user", "text": "Say: {{#query#}}"},
    ]
    app, _ = read(
        "chat", prompt_type="advanced", chat_prompt_config={"prompt": prompt}, user_input_form=FORM
    )
    llm = data(app, "llm")
    assert llm["prompt_template"] == [
        {"role": "system", "text": "For {{#start.city#}}: {{#context#}}"}
    ]
    assert llm["memory"]["query_prompt_template"] == "Say: {{#sys.query#}}"


def test_advanced_completion_prompt() -> None:
    """Its text, and the names that the two sides have in the history."""
    config = {
        "prompt": {"text": "{{#histories#}} {{#query#}}"},
        "conversation_histories_role": {"user_prefix": "Me", "assistant_prefix": "You"},
    }
    app, _ = read(
        "chat",
        model=model(mode="completion"),
        prompt_type="advanced",
        completion_prompt_config=config,
    )
    llm = data(app, "llm")
    assert llm["prompt_template"] == {"text": "{{#histories#}} {{#sys.query#}}"}
    assert llm["memory"]["role_prefix"] == {"user": "Me", "assistant": "You"}


DATASETS = {
    "datasets": {"datasets": [{"dataset": {"enabled": True, "id": "kb-1"}}]},
    "top_k": 3,
    "score_threshold": 0.5,
    "score_threshold_enabled": True,
}


def test_knowledge_comes_before_the_model() -> None:
    """With knowledge bases, passages are looked up and put before the instruction."""
    app, report = read("chat", pre_prompt="Help.", dataset_configs=DATASETS)
    assert chain(app) == ["start", "knowledge", "context", "llm", "answer"]
    knowledge = data(app, "knowledge")
    assert knowledge["dataset_ids"] == ["kb-1"]
    assert knowledge["query_variable_selector"] == ["sys", "query"]
    assert knowledge["multiple_retrieval_config"]["top_k"] == 3
    assert knowledge["multiple_retrieval_config"]["score_threshold"] == 0.5
    llm = data(app, "llm")
    assert llm["prompt_template"][0]["text"] == "{{#context.output#}}Help."
    assert llm["context"] == {"enabled": True, "variable_selector": ["knowledge", "result"]}
    assert report.knowledge[0].places == ("model_config.dataset_configs.datasets.datasets[0]",)


def test_words_around_the_context() -> None:
    """There are none without passages, and all passages with them."""
    import jinja2

    from server.dify.easy_apps import CONTEXT_TEMPLATE

    template = jinja2.Template(CONTEXT_TEMPLATE)
    assert template.render(passages=[]) == ""
    text = template.render(passages=[{"content": "one"}, {"content": "two"}])
    assert "<context>\none\ntwo\n</context>" in text


def test_completion_asks_knowledge_by_its_variable() -> None:
    """The variable that the app names is the query."""
    app, _ = read(
        "completion", dataset_configs=DATASETS, dataset_query_variable="city", user_input_form=FORM
    )
    assert data(app, "knowledge")["query_variable_selector"] == ["start", "city"]


TOOL = {
    "enabled": True,
    "provider_type": "builtin",
    "provider_id": "time",
    "provider_name": "time",
    "tool_name": "current_time",
    "tool_parameters": {"timezone": ""},
}


@pytest.mark.parametrize(
    ("strategy", "name"),
    [("function_call", "function_calling"), ("react", "ReAct"), ("cot", "ReAct"), (None, None)],
)
def test_agents(strategy: str | None, name: str | None) -> None:
    """An agent works with its tools, by its strategy."""
    mode = {"strategy": strategy, "max_iteration": 7, "tools": [TOOL, {"dataset": {"id": "kb"}}]}
    app, report = read("agent-chat", pre_prompt="Be useful.", agent_mode=mode)
    assert chain(app) == ["start", "knowledge", "context", "agent", "answer"]
    agent = data(app, "agent")
    assert agent["agent_strategy_name"] == (name or "function_calling")
    parameters = {key: value["value"] for key, value in agent["agent_parameters"].items()}
    assert parameters["maximum_iterations"] == 7
    assert parameters["tools"] == [TOOL]
    assert parameters["instruction"] == "{{#context.output#}}Be useful."
    assert parameters["model"]["model"] == "gpt-4o"
    assert [(each.tool.name, each.places) for each in report.tools] == [
        ("current_time", ("model_config.agent_mode.tools[0]",))
    ]


def test_unknown_strategy() -> None:
    """It is read as function calling, and said."""
    app, report = read("agent-chat", agent_mode={"strategy": "dream"})
    assert data(app, "agent")["agent_strategy_name"] == "function_calling"
    assert any(each.code == "strategy" for each in report.findings)
    compile_graph(app.graph, app.mode)


def test_vision() -> None:
    """Where pictures may be uploaded, the model is shown them."""
    upload = {"image": {"enabled": True, "detail": "low"}}
    app, report = read("chat", file_upload=upload)
    vision = data(app, "llm")["vision"]
    assert vision == {
        "enabled": True,
        "configs": {"variable_selector": ["sys", "files"], "detail": "low"},
    }
    assert report.features == ("file_upload",)


def test_features() -> None:
    """Settings of the app are its features; those that are left out are warnings."""
    app, report = read(
        "chat",
        opening_statement="Hello",
        speech_to_text={"enabled": True},
        sensitive_word_avoidance={"enabled": True, "type": "keywords"},
        external_data_tools=[{"enabled": True, "variable": "x", "type": "api"}],
        annotation_reply={"enabled": False},
    )
    assert app.features["opening_statement"] == "Hello"
    assert {each.place for each in report.of("warning")} == {
        "model_config.speech_to_text",
        "model_config.sensitive_word_avoidance",
        "model_config.external_data_tools",
    }
