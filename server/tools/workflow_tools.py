"""Other apps as tools: a workflow that a graph or an agent calls."""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

from server.workflow.app import App, InputSpec
from server.workflow.node import NodeRun
from server.workflow.services import ToolFailed, ToolOutput
from server.workflow.values import File, Value, plain

__all__ = ["MOST_CALLS_DEEP", "WorkflowTool", "Workflows"]

MOST_CALLS_DEEP: Final = 5
"""As Dify's WORKFLOW_CALL_MAX_DEPTH."""

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
        if run.run.depth >= MOST_CALLS_DEEP:
            raise ToolFailed(
                f"Max workflow call depth {MOST_CALLS_DEEP} reached.", "ToolInvokeError"
            )
        known = {spec.name for spec in self._app.inputs}
        inputs = {name: value for name, value in settings.items() if name in known} | arguments
        outputs = await self._workflows.run(self._app.id, inputs, run)
        shown = plain(outputs)
        return ToolOutput(
            text=json.dumps(shown, ensure_ascii=False),
            json=[shown],
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
