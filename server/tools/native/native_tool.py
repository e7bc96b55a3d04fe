"""The shape of all native tools: a name, words for models, a schema, and a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from server.tools.native.given import Given
from server.workflow.node import NodeRun
from server.workflow.services import ToolOutput

__all__ = ["Do", "NativeTool", "arguments"]

Do: TypeAlias = Callable[[Given], Awaitable[ToolOutput]]


class NativeTool:
    """`services.Tool` over a function. `schema` holds what a model may set; what only a form asks
    for (`Given` reads both alike) is left out of it."""

    def __init__(
        self, provider: str, name: str, description: str, schema: dict[str, Any], do: Do
    ) -> None:
        self.provider = provider
        self.name = name
        self.description = description
        self.schema = schema
        self._do = do

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        """Raises `ToolFailed`, or another `ServiceFailed` of the service that it used."""
        return await self._do(Given(self.provider, arguments, settings, run))


def arguments(
    properties: Mapping[str, str | tuple[str, str]],
    required: Sequence[str] = (),
    choices: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """A JSON Schema of an object: each argument's description, or (type, description)."""
    found: dict[str, Any] = {}
    for name, told in properties.items():
        kind, description = ("string", told) if isinstance(told, str) else told
        found[name] = {"type": kind, "description": description}
        if choices and name in choices:
            found[name]["enum"] = list(choices[name])
    return {"type": "object", "properties": found, "required": list(required)}
