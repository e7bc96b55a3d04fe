"""Tools that installed packages add, through the entry point group `triolet.tools`.

An entry point's name is the provider's key, its object a function without arguments that returns a
list of tools. A package that cannot be loaded is logged and named in the error of who asks for it;
it keeps nobody else from running.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping
from typing import Any

from server.workflow.node import NodeRun
from server.workflow.services import ServiceFailed, Tool, ToolFailed, ToolOutput

__all__ = ["GROUP", "Plugins"]

log = logging.getLogger(__name__)

GROUP = "triolet.tools"


class Plugins:
    """The providers of all installed packages, each loaded when it is first asked for."""

    def __init__(self, points: Mapping[str, importlib.metadata.EntryPoint] | None = None) -> None:
        self._points = points
        self._tools: dict[str, list[Tool]] = {}
        self._faults: dict[str, str] = {}

    def tools(self, provider: str) -> list[Tool] | None:
        """The provider's tools; None if no package has it. Blocks while it imports: call it in a
        thread. Raises `ToolFailed` for a package that cannot be loaded."""
        if self._points is None:
            self._points = {
                point.name: point for point in importlib.metadata.entry_points(group=GROUP)
            }
        point = self._points.get(provider)
        if point is None:
            return None
        if provider in self._faults:
            raise ToolFailed(self._faults[provider], "PluginError")
        if provider not in self._tools:
            self._tools[provider] = self._loaded(provider, point)
        return self._tools[provider]

    def _loaded(self, provider: str, point: importlib.metadata.EntryPoint) -> list[Tool]:
        try:
            return [_Contained(provider, tool) for tool in point.load()()]
        except Exception as error:
            log.exception("the plugin %r (%s) cannot be loaded", provider, point.value)
            self._faults[provider] = f"the plugin {provider!r} ({point.value}) failed: {error!r}"
            raise ToolFailed(self._faults[provider], "PluginError") from None


class _Contained:
    """A plugin's tool. What it raises is an error of the tool, with its name, and in the log."""

    def __init__(self, provider: str, tool: Tool) -> None:
        self._provider = provider
        self._tool = tool
        self.name = str(tool.name)
        self.description = str(tool.description)
        self.schema: dict[str, Any] = dict(tool.schema)

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        try:
            return await self._tool.call(arguments, settings, run)
        except ServiceFailed:
            raise
        except Exception as error:
            log.exception("the tool %r of the plugin %r failed", self.name, self._provider)
            raise ToolFailed(
                f"the tool {self.name!r} of the plugin {self._provider!r} failed: {error!r}"[:1000],
                "PluginError",
            ) from None
