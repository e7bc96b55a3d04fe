"""What was read runs on the engine: easy apps ask their model what they should."""

from __future__ import annotations

from typing import Any

import trio

from server.dify.dsl import read_app
from server.workflow import engine
from server.workflow.capacity import Capacity
from server.workflow.graph import compile_graph
from server.workflow.inputs import checked
from server.workflow.jinja import InProcessJinja
from server.workflow.limits import Limits
from server.workflow.node import NodeRun, Run
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    Passage,
    Query,
    Receiver,
    Usage,
)
from tests.server.dify.exports import easy, model, written
from tests.server.workflow.fakes import services
from tests.server.workflow.graphs import Recorder

FORM = [{"text-input": {"variable": "城市", "required": True}}, {"number": {"variable": "days"}}]
HISTORY = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})


class Model:
    """Answers "fine", and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[ChatCall] = []

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        if receiver is not None:
            receiver.text("fine")
        return Completion(text="fine", usage=Usage(3, 1), model="served")

    def facts(self, model: Any, run: NodeRun) -> ModelFacts:
        return ModelFacts(context_tokens=8000)


class Books:
    """One passage for every query."""

    def __init__(self) -> None:
        self.queries: list[Query] = []

    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        await trio.lowlevel.checkpoint()
        self.queries.append(query)
        return [Passage(content="Rain falls.", score=0.9, dataset_id=query.dataset_ids[0])]


async def ask(export: dict[str, Any], inputs: dict[str, Any], **run: Any) -> tuple[Model, str]:
    """Run it; the model, and the answer."""
    app, _ = read_app(written(export))
    talked, sink = Model(), Recorder()
    given = services(models=talked, knowledge=Books(), jinja=InProcessJinja())
    result = await engine.run(
        compile_graph(app.graph, app.mode),
        Run(id="r", app=app, services=given, **run),
        checked(app.inputs, inputs),
        sink,
        capacity=Capacity(),
        limits=Limits(),
    )
    assert result.status == "succeeded", result.error
    assert sink.text == result.outputs["answer"]
    return talked, str(result.outputs["answer"])


async def test_chat_runs() -> None:
    """Instruction, history and question reach the model; the form's odd names too."""
    export = easy("chat", pre_prompt="In {{城市}} for {{days}} days.", user_input_form=FORM)
    talked, answer = await ask(
        export, {"城市": "Wien", "days": 2}, query="What now?", conversation_id="c", history=HISTORY
    )
    assert answer == "fine"
    assert [(each["role"], each["content"]) for each in talked.calls[0].messages] == [
        ("system", "In Wien for 2 days."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "What now?"),
    ]


async def test_chat_without_an_instruction_runs() -> None:
    """There is then no system message, and an input that was not given reads as nothing."""
    talked, _ = await ask(easy("chat"), {}, query="Hm?")
    assert [each["role"] for each in talked.calls[0].messages] == ["user"]
    form = [{"text-input": {"variable": "x"}}]
    talked, _ = await ask(easy("chat", pre_prompt="[{{x}}]", user_input_form=form), {}, query="?")
    assert talked.calls[0].messages[0]["content"] == "[]"


async def test_chat_with_knowledge_runs() -> None:
    """Passages stand before the instruction."""
    datasets = {"datasets": [{"dataset": {"enabled": True, "id": "kb"}}]}
    export = easy("chat", pre_prompt="Help.", dataset_configs={"datasets": datasets})
    talked, _ = await ask(export, {}, query="Weather?")
    system = talked.calls[0].messages[0]["content"]
    assert "<context>\nRain falls.\n</context>" in system
    assert system.endswith("Help.")


async def test_completion_runs() -> None:
    """The prompt is all that is asked."""
    export = easy("completion", pre_prompt="Of {{days}}.", user_input_form=FORM[1:])
    talked, _ = await ask(export, {"days": 3})
    assert [(each["role"], each["content"]) for each in talked.calls[0].messages] == [
        ("user", "Of 3.")
    ]


async def test_chat_with_a_completion_model_runs() -> None:
    """Its prompt has the history and ends with the question."""
    export = easy("chat", model=model(mode="completion"), pre_prompt="Be kind.")
    talked, _ = await ask(export, {}, query="What now?", conversation_id="c", history=HISTORY)
    call = talked.calls[0]
    assert call.prompt is not None
    assert call.prompt.endswith("</histories>\n\nHuman: What now?\n\nAssistant: ")
    assert "Human: Hi\nAssistant: Hello" in call.prompt
    assert call.parameters["stop"] == ["\nHuman:", "</histories>"]


async def test_agent_runs() -> None:
    """An agent without tools answers by its model, with instruction, history and question."""
    export = easy("agent-chat", pre_prompt="Be useful.", agent_mode={"strategy": "function_call"})
    talked, answer = await ask(export, {}, query="What now?", conversation_id="c", history=HISTORY)
    assert answer == "fine"
    contents = [each["content"] for each in talked.calls[0].messages]
    assert contents == ["Be useful.", "Hi", "Hello", "What now?"]
