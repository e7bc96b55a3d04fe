"""Other apps as tools: a workflow that a graph or an agent calls."""

from __future__ import annotations

from typing import Any, Final, Protocol

from server.workflow.app import App, InputSpec
from server.workflow.large_json import values_text
from server.workflow.node import NodeRun
from server.workflow.services import ToolFailed, ToolOutput
from server.workflow.values import File, Value, plain

__all__ = ["WorkflowTool", "Workflows"]

_TYPES: Final = {"number": "number", "checkbox": "boolean", "json_object": "object"}


class Workflows(Protocol):
    """The apps that may be called."""

    def app(self, id: str) -> App | None:
        """The app of this id or name; None if there is none."""

    async def run(self, app_id: str, inputs: dict[str, Value], run: NodeRun) -> dict[str, Value]:
        """Run it one level deeper than `run`, with its user, tier and deadline, and return its
        outputs. Raises `ToolFailed` if it fails."""


class WorkflowTool:
    """An app as a tool: its start form is the schema, its outputs are the answer."""

    def __init__(self, app: App, workflows: Workflows, name: str = "") -> None:
        self._app = app
        self._workflows = workflows
        self.name = name or app.name
        self.description = app.description or app.name

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {spec.name: _property(spec) for spec in self._app.inputs},
            "required": [spec.name for spec in self._app.inputs if spec.required],
        }

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        known = {spec.name for spec in self._app.inputs}
        inputs = {name: value for name, value in settings.items() if name in known} | arguments
        outputs = await self._workflows.run(self._app.id, inputs, run)
        try:
            text = await values_text(outputs)
        except ValueError as error:
            raise ToolFailed(f"{self._app.name}: its outputs: {error}", "ToolInvokeError") from None
        return ToolOutput(
            text=text,
            json=[plain(outputs)],
            files=_files(list(outputs.values())),
            variables={name: value for name, value in outputs.items() if name not in _TAKEN},
        )


_TAKEN: Final = frozenset({"text", "json", "files"})


def _property(spec: InputSpec) -> dict[str, Any]:
    kind = "array" if spec.type == "file-list" else _TYPES.get(spec.type, "string")
    found: dict[str, Any] = {"type": kind, "description": spec.label or spec.name}
    if spec.options:
        found["enum"] = list(spec.options)
    if spec.type in ("file", "file-list"):
        del found["type"]
    return found


def _files(values: list[Value]) -> list[File]:
    found: list[File] = []
    for value in values:
        if isinstance(value, File):
            found.append(value)
        elif isinstance(value, list):
            found += [item for item in value if isinstance(item, File)]
    return found
