"""What all nodes that call a model have in common: which model, its parameters, and its records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from server.workflow.app import OPEN_MODEL, ModelRef
from server.workflow.node import NodeError, NodeRun
from server.workflow.reading import Reader
from server.workflow.services import (
    ChatCall,
    Completion,
    Message,
    ModelFacts,
    ModelFailed,
    Receiver,
    Usage,
)
from server.workflow.template import Template
from server.workflow.values import Value
from server.workflow.variables import Variables

__all__ = [
    "NodeModel",
    "call_model",
    "failed_call",
    "read_model",
    "recorded_prompts",
    "token_metadata",
    "usage_dict",
]

_RESOLVED_CHARACTERS: Final = 1024


class NodeModel:
    """A node's section `model`, compiled."""

    __slots__ = ("_fixed", "_templates", "ref")

    def __init__(self, ref: ModelRef, parameters: Mapping[str, Any]) -> None:
        self.ref = ref
        templates = {
            name: Template(value)
            for name, value in parameters.items()
            if isinstance(value, str) and "{{#" in value
        }
        self._templates = {name: one for name, one in templates.items() if one.selectors}
        self._fixed = dict(parameters)

    @property
    def selectors(self) -> list[tuple[str, ...]]:
        """The variables that its parameters name."""
        return [
            selector for template in self._templates.values() for selector in template.selectors
        ]

    @property
    def identity(self) -> dict[str, Value]:
        """As records of node runs have it."""
        return {"model_provider": self.ref.provider, "model_name": self.ref.name}

    def parameters(self, variables: Variables) -> dict[str, Any]:
        """With what their variables hold; a text that is a number or a boolean becomes one."""
        if not self._templates:
            return self._fixed
        resolved = {
            name: _literal(template.text(variables)[:_RESOLVED_CHARACTERS])
            for name, template in self._templates.items()
        }
        return self._fixed | resolved

    def facts(self, run: NodeRun) -> ModelFacts:
        return run.run.services.models.facts(self.ref, run)


def _literal(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, int | float) else text


def read_model(data: Reader) -> NodeModel:
    """The section `model` of a node. One that names none means the one bound as `OPEN_MODEL`."""
    model = data.table("model")
    name = model.text("name") or OPEN_MODEL
    completes = model.text("mode", "chat") == "completion"
    ref = ModelRef(model.text("provider"), name, "completion" if completes else "chat")
    return NodeModel(ref, model.table("completion_params").data)


async def call_model(call: ChatCall, run: NodeRun, receiver: Receiver | None = None) -> Completion:
    """Call it; where the engine turns out not to take a `response_format`, once more without.

    For callers whose prompt asks for JSON in words too. Raises `ModelFailed`.
    """
    models = run.run.services.models
    try:
        return await models.chat(call, run, receiver)
    except ModelFailed:
        if call.response_format is None or models.facts(call.model, run).json_schema:
            raise
    return await models.chat(msgspec.structs.replace(call, response_format=None), run, receiver)


def failed_call(
    failure: ModelFailed, inputs: dict[str, Value], process_data: dict[str, Value]
) -> NodeError:
    """A node's failure for that of its model, with what it was asked."""
    return NodeError(failure.message, failure.type, inputs=inputs, process_data=process_data)


# Records


def usage_dict(usage: Usage, completion: Completion | None = None) -> dict[str, Value]:
    """A usage with all the keys that clients of Dify look for. Models served here have no price."""
    latency_s = 0.0 if completion is None else completion.elapsed_s
    ttft_s = None if completion is None else completion.ttft_s
    return {
        "prompt_tokens": usage.prompt_tokens,
        "prompt_unit_price": "0",
        "prompt_price_unit": "0",
        "prompt_price": "0",
        "completion_tokens": usage.completion_tokens,
        "completion_unit_price": "0",
        "completion_price_unit": "0",
        "completion_price": "0",
        "total_tokens": usage.total_tokens,
        "total_price": "0",
        "currency": "USD",
        "latency": round(latency_s, 3),
        "time_to_first_token": None if ttft_s is None else round(ttft_s, 3),
        "time_to_generate": None if ttft_s is None else round(latency_s - ttft_s, 3),
    }


def token_metadata(usage: Usage) -> dict[str, Value]:
    return {"total_tokens": usage.total_tokens, "total_price": "0", "currency": "USD"}


def recorded_prompts(messages: Iterable[Message]) -> list[Value]:
    """Messages as they were sent, for the record: texts whole, the bytes of files left out."""
    return [
        {
            "role": message["role"],
            "text": _text_of(message.get("content")),
            "files": _files_of(message.get("content")),
        }
        for message in messages
    ]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


_URLS: Final = {"image_url": "image", "video_url": "video"}


def _files_of(content: Any) -> list[Value]:
    parts: Sequence[Any] = content if isinstance(content, list) else ()
    files: list[Value] = []
    for part in parts:
        kind = part["type"]
        if kind in _URLS:
            url = part[kind]["url"]
            detail = part[kind].get("detail", "")
            files.append({"type": _URLS[kind], "data": _shown(url), "detail": detail})
        elif kind == "input_audio":
            files.append({"type": "audio", "data": _shown(part[kind]["data"])})
        elif kind == "file":
            name = part[kind]["filename"]
            files.append(
                {"type": "document", "data": _shown(part[kind]["file_data"]), "name": name}
            )
    return files


def _shown(data: str) -> str:
    if data.startswith("data:"):
        head = data[:64].partition(",")[0]
        return f"{head},... ({len(data):,} characters)"
    return data if len(data) <= 2_048 else f"{data[:64]}... ({len(data):,} characters)"
