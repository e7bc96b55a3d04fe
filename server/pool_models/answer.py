"""What a model's answer says: put together from the events of a stream, or read whole. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from balancer.wire.sse import data_of, events_of
from server.pool_models.failures import broken_answer, error_event
from server.workflow.services import ModelFailed, ToolCall

__all__ = ["Answer"]

MOST_CHARACTERS: Final = 8_388_608
"""Of an answer with all that belongs to it: eight times what any model writes."""
MOST_IMAGE_BYTES: Final = 16_777_216
_MOST_TOOL_CALLS: Final = 128


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct, gc=False):
    """A delta, or a whole message."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    images: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    error: Any = None
    object: Any = None


_decode: Final = msgspec.json.Decoder(_Event).decode


def _decode_leniently(data: bytes, failure: Exception) -> _Event:
    """For half a character, which some engines send when a token ends in the middle of one."""
    try:
        read = json.loads(data.decode("utf-8", "replace"))
        return _decode(json.dumps(read, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise broken_answer(data, str(failure)) from None


class _OpenCall:
    """A call of a tool whose arguments are still coming."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int | None, id: str) -> None:
        self.index = index
        self.id = id
        self.name = ""
        self.arguments: list[str] = []

    def whole(self, place: int) -> ToolCall:
        return ToolCall(self.id or f"call_{place}", self.name, "".join(self.arguments))


class Answer:
    """Takes an answer as it comes. `on_text` and `on_reasoning` are told at once."""

    def __init__(
        self,
        on_text: Callable[[str], None] | None = None,
        on_reasoning: Callable[[str], None] | None = None,
    ) -> None:
        self._on_text = on_text
        self._on_reasoning = on_reasoning
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._calls: list[_OpenCall] = []
        self._images: list[str] = []
        self._characters = 0
        self._image_bytes = 0
        self.finish_reason: str | None = None
        self.ended = False
        """Whether the engine said that this is all."""

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasonings)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(call.whole(place) for place, call in enumerate(self._calls))

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(self._images)

    def feed(self, events: bytes) -> None:
        """Whole events of a stream. Raises `ModelFailed`: an error event, or none of this API."""
        for data in _datas(events):
            if data == b"[DONE]":
                self.ended = True
            elif data:
                self._take(data)

    def read(self, body: bytes) -> None:
        """A whole answer that is no stream. Raises `ModelFailed`."""
        self._take(body)
        self.ended = True

    def _take(self, data: bytes) -> None:
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            if data.strip() == b"[DONE]":
                self.ended = True
                return
            event = _decode_leniently(data, exc)
        if event.error or event.object == "error":
            raise error_event(data)
        for choice in event.choices or ():
            if not choice.index:
                self._add(choice)

    def _add(self, choice: _Choice) -> None:
        said = choice.delta or choice.message
        if said is not None:
            content = said.content
            if content:
                if isinstance(content, str):
                    self._say(content)
                else:
                    self._add_parts(content)
            reasoning = said.reasoning_content or said.reasoning
            if reasoning:
                self._reason(reasoning)
            if said.tool_calls:
                self._add_calls(said.tool_calls)
            if said.images:
                self._add_parts(said.images)
        elif choice.text:
            self._say(choice.text)
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason
            self.ended = True

    def _say(self, piece: str) -> None:
        self._count(len(piece))
        self._texts.append(piece)
        if self._on_text is not None:
            self._on_text(piece)

    def _reason(self, piece: str) -> None:
        self._count(len(piece))
        self._reasonings.append(piece)
        if self._on_reasoning is not None:
            self._on_reasoning(piece)

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > MOST_CHARACTERS:
            raise ModelFailed(
                f"the answer has more than {MOST_CHARACTERS:,} characters; set max_tokens",
                "InvokeServerUnavailableError",
            )

    def _add_parts(self, parts: Iterable[Any]) -> None:
        """Content in parts: text, thoughts (Mistral), pictures."""
        for part in parts:
            if not isinstance(part, dict):
                continue
            kind = part.get("type")
            if kind in ("text", "output_text") and isinstance(part.get("text"), str):
                self._say(part["text"])
            elif kind == "thinking":
                for thought in _texts_of(part.get("thinking")):
                    self._reason(thought)
            elif kind == "image_url":
                self._add_image(part.get("image_url"))

    def _add_image(self, image: Any) -> None:
        url = image.get("url") if isinstance(image, dict) else image
        if not isinstance(url, str) or not url.startswith("data:"):
            return
        self._image_bytes += len(url)
        if self._image_bytes > MOST_IMAGE_BYTES:
            raise ModelFailed(
                f"the answer's pictures have more than {MOST_IMAGE_BYTES:,} bytes",
                "InvokeServerUnavailableError",
            )
        self._images.append(url)

    def _add_calls(self, deltas: Iterable[_Call]) -> None:
        for delta in deltas:
            call = self._call_of(delta)
            function = delta.function
            if function is None:
                continue
            if function.name and not call.name:
                call.name = function.name
            arguments = function.arguments
            if arguments:
                if not isinstance(arguments, str):  # an object instead of its JSON
                    arguments = msgspec.json.encode(arguments).decode()
                self._count(len(arguments))
                call.arguments.append(arguments)

    def _call_of(self, delta: _Call) -> _OpenCall:
        """The call that a delta goes on with, or a new one.

        Some engines number none, some number all 0: then another id begins another call. Of those
        without either, another name does.
        """
        bare = delta.index is None and not delta.id
        named = delta.function is not None and bool(delta.function.name)
        for call in reversed(self._calls):
            if bare and named and call.name:
                break
            if delta.index is not None and call.index != delta.index:
                continue
            if delta.id and call.id and delta.id != call.id:
                continue
            call.id = call.id or delta.id or ""
            return call
        if len(self._calls) >= _MOST_TOOL_CALLS:
            raise ModelFailed(
                f"the answer asks for more than {_MOST_TOOL_CALLS} tools at once",
                "InvokeServerUnavailableError",
            )
        call = _OpenCall(delta.index, delta.id or "")
        self._calls.append(call)
        return call


def _datas(events: bytes) -> Iterator[bytes]:
    """The data of each event. Raw CR stands in no JSON, so where there is none LF ends lines."""
    if b"\r" in events:
        yield from map(data_of, events_of(events))
        return
    for event in events.split(b"\n\n"):
        if event.startswith(b"data: ") and b"\n" not in event:
            yield event[6:]
        elif event:
            yield data_of(event)


def _texts_of(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    for part in given if isinstance(given, list) else ():
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text
