"""The prompt of an llm node: its template cut up once, and the messages that a run makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from server.workflow.history import Memory
from server.workflow.node import NodeError
from server.workflow.reading import Reader
from server.workflow.services import Jinja, Message
from server.workflow.sizes import Room
from server.workflow.template import Template
from server.workflow.values import File, Value, plain, text_of
from server.workflow.variables import MISSING, Selector, Variables
from server.workflow.vision import files_in

__all__ = [
    "ChatPrompt",
    "CompletionPrompt",
    "JinjaVariables",
    "PromptText",
    "query_messages",
    "query_text",
    "read_prompt",
    "require",
    "with_files",
]

_CONTEXT: Final = "{{#context#}}"
_HISTORIES: Final = ("{{#histories#}}", "#histories#")
_QUERY: Final = "#sys.query#"
_ROLES: Final = frozenset({"system", "user", "assistant"})


def require(selectors: Iterable[Selector], variables: Variables) -> dict[str, Value]:
    """The variables by their names as records have them, "#node.name#".

    Raises `NodeError` for one that is not there: on a branch that was not taken, say.
    """
    found = {}
    for selector in selectors:
        name = f"#{'.'.join(selector)}#"
        value = variables.get(selector)
        if value is MISSING:
            raise NodeError(f"Variable {name} not found", "VariableNotFoundError")
        found[name] = "" if value is None else value
    return found


class PromptText:
    """A text with variables and, in it, the context. The context's own text is not looked into."""

    __slots__ = ("_parts",)

    def __init__(self, source: str) -> None:
        self._parts = [Template(part) for part in source.split(_CONTEXT)]

    @property
    def selectors(self) -> list[tuple[str, ...]]:
        return [selector for part in self._parts for selector in part.selectors]

    def text(self, variables: Variables, context: str = "") -> str:
        """Raises `TooLarge`."""
        room = Room()
        room.take(context, len(self._parts) - 1)
        return context.join(room.take(part.text(variables)) for part in self._parts)

    def files(self, variables: Variables) -> list[File]:
        """Those in its variables, which have no text."""
        return [file for selector in self.selectors for file in files_in(variables.get(selector))]


class JinjaVariables:
    """`prompt_config.jinja2_variables`: a name, and where its value stands."""

    __slots__ = ("_variables",)

    def __init__(self, variables: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        self._variables = tuple(variables)

    @property
    def selectors(self) -> list[tuple[str, ...]]:
        return [selector for _, selector in self._variables]

    def values(self, variables: Variables) -> dict[str, Value]:
        """For a template. Raises `NodeError` for one that is not there."""
        values = {}
        for name, selector in self._variables:
            value = variables.get(selector)
            if value is MISSING:
                raise NodeError(f"Variable {name} not found", "VariableNotFoundError")
            values[name] = "" if value is None else plain(value)
        return values


class _Source:
    """One text of a template, plain or Jinja."""

    __slots__ = ("jinja", "text")

    def __init__(self, data: Reader) -> None:
        self.jinja: str | None = None
        source = data.text("text")
        if data.text("edition_type") == "jinja2":
            self.jinja = source = data.text("jinja2_text") or source
        self.text = PromptText(source)

    async def render(
        self, variables: Variables, context: str, jinja: Jinja, values: dict[str, Value]
    ) -> str:
        if self.jinja is None:
            return self.text.text(variables, context)
        rendered = jinja.render_now(self.jinja, values)
        return await jinja.render(self.jinja, values) if rendered is None else rendered


class ChatPrompt:
    """The messages of a chat model's template."""

    def __init__(self, messages: Sequence[tuple[str, _Source]]) -> None:
        self._messages = tuple(messages)

    @property
    def selectors(self) -> list[tuple[str, ...]]:
        return [selector for _, source in self._messages for selector in source.text.selectors]

    @property
    def uses_jinja(self) -> bool:
        return any(source.jinja is not None for _, source in self._messages)

    async def messages(
        self, variables: Variables, context: str, jinja: Jinja, values: dict[str, Value]
    ) -> list[Message]:
        """Contents are lists of parts; a file is a part until it is loaded. Raises `TooLarge`."""
        messages: list[Message] = []
        room = Room()
        for role, source in self._messages:
            text = room.take(await source.render(variables, context, jinja, values))
            files = [] if source.jinja is not None else source.text.files(variables)
            messages += _text_and_files(role, text, files)
        return messages


class CompletionPrompt:
    """The one text of a completion model's template."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    @property
    def selectors(self) -> list[tuple[str, ...]]:
        return self._source.text.selectors

    @property
    def uses_jinja(self) -> bool:
        return self._source.jinja is not None

    async def prompt(
        self,
        variables: Variables,
        context: str,
        jinja: Jinja,
        values: dict[str, Value],
        *,
        histories: str,
        query: str,
    ) -> str:
        """The history stands where the text says so, or before it. Raises `TooLarge`."""
        room = Room()
        text = await self._source.render(variables, context, jinja, values)
        if query:
            room.take(query, text.count(_QUERY))
            text = text.replace(_QUERY, query)
        for placeholder in _HISTORIES:
            if placeholder in text:
                room.take(histories, text.count(placeholder))
                return text.replace(placeholder, histories)
        return f"{histories}\n{text}" if histories else text


def _text_and_files(role: str, text: str, files: Sequence[File]) -> list[Message]:
    messages: list[Message] = []
    if text:
        messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    if files:
        messages.append({"role": role, "content": list(files)})
    return messages


def query_messages(memory: Memory, variables: Variables) -> list[Message]:
    """What the user says now, after the history: the memory's template, or else sys.query."""
    if memory.query is not None:
        files = [
            file
            for selector in memory.query.selectors
            for file in files_in(variables.get(selector))
        ]
        return _text_and_files("user", memory.query.text(variables), files)
    return _text_and_files("user", _query(variables), [])


def query_text(memory: Memory | None, variables: Variables) -> str:
    """The same as text, for completion models."""
    if memory is None:
        return ""
    return _query(variables) if memory.query is None else memory.query.text(variables)


def _query(variables: Variables) -> str:
    query = variables.get(("sys", "query"))
    return "" if query is MISSING else text_of(query)


def with_files(messages: list[Message], files: Sequence[File]) -> list[Message]:
    """The files before the text of the last message if that is the user's, or else after all."""
    if not files:
        return messages
    last = messages[-1] if messages else {}
    if last.get("role") == "user" and isinstance(last["content"], list):
        return [*messages[:-1], {**last, "content": [*files, *last["content"]]}]
    return [*messages, {"role": "user", "content": list(files)}]


def read_prompt(data: Reader) -> tuple[ChatPrompt | CompletionPrompt, JinjaVariables]:
    """`prompt_template` and `prompt_config` of a node. Raises `GraphError`."""
    given = data.value("prompt_template", [])
    prompt: ChatPrompt | CompletionPrompt
    if isinstance(given, list):
        prompt = ChatPrompt([_message(one) for one in data.tables("prompt_template")])
    else:
        prompt = CompletionPrompt(_Source(data.table("prompt_template")))
    listed = data.table("prompt_config").tables("jinja2_variables")
    named = [(one.text("variable"), one.selector("value_selector")) for one in listed]
    return prompt, JinjaVariables([one for one in named if one[0] and one[1]])


def _message(data: Reader) -> tuple[str, _Source]:
    role: Any = data.text("role", "user")
    if role not in _ROLES:
        raise data.wrong("role", f"expected system, user or assistant, got {role!r}"[:200])
    return role, _Source(data)
