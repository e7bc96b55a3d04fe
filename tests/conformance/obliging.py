"""Stand-ins that give any app what it asks for: a model that answers in the form wanted, tools and
web pages that always have something to say, files of every kind.

What an app's own code expects of an answer cannot be guessed in every case: `answers.yml` says what
a node's model, tool or page gives where the obvious answer would not do.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import json_repair
import trio

from server.workflow.app import App, InputSpec, ModelRef, NodeSpec, ToolRef
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    Passage,
    Query,
    Receiver,
    ToolOutput,
    Usage,
    WebRequest,
    WebResponse,
)
from server.workflow.values import File
from tests.conformance.scripted import text_of

Answers = Mapping[str, Any]
"""By node id: what its model, tool or page answers; a list answers in order."""

_EXAMPLE = re.compile(r"(\[\s*)?\{.*\}(\s*\])?", re.DOTALL)


class Obliging:
    """Models, tools, web, knowledge and files for one app."""

    def __init__(self, app: App, answers: Answers) -> None:
        self._nodes = {node.id: node for node in app.graph.nodes}
        self._answers = answers
        self._asked: dict[str, int] = {}
        self.models = _Models(self)
        self.tools = _Tools(self)
        self.web = _Web(self)
        self.knowledge = _Knowledge()
        self.files = _Files()

    def node(self, run: NodeRun) -> NodeSpec:
        return self._nodes[run.node_id]

    def told(self, node_id: str) -> Any:
        """What `answers.yml` says for this call of the node; None if it says nothing."""
        told = self._answers.get(node_id)
        if not isinstance(told, list):
            return told
        at = self._asked.get(node_id, 0)
        self._asked[node_id] = at + 1
        return told[min(at, len(told) - 1)]


class _Models:
    def __init__(self, world: Obliging) -> None:
        self._world = world

    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts:
        return ModelFacts(context_tokens=32_000)

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        await trio.lowlevel.checkpoint()
        told = self._world.told(run.node_id)
        text = told if isinstance(told, str) else _answer(self._world.node(run), call)
        if receiver is not None:
            for piece in re.findall(r"\S+\s*", text) or [text]:
                receiver.text(piece)
                await receiver.drain()
        return Completion(text=text, finish_reason="stop", usage=Usage(20, 5), model="obliging")


def _answer(node: NodeSpec, call: ChatCall) -> str:
    data = node.data
    if node.type == "question-classifier":
        first = data["classes"][0]
        return json.dumps({"category_id": first["id"], "category_name": first["name"]})
    if node.type == "parameter-extractor":
        wanted = data["parameters"]
        return json.dumps({each["name"]: _typed(each["type"], each["name"]) for each in wanted})
    schema = (data.get("structured_output") or {}).get("schema")
    if schema and (data.get("structured_output_enabled") or call.response_format):
        return json.dumps(_instance(schema))
    if _wants_json(call):
        shown = _shown(call)
        return json.dumps(shown or {"result": "A result."}, ensure_ascii=False)
    return "A short answer."


def _wants_json(call: ChatCall) -> bool:
    if (call.response_format or {}).get("type") in ("json_object", "json_schema"):
        return True
    return "json" in json.dumps(list(call.messages), default=str).lower()


def _shown(call: ChatCall) -> Any:
    """The JSON that a prompt asks for by an example, which may have words where values go."""
    for message in call.messages:
        example = _EXAMPLE.search(text_of(message["content"]))
        found = json_repair.loads(example[0]) if example else None
        if found and isinstance(found, dict | list):
            return _filled(found)
    return None


def _filled(shape: Any) -> Any:
    """With a plain word where an example describes what to write, such as `(type: string)`."""
    if isinstance(shape, dict):
        return {name: _filled(each) for name, each in shape.items()}
    if isinstance(shape, list):
        return [_filled(each) for each in shape]
    return "something" if isinstance(shape, str) and set(shape) & set("(){}<>") else shape


def _typed(kind: str, name: str = "") -> Any:
    if "url" in name.lower():
        return "http://example.test/a"
    if kind.startswith("array"):
        return [_typed(kind[6:-1])] if kind[6:-1] else []
    return {"number": 3, "boolean": True, "bool": True, "object": {}}.get(kind, "something")


def _instance(schema: Any) -> Any:
    """The least that fits a simple schema."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        return {name: _instance(each) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [_instance(schema.get("items", {}))]
    return {"number": 3, "integer": 3, "boolean": True}.get(str(kind), "something")


_FOUND = {
    "title": "A page",
    "url": "http://example.test/a",
    "content": "Some text.",
    "score": 0.9,
}


class _Tool:
    description = "obliging"
    schema: dict[str, Any] = {"type": "object", "properties": {}}  # noqa: RUF012

    def __init__(self, name: str, world: Obliging) -> None:
        self.name = name
        self._world = world

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        await trio.lowlevel.checkpoint()
        told = self._world.told(run.node_id)
        if isinstance(told, str):
            return ToolOutput(text=told)
        if isinstance(told, dict):
            files = [picture()] if told.get("files") else []
            given = {key: told[key] for key in ("text", "json", "variables") if key in told}
            return ToolOutput(files=files, **given)
        return ToolOutput(text="Some text.", json=[{"results": [_FOUND]}], files=[picture()])


class _Tools:
    def __init__(self, world: Obliging) -> None:
        self._world = world

    async def find(self, tool: ToolRef, run: NodeRun) -> _Tool:
        return _Tool(tool.name, self._world)

    async def all_of(self, provider: ToolRef, run: NodeRun) -> list[_Tool]:
        return [_Tool("a_tool", self._world)]

    async def mcp_tools(self, config: Any, run: NodeRun, *, trusted: bool = False) -> list[_Tool]:
        return [_Tool("an_mcp_tool", self._world)]


class _Web:
    def __init__(self, world: Obliging) -> None:
        self._world = world

    async def send(self, request: WebRequest) -> WebResponse:
        await trio.lowlevel.checkpoint()
        told = next(
            (answer for url, answer in self._world._answers.items() if request.url.startswith(url)),
            {"status": "ok", "data": {"result": "A result."}},
        )
        content = told if isinstance(told, str) else json.dumps(told)
        return WebResponse(
            status=200,
            headers=[("content-type", "application/json")],
            content=content.encode(),
            url=request.url,
        )


class _Knowledge:
    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        await trio.lowlevel.checkpoint()
        return [
            Passage(content="A passage.", score=0.9, dataset_id=base, document_name="A document")
            for base in query.dataset_ids
        ]


class _Files:
    async def read(self, file: File, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return contents(file.extension or "")

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        return File(
            type="document",
            transfer_method="tool_file",
            name=name,
            extension=".txt",
            mime_type=mime_type,
            size=len(content),
            related_id="kept",
        )


def picture() -> File:
    return File(
        type="image",
        transfer_method="remote_url",
        name="a.png",
        extension=".png",
        mime_type="image/png",
        size=len(PNG),
        url="http://example.test/a.png",
    )


def document(extension: str) -> File:
    return File(
        type="document",
        transfer_method="local_file",
        name=f"a{extension}",
        extension=extension,
        mime_type="application/octet-stream",
        size=100,
        related_id="a",
    )


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


def contents(extension: str) -> bytes:
    """A small file of that kind."""
    if extension.lower() in (".png", ".jpg", ".jpeg"):
        return PNG
    if extension == ".docx":
        return _docx()
    return b"Some text.\nA second line.\n"


def _docx() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("word/document.xml", "<w:document/>")
    return made.getvalue()


def inputs_for(specs: Sequence[InputSpec], answers: Answers) -> dict[str, Any]:
    """Something for every field of a form."""
    told = answers.get("inputs", {})
    return {spec.name: told.get(spec.name, _input(spec)) for spec in specs}


def _input(spec: InputSpec) -> Any:
    if spec.type == "select":
        return spec.options[0] if spec.options else ""
    if spec.type == "number":
        return 3
    if spec.type == "checkbox":
        return True
    if spec.type == "json_object":
        return {}
    if spec.type in ("file", "file-list"):
        file = _file_for(spec)
        return [file] if spec.type == "file-list" else file
    return "some words"[: spec.max_length or None]


def _file_for(spec: InputSpec) -> dict[str, Any]:
    kinds = spec.extra.get("allowed_file_types") or ["document"]
    kind = "image" if "image" in kinds else kinds[0]
    name = "a.png" if kind == "image" else "a.txt"
    return {"type": kind, "transfer_method": "remote_url", "url": f"http://example.test/{name}"}
