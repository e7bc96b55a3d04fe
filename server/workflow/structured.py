"""Answers that must fit a JSON Schema: what an engine is told of it, and what its answer says."""

from __future__ import annotations

import json
from typing import Any, Final

from server.workflow.json_text import NO_JSON, json_in
from server.workflow.reading import GraphError, Reader
from server.workflow.schemas import Schema, SchemaError
from server.workflow.services import Message

__all__ = ["Mismatch", "OutputSchema", "instructed", "read_output_schema"]

_SCHEMA_CHARACTERS: Final = 131_072
_MESSAGE_CHARACTERS: Final = 300


class Mismatch(Exception):
    """An answer does not fit. `path` is the place in it, such as "$.items[0]"."""

    def __init__(self, message: str, path: str = "$", *, parsed: bool = True) -> None:
        super().__init__(message)
        self.message = message[:_MESSAGE_CHARACTERS]
        self.path = path
        self.parsed = parsed
        """Whether it was JSON at all."""

    @property
    def told(self) -> str:
        """As a node's error."""
        what = "Structured output validation failed" if self.parsed else ""
        what = what or "Failed to parse structured output"
        return f"{what} (stage=result, path={self.path}): {self.message}"


class OutputSchema:
    """A schema out of an export. Nothing is fetched for it; patterns cannot explode."""

    def __init__(self, schema: dict[str, Any], place: str = "") -> None:
        self.schema = schema
        try:
            self.text = json.dumps(schema, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as exc:
            raise GraphError(place, f"the schema is no JSON: {exc}"[:200]) from None
        if len(self.text) > _SCHEMA_CHARACTERS:
            raise GraphError(place, f"the schema has more than {_SCHEMA_CHARACTERS:,} characters")
        self._place = place
        self._validator: Schema | None = None

    @property
    def response_format(self) -> dict[str, Any]:
        """For engines that make answers fit."""
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}

    @property
    def instruction(self) -> str:
        """For the others, in words."""
        return (
            "Answer with one JSON value and nothing else: no words before or after it, no code "
            "block. It must be valid JSON and fit this JSON Schema:\n"
            f"{self.text}"
        )

    def correction(self, mismatch: Mismatch) -> str:
        """For a model whose answer did not fit."""
        return (
            f"That answer does not fit: {mismatch.message} (at {mismatch.path}). Answer again. "
            f"{self.instruction}"
        )

    async def read(self, text: str) -> Any:
        """The value in a model's answer. Raises `Mismatch`."""
        value = await json_in(text)
        if value is NO_JSON:
            raise Mismatch("the answer has no JSON in it", parsed=False)
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raises `Mismatch`."""
        found = self.compiled().misfit(value)
        if found is not None:
            message, steps = found
            raise Mismatch(message, _path(steps))

    def compiled(self) -> Schema:
        """The validator, made once. Raises `Mismatch` for what is no schema."""
        if self._validator is None:
            try:
                self._validator = Schema(self.schema)
            except SchemaError as exc:
                raise Mismatch(f"the schema at {self._place} cannot be used: {exc}") from None
        return self._validator


def _path(steps: list[str | int]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def read_output_schema(data: Reader) -> OutputSchema | None:
    """A node's schema, if its answers are to fit one. Raises `GraphError`."""
    if not data.flag("structured_output_enabled", data.flag("structured_output_switch_on")):
        return None
    output = data.table("structured_output")
    schema = output.value("schema")
    if not isinstance(schema, dict) or not schema:
        raise output.wrong("schema", "structured output is on, but there is no schema")
    return OutputSchema(schema, f"{output.place}.schema")


def instructed(messages: list[Message], instruction: str) -> list[Message]:
    """The messages with an instruction at the end of the system message, which may be new."""
    first = messages[0] if messages else {}
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        told = {**first, "content": f"{first['content']}\n\n{instruction}"}
        return [told, *messages[1:]]
    return [{"role": "system", "content": instruction}, *messages]
