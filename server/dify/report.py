"""What an import found, what it still needs, and what it cannot do, as data."""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypeAlias

import msgspec

from server.workflow.app import Mode, ModelRef, ToolRef

__all__ = [
    "CodeNeed",
    "Dependency",
    "Finding",
    "Findings",
    "KnowledgeNeed",
    "ModelNeed",
    "Report",
    "Severity",
    "ToolNeed",
    "VariableNeed",
]

Severity: TypeAlias = Literal["info", "warning", "missing", "unsupported"]
"""info: good to know. warning: runs, but not all of it as in Dify. missing: runs once a binding or
a setting supplies it. unsupported: does not run here."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that whoever imports should know."""

    severity: Severity
    code: str
    """A short, stable name: model, knowledge, tool, secret, code, node-type, feature, ..."""
    place: str
    """The path in the file, such as "workflow.graph.nodes[3].data.model"."""
    message: str
    fix: str = ""
    """What to do, such as `--bind "model:openai:gpt-4o=MODEL"`."""
    line: int | None = None


class ModelNeed(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the app calls."""

    key: str
    """For `--bind`: "model:langgenius/openai/openai:gpt-4o"."""
    model: ModelRef
    places: tuple[str, ...]
    bound: str | None = None
    """The model served here that stands for it."""
    by: str = ""
    """Why: binding, configured, same name, only model."""


class KnowledgeNeed(msgspec.Struct, frozen=True, kw_only=True):
    """A knowledge base, by the id that it had where the app comes from."""

    key: str
    id: str
    places: tuple[str, ...]
    bound: str | None = None
    """The knowledge base here."""


class ToolNeed(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that a node or an agent calls."""

    key: str
    """For `--bind KEY.SETTING=VALUE`: "tool:langgenius/tavily/tavily"."""
    tool: ToolRef
    kind: Literal["native", "plugin", "api", "mcp", "workflow"]
    """native: Triolet has it. plugin: only an installed package, or a binding, can have it."""
    places: tuple[str, ...]
    settings: tuple[str, ...] = ()
    """The names of those that bindings give it."""
    bound: bool = False
    """Whether there is something to call."""


class VariableNeed(msgspec.Struct, frozen=True, kw_only=True):
    """An environment variable."""

    key: str
    name: str
    value_type: str
    place: str
    empty: bool
    """The file has no value for it, and no binding has."""


class McpNeed(msgspec.Struct, frozen=True, kw_only=True):
    """An MCP server that an agent's settings name."""

    url: str
    """Without its query, which may hold a key."""
    place: str


class CodeNeed(msgspec.Struct, frozen=True, kw_only=True):
    """Code nodes: they run only where that is allowed."""

    languages: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    allowed: bool = False


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that the export lists. Triolet does not install it; it is named for people."""

    name: str
    kind: str
    version: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    name: str
    mode: Mode
    version: str
    nodes: dict[str, int]
    """How many of each type, by today's names; notes apart."""
    edges: int
    notes: int
    features: tuple[str, ...]
    """Those switched on: opening_statement, file_upload, ..."""
    inputs: tuple[str, ...]
    models: tuple[ModelNeed, ...] = ()
    knowledge: tuple[KnowledgeNeed, ...] = ()
    tools: tuple[ToolNeed, ...] = ()
    environment: tuple[VariableNeed, ...] = ()
    conversation: tuple[str, ...] = ()
    mcp_servers: tuple[McpNeed, ...] = ()
    code: CodeNeed = CodeNeed()
    dependencies: tuple[Dependency, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def is_runnable(self) -> bool:
        """Whether nothing is missing and nothing unsupported stands in the way."""
        return not any(each.severity in ("missing", "unsupported") for each in self.findings)

    def of(self, severity: Severity) -> list[Finding]:
        return [each for each in self.findings if each.severity == severity]


class Findings:
    """Findings while a file is read; of one kind at most `most`, so that no file floods a report.

    That leaves none out that says whether the app runs: the first of each kind is always there.
    """

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._counts: Counter[tuple[str, str]] = Counter()
        self.all: list[Finding] = []

    def add(self, severity: Severity, code: str, place: str, message: str, fix: str = "") -> None:
        self._counts[severity, code] += 1
        if self._counts[severity, code] <= self._most:
            self.all.append(
                Finding(
                    severity=severity, code=code, place=place, message=message[:500], fix=fix[:500]
                )
            )
