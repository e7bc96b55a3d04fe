"""JSON that anybody may have written, read and written on the loop, within bounds.

Both hold the interpreter, so a thread would not help: the loop would wait all the same. What is
allowed here takes 20 ms at once on a usual core, and most of it far less.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import trio

from server.workflow.sizes import TooLarge, size_of
from server.workflow.values import Value, plain

__all__ = ["MOST_BODY_BYTES", "MOST_BYTES", "json_bytes", "json_text", "read_json", "values_text"]

MOST_BYTES: Final = 2 * 1024 * 1024
"""Of JSON that becomes variables, or is made of them."""

MOST_BODY_BYTES: Final = 8 * 1024 * 1024
"""Of a message or a body: it may have a file in it, as one long text, which costs little."""

MOST_PARTS: Final = 75_000
"""Objects, lists and keys: 0.1 to 0.2 µs each. Counted by their marks, those within texts too."""

MOST_ITEMS: Final = 1_000_000
"""Numbers and texts in lists, some 20 ns each. Counted by the commas."""

LENIENT_BYTES: Final = 512 * 1024
"""Of JSON with line breaks within texts, NaN or half of a character; reading it takes ten times as
long."""

_TO_THE_LETTER_BYTES: Final = 64 * 1024
"""Up to here numbers are written as Python does (1e+16), beyond as msgspec (1e16)."""


def read_json(data: str | bytes, most_bytes: int = MOST_BYTES) -> Any:
    """The value; control characters within texts are taken. Raises ValueError, also for what is
    nested too deeply, and of these `TooLarge` for what is beyond a limit."""
    _check(data, most_bytes)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return _read_leniently(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _check(data: str | bytes, most_bytes: int) -> None:
    if len(data) > most_bytes:
        raise TooLarge(f"JSON of more than {most_bytes} bytes is not read here")
    if sum(_count(data, mark) for mark in "{[:") > MOST_PARTS:
        raise TooLarge(f"JSON with more than {MOST_PARTS} objects, lists and keys is not read here")
    if _count(data, ",") > MOST_ITEMS:
        raise TooLarge(f"JSON with more than {MOST_ITEMS} items is not read here")


def _count(data: str | bytes, mark: str) -> int:
    return data.count(mark) if isinstance(data, str) else data.count(mark.encode())


def _read_leniently(data: str | bytes) -> Any:
    if len(data) > LENIENT_BYTES:
        raise ValueError(f"it is no JSON, or not to the letter and more than {LENIENT_BYTES} bytes")
    try:
        return json.loads(data, strict=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_bytes(value: Any, most_bytes: int = MOST_BODY_BYTES) -> bytes:
    """Without blanks; NaN and the infinite are null. `value` has no files in it. Raises `TooLarge`,
    and ValueError for what JSON cannot have."""
    try:
        written = msgspec.json.encode(value)
    except (UnicodeEncodeError, TypeError, OverflowError):
        written = _written_leniently(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if len(written) > most_bytes:
        raise TooLarge(f"as JSON it has {len(written)} bytes; at most {most_bytes} are written")
    return written


def _written_leniently(value: Any) -> bytes:
    """With half of a character in it, or what only a plugin could put there."""
    try:
        size_of({"": value}, LENIENT_BYTES)
    except TooLarge:
        most = f"more than {LENIENT_BYTES} characters"
        raise TooLarge(
            f"it has half of a character in it, or no value of JSON, and {most}"
        ) from None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode(errors="replace")


def json_text(value: Any, most_bytes: int = MOST_BYTES) -> str:
    """As `json.dumps` writes it, but for characters beyond ASCII, which stay. Raises as
    `json_bytes` does."""
    written = json_bytes(value, most_bytes)
    if len(written) <= _TO_THE_LETTER_BYTES:
        return json.dumps(value, ensure_ascii=False, default=str)
    return msgspec.json.format(written, indent=0).decode()


async def values_text(value: Value, most_bytes: int = MOST_BYTES) -> str:
    """Values of variables, files among them, as `json_text`."""
    try:
        size_of({"": value}, _TO_THE_LETTER_BYTES)
    except TooLarge:
        # Looking for files is Python, beside which the loop goes on.
        found = await trio.to_thread.run_sync(plain, value, abandon_on_cancel=True)
    else:
        found = plain(value)
    return json_text(found, most_bytes)
