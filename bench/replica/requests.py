"""The request bodies the replica reads; fields not named here are accepted and ignored."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final, Literal, TypeVar

import msgspec

from bench.replica.blocks import Blocks, TooLongError
from bench.replica.errors import RequestError, bad_value, context_exceeded

MAX_STOPS = 64
MAX_STOP_CHARS = 1024
MAX_PROMPTS = 64
MAX_EMBEDDING_INPUTS = 2048
MESSAGE_MARKS: Final = ("<end>", "<next>", "\n")
"""What a chat template adds to each message, besides its role."""

_Body = TypeVar("_Body", bound=msgspec.Struct)
_WHERE = re.compile(r" - at `\$\.([^`.\[]+)")

Prompt = str | list[int]
Prompts = str | list[str | int | list[int]]
"""One text, several texts, one list of token ids, or several such lists."""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = True


class GenerateRequest(msgspec.Struct, kw_only=True):
    """What chat and completion requests have in common."""

    model: str | None = None
    max_tokens: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    n: int | None = 1
    seed: int | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ContentPart(msgspec.Struct):
    text: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[ContentPart | str] | None = None

    @property
    def text(self) -> str:
        """Its words; parts that hold none (images, sound) are passed over."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        parts = (part if isinstance(part, str) else part.text for part in self.content)
        return "\n".join(text for text in parts if text)


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """Of a prompt, or of a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None


class ChatRequest(GenerateRequest, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: list[Any] | None = None


class CompletionRequest(GenerateRequest, kw_only=True):
    prompt: Prompts


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    input: Prompts
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def decode(body: bytes, kind: type[_Body]) -> _Body:
    """The request in `body`. Raises RequestError (400) naming the byte or the field at fault."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        where = _WHERE.search(str(error))
        param = where[1] if where else None
        raise RequestError(HTTPStatus.BAD_REQUEST, str(error), param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"The request body is not valid JSON: {error}"
        raise RequestError(HTTPStatus.BAD_REQUEST, message) from error


def check_generate(request: GenerateRequest) -> None:
    """Raises RequestError (400) for values that no answer can be made with."""
    if request.n is not None and request.n != 1:
        raise bad_value(f"n = {request.n}: this replica makes one answer for each request.", "n")
    if request.stream_options is not None and not request.stream:
        message = "stream_options can only be given together with stream = true."
        raise bad_value(message, "stream_options")
    if "" in request.stops:
        raise bad_value("stop cannot contain an empty string.", "stop")
    if len(request.stops) > MAX_STOPS or any(len(stop) > MAX_STOP_CHARS for stop in request.stops):
        message = f"stop takes at most {MAX_STOPS} strings of {MAX_STOP_CHARS} characters."
        raise bad_value(message, "stop")


def check_max_tokens(max_tokens: int | None, max_model_len: int, param: str) -> None:
    """Raises RequestError (400) for an answer length that is impossible with any prompt."""
    if max_tokens is None:
        return
    if max_tokens < 1:
        raise bad_value(f"{param} must be at least 1, got {max_tokens}.", param)
    if max_tokens >= max_model_len:
        raise bad_value(
            f"{param} = {max_tokens} leaves no room for a prompt: this model's maximum context "
            f"length is {max_model_len} tokens. Please request fewer output tokens.",
            param,
        )


async def prompt_blocks(given: Prompt, output_tokens: int, max_model_len: int) -> Blocks:
    """One prompt as blocks. Raises RequestError (400) if it leaves no room for `output_tokens`."""
    blocks, room = Blocks(), max_model_len - output_tokens
    try:
        if isinstance(given, str):
            await blocks.add_text(given, room)
        else:
            await blocks.add_ids(given, room)
    except TooLongError as error:
        raise context_exceeded(max_model_len, output_tokens) from error
    return blocks


async def chat_blocks(messages: list[Message], output_tokens: int, max_model_len: int) -> Blocks:
    """A conversation as blocks; errors as of `prompt_blocks`.

    The marks of a chat template stand after each message, its role among them, and lead over to the
    next message or to the answer: so the next turn's prompt begins with this one and its answer.
    """
    blocks, room = Blocks(), max_model_len - output_tokens
    try:
        for message in messages:
            await blocks.add_text(message.text, room)
            blocks.add_tokens((f"<{message.role}>", *MESSAGE_MARKS))
        if blocks.tokens > room:
            raise TooLongError
    except TooLongError as error:
        raise context_exceeded(max_model_len, output_tokens) from error
    return blocks


def prompts(given: Prompts, at_most: int, param: str) -> list[Prompt]:
    """The separate prompts in `given`. Raises RequestError (400) for none, too many, a mixture."""
    if isinstance(given, str):
        return [given]
    ids = [item for item in given if isinstance(item, int)]
    if ids and len(ids) == len(given):
        return [ids]
    several = [item for item in given if not isinstance(item, int)]
    if not several:
        raise bad_value(f"{param} is an empty list; give at least one text.", param)
    if ids or len({type(item) for item in several}) > 1:
        raise bad_value(f"{param} mixes texts and token ids; give one kind.", param)
    if len(several) > at_most:
        raise bad_value(f"{param} has {len(several)} entries; {at_most} at most.", param)
    return several
