"""Stand-ins for the world around a run, that answer as a case of `graphs/` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from server.workflow.app import ModelRef, ToolRef
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    CodeFailed,
    Completion,
    ModelFacts,
    ModelFailed,
    Passage,
    Query,
    Receiver,
    ToolFailed,
    ToolOutput,
    Usage,
    WebFailed,
    WebRequest,
    WebResponse,
)


class ScriptedModels:
    """Each node's model says what `said[node]` has: pieces, `{pieces, each_s, expects}`,
    `{error}`, or `{echo: prefix}`, which gives back the last message."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said
        self.calls: list[ChatCall] = []

    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts:
        return ModelFacts(context_tokens=8_000, vision=False, tools=False)

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        self.calls.append(call)
        said = self._said[run.node_id]
        if isinstance(said, list):
            said = {"pieces": said}
        if "error" in said:
            raise ModelFailed(said["error"], "ModelFailed")
        sent = [text_of(message["content"]) for message in call.messages]
        for expected in said.get("expects", ()):
            assert any(expected in text for text in sent), (expected, sent)
        pieces = said.get("pieces") or [said["echo"] + sent[-1]]
        if said.get("sleeps"):
            await trio.sleep(float(sent[-1]))
        for piece in pieces:
            await trio.sleep(said.get("each_s", 0.001))
            if receiver is not None:
                receiver.text(piece)
                await receiver.drain()
        return Completion(
            text="".join(pieces),
            finish_reason="stop",
            usage=Usage(10, len(pieces)),
            model="scripted",
        )


def text_of(content: Any) -> str:
    """The text of a message, whole or in parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


class ScriptedCode:
    """Runs a case's Python as it is (it is ours); with a script, answers in order instead."""

    def __init__(self, script: Sequence[Mapping[str, Any]] = ()) -> None:
        self._script = list(script)

    async def run(self, language: str, source: str, arguments: dict[str, Any]) -> Any:
        # Nodes that run at once end in an order that is always the same.
        await trio.sleep(0.001 + sum(source.encode()) * 1e-8)
        if self._script:
            step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            if "error" in step:
                raise CodeFailed(step["error"], "CodeExecutionError")
            return dict(step)
        names: dict[str, Any] = {}
        try:
            exec(source, names)
            return names["main"](**arguments)
        except Exception as exc:
            raise CodeFailed(str(exc), "CodeExecutionError") from exc


class ScriptedWeb:
    def __init__(self, pages: Mapping[str, Mapping[str, Any]]) -> None:
        self._pages = pages

    async def send(self, request: WebRequest) -> WebResponse:
        await trio.sleep(0.001)
        page = self._pages.get(request.url)
        if page is None:
            raise WebFailed(f"cannot connect to {request.url}", "HttpRequestNodeError")
        headers = [("content-type", page.get("type", "text/plain"))]
        return WebResponse(
            status=page["status"], headers=headers, content=page["body"].encode(), url=request.url
        )


class ScriptedTool:
    description = "scripted"
    schema: dict[str, Any] = {"type": "object", "properties": {}}  # noqa: RUF012

    def __init__(self, name: str, said: Mapping[str, Any]) -> None:
        self.name = name
        self._said = said

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        await trio.sleep(0.001)
        if "error" in self._said:
            raise ToolFailed(self._said["error"], "ToolFailed")
        return ToolOutput(text=self._said.get("text", ""), json=self._said.get("json", []))


class ScriptedTools:
    """Finds what a case has, by "provider:name"; all else is missing."""

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._tools = tools

    async def find(self, tool: ToolRef, run: NodeRun) -> ScriptedTool:
        said = self._tools.get(tool.key)
        if said is None:
            raise ToolFailed(f"there is no tool {tool.key!r}: bind tool:{tool.key}", "ToolNotFound")
        return ScriptedTool(tool.name, said)

    async def all_of(self, provider: ToolRef, run: NodeRun) -> list[ScriptedTool]:
        return []


class ScriptedKnowledge:
    def __init__(self, bases: Mapping[str, Sequence[str]]) -> None:
        self._bases = bases

    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        await trio.sleep(0.001)
        return [
            Passage(content=text, score=1.0, dataset_id=base, document_name=f"{base}-{at}")
            for base in query.dataset_ids
            for at, text in enumerate(self._bases.get(base, ()))
        ][: query.top_k]
