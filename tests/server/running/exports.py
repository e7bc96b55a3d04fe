"""Small apps, and models that do as told, for the tests of runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import trio
import yaml

from server.dify.dsl import read_app
from server.running.runs import Running
from server.workflow.app import App, ModelRef
from server.workflow.capacity import Capacity
from server.workflow.limits import Limits
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    Receiver,
    Usage,
)
from tests.server.workflow.fakes import services

MODEL = {"provider": "langgenius/openai/openai", "name": "gpt-4o", "mode": "chat"}


def node(id: str, type: str, **data: Any) -> dict[str, Any]:
    return {"id": id, "type": "custom", "data": {"type": type, "title": id, **data}}


def export(*nodes: dict[str, Any], mode: str = "workflow", name: str = "test", **more: Any) -> str:
    """The nodes in a row."""
    ids = [one["id"] for one in nodes]
    edges = [
        {"source": one, "target": other, "sourceHandle": "source"} for one, other in pairwise(ids)
    ]
    graph = {"nodes": list(nodes), "edges": edges}
    app = {"name": name, "mode": mode}
    content = {"version": "0.3.0", "kind": "app", "app": app}
    text: str = yaml.safe_dump({**content, "workflow": {"graph": graph, **more}})
    return text


def start(*variables: dict[str, Any]) -> dict[str, Any]:
    return node("start", "start", variables=list(variables))


def variable(name: str, type: str = "paragraph", **more: Any) -> dict[str, Any]:
    return {"variable": name, "label": name, "type": type, "required": True, **more}


def end(**outputs: list[str]) -> dict[str, Any]:
    listed = [{"variable": name, "value_selector": path} for name, path in outputs.items()]
    return node("end", "end", outputs=listed)


def llm(text: str = "{{#sys.query#}}", **more: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "text": text}]
    return node("llm", "llm", model=MODEL, prompt_template=prompt, **more)


def answer(text: str) -> dict[str, Any]:
    return node("answer", "answer", answer=text)


def echo_workflow() -> str:
    return export(start(variable("q")), end(result=["start", "q"]))


def chat(memory: bool = True) -> str:
    kept: dict[str, Any] = {"memory": {"window": {"enabled": False}}} if memory else {}
    return export(start(), llm(**kept), answer("{{#llm.text#}}"), mode="advanced-chat")


def app_of(text: str) -> App:
    return read_app(text)[0]


class Model:
    """Answers what `reply` says of the call; `seen` are the calls."""

    def __init__(self, reply: Callable[[ChatCall], str] = lambda call: "ok") -> None:
        self._reply = reply
        self.seen: list[ChatCall] = []
        self.hangs = False
        self.gone = 0

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        self.seen.append(call)
        if self.hangs:
            try:
                await trio.sleep_forever()
            finally:
                self.gone += 1
        text = self._reply(call)
        for piece in text.split(" ") if receiver is not None else ():
            assert receiver is not None
            receiver.text(piece + " ")
            await receiver.drain()
        return Completion(text=text + " ", usage=Usage(3, 4))

    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts:
        return ModelFacts()


def running(model: Model | None = None, **given: Any) -> Running:
    """With a model, and whatever services a test gives."""
    return Running(services(models=model or Model(), **given), Capacity(), Limits())
