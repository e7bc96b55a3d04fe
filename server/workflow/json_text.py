"""JSON out of what a model wrote: alone, in a code block, among words, or nearly right."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import msgspec
import trio

from server.workflow.reasoning import without_reasoning

__all__ = ["NO_JSON", "json_in", "object_in"]

_REPAIRED_CHARACTERS: Final = 65_536
"""A longer text that is no JSON is not repaired: even a nearly right one takes 2 µs a character."""

_REPAIR_S: Final = 0.5
"""For text made for it json_repair takes time with the square of its length and worse: four seconds
for 8 KB."""

_ON_LOOP_CHARACTERS: Final = 256
_THREADS: Final = 2
_threads: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("threads that repair JSON")
_FENCE: Final = "```"
_DEPTH: Final = 64
"""Of what is taken; deeper values break who walks them."""


class _NoJson:
    def __repr__(self) -> str:
        return "NO_JSON"

    def __bool__(self) -> bool:
        return False


NO_JSON: Final = _NoJson()
"""There was none; None is a value."""


async def object_in(text: str) -> dict[str, Any] | None:
    """The first JSON object in what a model answered, thoughts left out; None if there is none."""
    found = await json_in(text)
    if isinstance(found, list):
        found = next((item for item in found if isinstance(item, dict)), None)
    return found if isinstance(found, dict) else None


async def json_in(text: str) -> Any:
    """The JSON object or list in what a model answered; `NO_JSON` if there is none."""
    text = without_reasoning(text).strip()
    for candidate in _candidates(text):
        found = _decoded(candidate)
        if isinstance(found, dict | list):
            return found
    begin = _beginning(text)
    if begin < 0 or len(text) - begin > _REPAIRED_CHARACTERS:
        return NO_JSON
    broken = text[begin:]
    if len(broken) <= _ON_LOOP_CHARACTERS:
        return _repaired(broken)
    return await trio.to_thread.run_sync(
        _repaired, broken, abandon_on_cancel=True, limiter=_limiter()
    )


def _limiter() -> trio.CapacityLimiter:
    """Of this run of Trio: a thread that outlives another one never gives its place back."""
    try:
        return _threads.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _threads.set(limiter)
        return limiter


def _candidates(text: str) -> Iterator[str]:
    yield text
    begin = text.find(_FENCE)
    if begin >= 0:
        line_end = text.find("\n", begin)
        end = text.find(_FENCE, begin + len(_FENCE))
        if 0 <= line_end < end:
            yield text[line_end + 1 : end]
    for opening, closing in ("{}", "[]"):
        begin, end = text.find(opening), text.rfind(closing)
        if 0 <= begin < end:
            yield text[begin : end + 1]


def _beginning(text: str) -> int:
    begins = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    return min(begins, default=-1)


def _decoded(text: str) -> Any:
    try:
        return _bounded(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        return NO_JSON


def _repaired(text: str) -> Any:
    import json_repair

    try:
        with _time_limit(_REPAIR_S):
            found = json_repair.loads(text, skip_json_loads=True)
    except (ValueError, RecursionError, TimeoutError):
        return NO_JSON
    return _bounded(found) if isinstance(found, dict | list) and found else NO_JSON


def _is_repair(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("json_repair")


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Ends json_repair in this thread by `TimeoutError`: a thread cannot be cancelled, and a tracer
    is asked at each call of a function. Not what the garbage collector finalizes meanwhile: an
    error there is lost, and with it the tracer."""
    ends_at = time.monotonic() + seconds

    def watch(frame: FrameType, event: str, arg: object) -> None:
        if time.monotonic() > ends_at and _is_repair(frame):
            raise TimeoutError

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _bounded(value: Any, depth: int = _DEPTH) -> Any:
    """The value, unless it is nested too deeply."""
    if _is_deeper(value, depth):
        return NO_JSON
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if depth == 0:
        return True
    items = value.values() if isinstance(value, dict) else value
    return any(_is_deeper(item, depth - 1) for item in items)
