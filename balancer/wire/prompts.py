"""The prompt in a request body, in the order in which a chat template would put it. Pure.

Tools come first, then documents, the system prompt, and each message as its role and its content.
What decides how the model is run but not what it reads (`temperature`, `stream`, the order of the
outer keys, where `cache_control` stands) is left out. So one turn's prompt is the beginning of the
next one's, byte for byte, whichever of the APIs it came by.

What cannot be read as expected is no error here: the engine answers for it. A message or part of an
unknown form is rendered as its JSON without the white space.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from balancer.wire.media import without_media
from balancer.wire.messages import END, USER, add_message, add_system
from balancer.wire.page import RENDERED_BYTES, UNREADABLE, Page, given

__all__ = [
    "SESSION_CHARACTERS",
    "TOKEN_BYTES",
    "Facts",
    "Rendered",
    "read_prompt",
]

TOKEN_BYTES: Final = 4
"""Bytes of text that count as one nominal token. Rates are learned in the same unit."""

_READ_BYTES: Final = 4_194_304
"""A body larger than this without its media is counted alone: a million tokens, more than engines
take."""
_READ_COMMAS: Final = 196_608
"""The same for one with more of these, for each can be a number to make, in 0.06 µs."""
_READ_OBJECTS: Final = 32_768
"""The same for one with more of these, lists among them, or what looks like one; each is made in
0.26 µs."""

SESSION_CHARACTERS: Final = 256
"""A longer name is none: it would be kept for as long as the session is remembered."""

_Raw = msgspec.Raw
_NONE: Final = msgspec.Raw()


class Facts(NamedTuple):
    """What is known of a request besides its text."""

    prompt_tokens: int = 0
    """Nominal."""
    output_tokens: int | None = None
    """The least of the limits given."""
    session: str | None = None
    """What the body names the conversation by."""
    seed: int = 0
    """Not 0 if engines keep this prompt's cache apart from that of others with the same text."""


class Rendered(NamedTuple):
    """A prompt as it was read. `text` is empty if it could not be."""

    text: bytes
    facts: Facts


class _Body(msgspec.Struct, gc=False):
    tools: _Raw = _NONE
    functions: _Raw = _NONE
    documents: _Raw = _NONE
    system: _Raw = _NONE
    instructions: _Raw = _NONE
    messages: list[_Raw] | None = None
    query: _Raw = _NONE
    input: _Raw = _NONE
    prompt: _Raw = _NONE
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    session_id: Any = None
    conversation_id: Any = None
    conversation: Any = None
    prompt_cache_key: Any = None
    metadata: _Raw = _NONE
    cache_salt: Any = None
    extra_key: Any = None
    previous_response_id: Any = None


class _Metadata(msgspec.Struct, gc=False):
    session_id: Any = None
    user_id: Any = None


_UNSALTED: Final = (None, None, None, None)
_NO_METADATA: Final = _Metadata()

_body: Final = msgspec.json.Decoder(_Body)
_metadata: Final = msgspec.json.Decoder(_Metadata)
_text: Final = msgspec.json.Decoder(str)
_texts: Final = msgspec.json.Decoder(list[str])
_ids: Final = msgspec.json.Decoder(list[int])
_id_lists: Final = msgspec.json.Decoder(list[list[int]])
_items: Final = msgspec.json.Decoder(list[_Raw])


def read_prompt(body: bytes) -> Rendered:
    """The prompt in `body`; never raises.

    Takes 6 µs for a short chat, some 2 µs a KiB for 32 KiB, and 1 ms for a MiB of text; media in it
    hardly matters.
    """
    short = without_media(body)
    if _too_much(short):
        return Rendered(b"", Facts(len(short) // TOKEN_BYTES))
    try:
        fields = _body.decode(short)
        page = Page()
        _add_prompt(page, fields)
    except UNREADABLE:
        return Rendered(b"", Facts())
    text = page.text()
    # What did not get onto the page is counted as it stands in the body.
    size = len(short) if page.is_cut else len(text) + page.more_bytes
    output, session = _output_tokens(fields), _session(fields)
    facts = Facts(size // TOKEN_BYTES, output, session, _seed(fields))
    return Rendered(text[:RENDERED_BYTES], facts)


def _too_much(body: bytes) -> bool:
    size = len(body)
    return size > 2 * _READ_OBJECTS and (
        size > _READ_BYTES
        or body.count(b"{") + body.count(b"[") > _READ_OBJECTS
        or body.count(b",") > _READ_COMMAS
    )


def _add_prompt(page: Page, fields: _Body) -> None:
    for each in (fields.tools, fields.functions, fields.documents):
        page.add_json(each)
    for each in (fields.system, fields.instructions):
        if given(each):
            add_system(page, each)
    for message in fields.messages or ():
        if page.cuts():
            return
        add_message(page, message)
    page.add_json(fields.query)
    if given(fields.input):
        _add_input(page, fields.input, USER, END)
    if given(fields.prompt):
        _add_input(page, fields.prompt, b"", b"")


_BEGINNING: Final = re.compile(rb'(")|\[\s*(?:(")|(\[)|(\{)|[\d\]])')


def _add_input(page: Page, raw: _Raw, before: bytes, after: bytes) -> None:
    """A text, texts, token ids, lists of them, or the Responses API's items.

    Of several prompts the first is rendered, and the others are counted.
    """
    beginning = _BEGINNING.match(memoryview(raw)[:_BEGINNING_BYTES])
    text, texts, id_lists, items = beginning.groups() if beginning else (None,) * 4
    try:
        if text:
            page.add(b"%b%b%b" % (before, _text.decode(raw).encode(), after))
        elif texts:
            first_text, *other_texts = _texts.decode(raw)
            page.add(first_text.encode())
            page.more_bytes += len("".join(other_texts).encode())
        elif id_lists:
            first_ids, *other_ids = _id_lists.decode(raw)
            page.add(_packed(first_ids))
            page.more_bytes += TOKEN_BYTES * sum(map(len, other_ids))
        elif items:
            for item in _items.decode(raw):
                if page.cuts():
                    return
                add_message(page, item)
        elif beginning:
            page.add(_packed(_ids.decode(raw)))
        else:
            page.add_json(raw)
    except (*UNREADABLE, OverflowError):
        page.add_json(raw)


_BEGINNING_BYTES: Final = 64


def _packed(ids: Sequence[int]) -> bytes:
    """Token ids as bytes, four for each: as many as a nominal token has."""
    return array("I", ids).tobytes()


def _output_tokens(fields: _Body) -> int | None:
    limits = (fields.max_tokens, fields.max_completion_tokens, fields.max_output_tokens)
    return min((each for each in limits if type(each) is int and each >= 0), default=None)


def _session(fields: _Body) -> str | None:
    """`user` is not among them: it names who asks, and a service asks for all with one name."""
    if not (
        fields.metadata
        or fields.session_id
        or fields.conversation_id
        or fields.conversation
        or fields.prompt_cache_key
    ):
        return None  # as in most requests
    metadata = _metadata_of(fields)
    user_id = metadata.user_id
    for each in (
        fields.session_id,  # OpenRouter's
        fields.conversation_id,
        _conversation(fields),  # the Responses API's
        metadata.session_id,  # LiteLLM's
        # A coding agent over the Messages API writes its session into this.
        user_id if isinstance(user_id, str) and "session" in user_id else None,
        fields.prompt_cache_key,  # OpenAI's: the same for what begins the same
    ):
        if isinstance(each, str) and 0 < len(each) <= SESSION_CHARACTERS:
            return each
    return None


def _metadata_of(fields: _Body) -> _Metadata:
    try:
        return _metadata.decode(fields.metadata) if fields.metadata else _NO_METADATA
    except UNREADABLE:
        return _NO_METADATA


def _conversation(fields: _Body) -> object:
    found = fields.conversation
    return found.get("id") if isinstance(found, dict) else found


def _seed(fields: _Body) -> int:
    """Of what comes before the prompt without being in the body, or keeps it to itself.

    vLLM and SGLang share a cached prefix only between requests with the same `cache_salt` (SGLang:
    `extra_key` as well). What `previous_response_id` and `conversation` stand for is not known.
    """
    given_salts = (
        fields.cache_salt,
        fields.extra_key,
        fields.previous_response_id,
        _conversation(fields),
    )
    if given_salts == _UNSALTED:
        return 0  # as in most requests
    salts = tuple(each if isinstance(each, str) else "" for each in given_salts)
    return hash(salts) if any(salts) else 0
