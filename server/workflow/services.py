"""What nodes need of the world around a run, as narrow protocols: the product and the tests each
bring their own. All waits can be cancelled; all sizes are bounded by who provides them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec

from server.workflow.app import ModelRef, ToolRef
from server.workflow.values import File, Value

if TYPE_CHECKING:
    from server.workflow.node import NodeRun

__all__ = [
    "Answer",
    "ChatCall",
    "Code",
    "CodeFailed",
    "Completion",
    "Documents",
    "Files",
    "Form",
    "Forms",
    "Jinja",
    "Knowledge",
    "Message",
    "ModelFacts",
    "ModelFailed",
    "Models",
    "Passage",
    "Query",
    "Receiver",
    "ServiceFailed",
    "Services",
    "Tool",
    "ToolCall",
    "ToolFailed",
    "ToolOutput",
    "Tools",
    "Usage",
    "Web",
    "WebFailed",
    "WebRequest",
    "WebResponse",
]

Message: TypeAlias = dict[str, Any]
"""As OpenAI's chat API has it: role, content (a text or a list of parts), tool_calls, ..."""


class ServiceFailed(Exception):
    """What a service could not do. `type` is the node's `error_type`."""

    def __init__(self, message: str, type: str) -> None:
        super().__init__(message)
        self.message = message
        self.type = type


# Models


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one or several calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


class ModelFailed(ServiceFailed):
    """A model could not be called, or its answer broke off."""


class ModelFacts(msgspec.Struct, frozen=True):
    """What is known of a model; unknown is the careful guess."""

    context_tokens: int | None = None
    vision: bool = True
    """Whether it takes pictures and videos."""
    audio: bool = False
    documents: bool = False
    """Whether it takes whole files, such as a PDF."""
    tools: bool = True
    json_schema: bool = True
    tokens_per_estimate: float = 1.0
    """How many tokens it counts where `tokens.estimate_tokens` says one; learned."""


class ToolCall(msgspec.Struct, frozen=True):
    """A model asks for a tool. `arguments` is JSON as the model wrote it, perhaps broken."""

    id: str
    name: str
    arguments: str


class ChatCall(msgspec.Struct, kw_only=True):
    """One call of a model. With `prompt`, of a completion model: `messages` is then empty."""

    model: ModelRef
    messages: Sequence[Message] = ()
    prompt: str | None = None
    parameters: Mapping[str, Any] = {}
    """completion_params as exported: temperature, max_tokens, stop, top_k, enable_thinking, ..."""
    tools: Sequence[dict[str, Any]] = ()
    """As OpenAI's API has them: {"type": "function", "function": {...}}."""
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    stream: bool = True


class Completion(msgspec.Struct, kw_only=True):
    """A whole answer. `reasoning` is what the engine sent apart from the text."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage = Usage()
    usage_estimated: bool = False
    """Whether the engine said nothing of its usage."""
    images: tuple[str, ...] = ()
    """Pictures that it made, as data URLs."""
    model: str = ""
    """The name of the pool that served it."""
    ttft_s: float | None = None
    elapsed_s: float = 0.0


class Receiver(Protocol):
    """Takes a streamed answer as it comes."""

    def text(self, piece: str) -> None: ...

    def reasoning(self, piece: str) -> None: ...

    async def drain(self) -> None:
        """Awaited after each read from the replica: backpressure."""


class Models(Protocol):
    """The models served here."""

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        """Call it with the run's tier, deadline and session. Raises `ModelFailed`. Cancelling it
        closes the connection to the replica, which stops its work."""

    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts: ...


# HTTP


class WebFailed(ServiceFailed):
    """A request that was not sent, or not answered."""


class WebRequest(msgspec.Struct, kw_only=True):
    """A request to somewhere outside, under the guard against requests to the inside (SSRF)."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    content: bytes | None = None
    connect_s: float = 10.0
    read_s: float = 60.0
    write_s: float = 60.0
    total_s: float = 600.0
    verify: bool = True
    most_bytes: int = 10 * 1024 * 1024
    follow_redirects: bool = True


class WebResponse(msgspec.Struct, kw_only=True):
    status: int
    headers: list[tuple[str, str]]
    """Names in lower case, in the order in which they came."""
    content: bytes
    url: str
    """The one that answered, after redirects."""


class Web(Protocol):
    async def send(self, request: WebRequest) -> WebResponse:
        """Raises `WebFailed`: refused by the guard, unreachable, out of time, too large."""


# Code, templates, documents: work for locked-down workers


class CodeFailed(ServiceFailed):
    """Code that raised, ran out of time or memory, or may not run."""


class Code(Protocol):
    async def run(
        self, language: Literal["python3", "javascript"], source: str, arguments: dict[str, Any]
    ) -> Any:
        """What its `main` returned, as JSON has it. Raises `CodeFailed`."""


class Jinja(Protocol):
    async def render(self, source: str, values: dict[str, Any]) -> str:
        """Raises `CodeFailed`. In process if its syntax is cheap, else in a worker."""

    def render_now(self, source: str, values: dict[str, Any]) -> str | None:
        """The same at once, if it is sure to be cheap; else None."""


class Documents(Protocol):
    async def text_of(self, content: bytes, name: str, mime_type: str | None) -> str:
        """The text of a document. Raises `CodeFailed`: of a kind that is not read, or broken."""


# Files


class Files(Protocol):
    """Where files are kept while runs use them."""

    async def read(self, file: File, most_bytes: int) -> bytes:
        """Raises `ServiceFailed`: not there, too large, not reachable."""

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        """Keep what a node made (`tool_file`)."""


# Tools


class ToolFailed(ServiceFailed):
    """A tool failed, is not there, or lacks a setting."""


class ToolOutput(msgspec.Struct, kw_only=True):
    """What a tool gave out."""

    text: str = ""
    files: list[File] = []
    json: list[Any] = []
    variables: dict[str, Value] = {}


class Tool(Protocol):
    """One tool."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """For models that choose among tools."""

    @property
    def schema(self) -> dict[str, Any]:
        """Of its arguments, as JSON Schema."""

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        """`arguments` are the node's or the model's, `settings` the export's and the bindings'.
        Raises `ToolFailed`."""


class Tools(Protocol):
    """The tools that runs may use."""

    async def find(self, tool: ToolRef, run: NodeRun) -> Tool:
        """Raises `ToolFailed`, naming the binding that is missing. Asks an MCP server for its list
        if need be."""

    async def all_of(self, provider: ToolRef, run: NodeRun) -> list[Tool]:
        """All of one provider (`name` is empty): what an agent gets of an MCP server."""

    async def mcp_tools(self, servers: Any, run: NodeRun, *, trusted: bool = False) -> list[Tool]:
        """All of the MCP servers that a parameter of an agent describes: a URL, or {name: {url,
        headers}}, or JSON text of it. `trusted` says that the operator named them, so that they may
        be inside. Raises `ToolFailed`."""


# Knowledge


class Passage(msgspec.Struct, kw_only=True):
    """A piece of a document that fits a query."""

    content: str
    score: float
    dataset_id: str
    dataset_name: str = ""
    document_id: str = ""
    document_name: str = ""
    segment_id: str = ""
    position: int = 0
    metadata: dict[str, Any] = {}


class Query(msgspec.Struct, kw_only=True):
    text: str
    dataset_ids: tuple[str, ...]
    """As the export has them; bindings say which bases they are."""
    top_k: int = 4
    score_threshold: float | None = None
    filter: dict[str, Any] | None = None
    """Conditions on the documents' metadata: logical_operator, conditions[{name,
    comparison_operator, value}], templates rendered."""
    weights: dict[str, Any] = {}


class Knowledge(Protocol):
    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        """Best first. Raises `ServiceFailed`."""

    async def fields(self, dataset_ids: Sequence[str], run: NodeRun) -> dict[str, str]:
        """What is known of the documents there, that a filter may name: each field and an example
        of its value. Raises `ServiceFailed`."""


# People


class Form(msgspec.Struct, kw_only=True):
    """A question to a person."""

    node_id: str
    run_id: str
    content: str
    inputs: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    expires_at: float
    """Unix time, in seconds."""


class Answer(msgspec.Struct, kw_only=True):
    action: str
    values: dict[str, Value]


class Forms(Protocol):
    """Forms that wait for an answer."""

    def open(self, form: Form) -> str:
        """Its token."""

    async def answer(self, token: str) -> Answer:
        """Wait for it; the caller sets the limit."""

    def close(self, token: str) -> None:
        """No answer is taken any more."""


class Services(msgspec.Struct, kw_only=True):
    """All of them."""

    models: Models
    web: Web
    code: Code
    jinja: Jinja
    documents: Documents
    files: Files
    tools: Tools
    knowledge: Knowledge
    forms: Forms
