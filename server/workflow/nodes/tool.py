"""tool: one call of a tool that the graph names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from server.workflow.app import ToolRef
from server.workflow.node import GraphError, NodeError, NodeRun, Result, Task
from server.workflow.reading import Reader
from server.workflow.services import ServiceFailed, ToolFailed, ToolOutput
from server.workflow.sizes import Room
from server.workflow.template import Template
from server.workflow.tool_arguments import coerced
from server.workflow.values import Value, plain
from server.workflow.variables import MISSING, Selector

__all__ = ["ToolNode"]

_NO_JSON: list[Any] = [{"data": []}]
"""What `json` is if a tool gave none, as in Dify."""


class _Input(NamedTuple):
    """A parameter: a template, a selector, or a value as it is."""

    template: Template | None = None
    selector: tuple[str, ...] = ()
    value: Value = None


class ToolNode(Task):
    type = "tool"
    work = "io"
    retries = True

    def read(self, data: Reader) -> None:
        provider_id = data.text("provider_id") or data.text("provider_name")
        self._tool = ToolRef(
            provider_type=data.text("provider_type", "builtin"),
            provider_id=provider_id,
            name=data.text("tool_name"),
            provider_name=data.text("provider_name"),
        )
        if not provider_id or not self._tool.name:
            raise data.wrong("tool_name", "the node names no tool (provider_id and tool_name)")
        parameters = dict(data.table("tool_parameters").data)
        self._settings: dict[str, Value] = {}
        for name, value in data.table("tool_configurations").data.items():
            if _is_input(value):
                parameters.setdefault(name, value)
            elif value is not None:
                self._settings[name] = value
        self._inputs = {
            str(name): _read_input(value, f"{data.place}.tool_parameters.{name}")
            for name, value in parameters.items()
            if _is_given(value)
        }

    @property
    def tool(self) -> ToolRef:
        """Which one, for the import's report."""
        return self._tool

    def reads(self) -> Iterable[Selector]:
        for given in self._inputs.values():
            if given.template is not None:
                yield from given.template.selectors
            elif given.selector:
                yield given.selector

    def streams(self) -> Iterable[str]:
        return ("text",)

    async def execute(self, run: NodeRun) -> Result:
        arguments: dict[str, Value] = {}
        try:
            tool = await run.run.services.tools.find(self._tool, run)
            arguments = coerced(self._arguments(run, _required(tool.schema)), tool.schema)
            output = await tool.call(arguments, dict(self._settings), run)
        except ServiceFailed as error:
            raise NodeError(error.message, error.type, inputs=_shown(arguments)) from None
        if output.text:
            run.stream("text", output.text)
            await run.drain()
        return Result(
            inputs=_shown(arguments), outputs=_outputs(output), metadata={"tool_info": self._info()}
        )

    def _arguments(self, run: NodeRun, required: frozenset[str]) -> dict[str, Value]:
        arguments: dict[str, Value] = {}
        room = Room()
        for name, given in self._inputs.items():
            if given.template is not None:
                arguments[name] = room.take(given.template.text(run.variables))
                continue
            if not given.selector:
                arguments[name] = given.value
                continue
            value = run.variables.get(given.selector)
            if value is not MISSING:
                arguments[name] = value
            elif name in required:
                raise ToolFailed(
                    f"Variable {list(given.selector)} does not exist", "ToolParameterError"
                )
        return arguments

    def _info(self) -> dict[str, Value]:
        return {
            "provider_type": self._tool.provider_type,
            "provider_id": self._tool.provider_id,
            "tool_name": self._tool.name,
        }


def _is_input(value: Any) -> bool:
    """Older editors put parameters among the settings."""
    return isinstance(value, Mapping) and "value" in value and "type" in value


def _is_given(value: Any) -> bool:
    """A variable that was not chosen is stored as an empty text or list."""
    if not _is_input(value):
        return value is not None
    given = value["value"]
    unchosen = value["type"] in ("variable", "file") and given in ("", [])
    return given is not None and not unchosen


def _read_input(value: Any, place: str) -> _Input:
    if not _is_input(value):
        return _Input(Template(value)) if isinstance(value, str) else _Input(value=value)
    kind, given = value["type"], value["value"]
    if kind in ("variable", "file") and isinstance(given, list | tuple):
        if not all(isinstance(part, str) for part in given) or len(given) < 2:
            raise GraphError(
                place, f"expected a selector such as [node, name], got {given!r}"[:200]
            )
        return _Input(selector=tuple(given))
    if kind == "variable":
        raise GraphError(place, f"expected a selector such as [node, name], got {given!r}"[:200])
    if isinstance(given, str):
        return _Input(Template(given))
    return _Input(value=given)


def _required(schema: Mapping[str, Any]) -> frozenset[str]:
    required = schema.get("required")
    return frozenset(map(str, required)) if isinstance(required, list | tuple) else frozenset()


def _shown(arguments: Mapping[str, Value]) -> dict[str, Value]:
    return {name: plain(value) for name, value in arguments.items()}


def _outputs(output: ToolOutput) -> dict[str, Value]:
    return {
        "text": output.text,
        "files": list(output.files),
        "json": list(output.json) or list(_NO_JSON),
        **output.variables,
    }
