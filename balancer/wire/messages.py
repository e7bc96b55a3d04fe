"""One message as a chat template would put it, in any of the relayed APIs: its role, its content.

A message or a part of an unknown form is put as its JSON: engines know more of them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from balancer.wire.media import stand_in
from balancer.wire.page import UNREADABLE, Page, compact, given

__all__ = ["END", "USER", "add_message", "add_system"]

_Raw = msgspec.Raw
_NONE: Final = msgspec.Raw()


class _Message(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | list[_Raw] | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: _Raw = _NONE
    function_call: _Raw = _NONE
    tool_call_id: _Raw = _NONE


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    # of a tool's use and its result
    id: _Raw = _NONE
    name: _Raw = _NONE
    input: _Raw = _NONE
    tool_use_id: _Raw = _NONE
    content: str | list[_Raw] | None = None
    # of media: what it is, or where
    image_url: _Raw = _NONE
    source: _Raw = _NONE
    input_audio: _Raw = _NONE
    audio_url: _Raw = _NONE
    video_url: _Raw = _NONE
    file: _Raw = _NONE
    file_data: _Raw = _NONE
    file_url: _Raw = _NONE
    file_id: _Raw = _NONE


_message: Final = msgspec.json.Decoder(_Message)
_part: Final = msgspec.json.Decoder(_Part)
_content: Final[msgspec.json.Decoder[str | list[_Raw] | None]] = msgspec.json.Decoder(
    str | list[_Raw] | None
)

END: Final = b"<|end|>\n"
USER: Final = b"<|user|>\n"


def add_system(page: Page, raw: _Raw) -> None:
    """`system` or `instructions`: a text or a list of parts, outside of the messages."""
    page.add(b"<|system|>\n")
    try:
        content = _content.decode(raw)
    except UNREADABLE:
        page.add_json(raw)
    else:
        _add_content(page, _without_billing(content))
    page.add(END)


def _without_billing(content: str | list[_Raw] | None) -> str | list[_Raw] | None:
    if not isinstance(content, list) or not content:
        return content
    beginning = memoryview(content[0])[:_BILLING_BYTES].tobytes()
    return content[1:] if _BILLING in beginning else content


_BILLING_BYTES: Final = 128
_BILLING: Final = b'"x-anthropic-billing-header:'
"""How a first block of the system prompt begins that is another in every request of a coding agent.
vLLM leaves it out of the prompt as well (its pull request 36829)."""


def add_message(page: Page, raw: _Raw) -> None:
    """One of `messages`, or an item of the Responses API's `input`."""
    try:
        message = _message.decode(raw)
    except UNREADABLE:
        page.add_json(raw)
        return
    if not message.role:  # an item of the Responses API: a call of a tool, what it gave, ...
        page.add_json(raw)
        return
    page.add(f"<|{message.role}|>\n{message.name or ''}".encode())
    reasoning = message.reasoning or message.reasoning_content
    if reasoning:
        page.add(reasoning.encode())
    _add_content(page, message.content)
    for each in (message.tool_calls, message.function_call, message.tool_call_id):
        if each:
            page.add_json(each)
    page.add(END)


def _add_content(page: Page, content: str | list[_Raw] | None, *, nested: bool = False) -> None:
    if isinstance(content, str):
        page.add(content.encode())
        return
    for raw in content or ():
        if page.cuts():
            return
        _add_part(page, raw, nested=nested)


def _add_part(page: Page, raw: _Raw, *, nested: bool) -> None:
    try:
        part = _part.decode(raw)
    except UNREADABLE:
        page.add_json(raw)
        return
    if part.text is not None:
        page.add(part.text.encode())
    elif media := _media(part):
        page.add(stand_in(media))
    elif part.content is not None and not nested:
        page.add_json(part.tool_use_id)
        _add_content(page, part.content, nested=True)
    elif given(part.input):
        for each in (part.id, part.name, part.input):
            page.add_json(each)
    elif part.thinking is not None:
        page.add(part.thinking.encode())
    else:
        page.add_json(raw)


def _media(part: _Part) -> bytes:
    for each in (
        part.image_url,
        part.source,
        part.input_audio,
        part.audio_url,
        part.video_url,
        part.file,
        part.file_data,
        part.file_url,
        part.file_id,
    ):
        if given(each):
            return compact(each)
    return b""
