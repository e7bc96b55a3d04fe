"""An app as it was imported: what runs, what it asks its users for, and what it still needs.

These are plain values: `server.dify` makes them from exports, `server.workflow.graph` compiles
their graph. Nothing here runs or fetches anything.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

__all__ = [
    "OPEN_MODEL",
    "App",
    "Bindings",
    "EdgeSpec",
    "GraphSpec",
    "InputSpec",
    "Mode",
    "ModelRef",
    "NodeSpec",
    "ToolRef",
    "VariableSpec",
]

Mode: TypeAlias = Literal["workflow", "advanced-chat", "chat", "agent-chat", "completion"]


class ModelRef(msgspec.Struct, frozen=True):
    """A model as an export names it: provider "langgenius/openai/openai", name "gpt-4o"."""

    provider: str
    name: str
    mode: Literal["chat", "completion"] = "chat"

    @property
    def key(self) -> str:
        """As `[models]` names it: "langgenius/openai/openai:gpt-4o"."""
        return f"{self.provider}:{self.name}"


OPEN_MODEL: Final = "default"
"""The name of a model that an export leaves open: nobody had chosen one yet."""


class ToolRef(msgspec.Struct, frozen=True):
    """A tool as an export names it."""

    provider_type: str
    """builtin, plugin, api, workflow, mcp, ...; older exports say builtin for plugins too."""
    provider_id: str
    """Such as "time", "langgenius/tavily/tavily", or the id of an OpenAPI or MCP provider."""
    name: str
    provider_name: str = ""

    @property
    def key(self) -> str:
        """As bindings name it: "langgenius/tavily/tavily:tavily_search"."""
        return f"{self.provider_id}:{self.name}"


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A node before it is compiled. `data` is as in the export, unknown keys and all."""

    id: str
    type: str
    title: str = ""
    data: dict[str, Any] = {}
    parent: str | None = None
    """The iteration or loop that it stands in."""
    place: str = ""
    """Where it stands in the file, such as "workflow.graph.nodes[3]"; for messages."""


class EdgeSpec(msgspec.Struct, frozen=True):
    """An edge from a node's handle. The handle of a node without branches is "source"."""

    source: str
    target: str
    handle: str = "source"


class GraphSpec(msgspec.Struct, frozen=True):
    """All nodes, those inside containers too, in the order of the file."""

    nodes: tuple[NodeSpec, ...]
    edges: tuple[EdgeSpec, ...]


class InputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One field that the app asks its user for (Dify's `user_input_form`, start variables)."""

    name: str
    type: str
    """text-input, paragraph, select, number, checkbox, file, file-list, json_object."""
    label: str = ""
    required: bool = False
    default: Any = None
    max_length: int | None = None
    """Characters of a text, files of a file-list."""
    options: tuple[str, ...] = ()
    hidden: bool = False
    extra: dict[str, Any] = {}
    """What else the export says: allowed_file_types, json_schema, ..."""


class VariableSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An environment or conversation variable with the value that it begins with."""

    name: str
    value_type: str
    value: Any = None
    description: str = ""
    id: str = ""


class Bindings(msgspec.Struct, frozen=True, kw_only=True):
    """What a file cannot carry, supplied by who imports it. Keys are as the report names them."""

    models: dict[str, str] = {}
    """"provider:name", with * as a wildcard, to a model served here; over `[models]`."""
    knowledge: dict[str, str] = {}
    """A dataset's id to the name of a knowledge base here."""
    tools: dict[str, dict[str, Any]] = {}
    """A tool's or a provider's key to its settings: credentials, base_url, an OpenAPI document, the
    URL of an MCP server."""
    environment: dict[str, Any] = {}
    """Values of environment variables, secrets above all, over those of the file."""


class App(msgspec.Struct, frozen=True, kw_only=True):
    """Something that clients run."""

    id: str
    name: str
    mode: Mode
    graph: GraphSpec
    description: str = ""
    inputs: tuple[InputSpec, ...] = ()
    environment: tuple[VariableSpec, ...] = ()
    conversation: tuple[VariableSpec, ...] = ()
    features: dict[str, Any] = {}
    """As the export has it: opening_statement, file_upload, retriever_resource, ..."""
    bindings: Bindings = Bindings()
    version: str = ""
    """Of the file's format, such as "0.3.1"."""
    digest: str = ""
    """Of the file and its bindings; what compiled graphs are cached under."""
    site: dict[str, Any] = {}
    """Icon, icon_background and the like, for clients that show it."""
