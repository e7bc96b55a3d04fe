"""json_process: looking something up in JSON, and changing it, by paths."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import trio

from server.tools.native.given import Given
from server.tools.native.json_path import MOST_MATCHES, Match, PathError, find
from server.tools.native.native_tool import Do, NativeTool, arguments
from server.workflow.large_json import json_text, read_json
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["tools"]

MOST_CHARACTERS: Final = 2_000_000
_ON_LOOP_CHARACTERS: Final = 20_000
_PATH: Final = "Where in it, as a JSONPath such as $.items[0].name."
_GOES_FAR: Final = re.compile(r"\.\.|[?,]")
_PIECE: Final = re.compile(r"([^.\[\]]+)|\[(\d{1,4})\]")
_MOST_PADDED: Final = 1_000


def tools() -> list[Tool]:
    content = {"content": "The JSON."}
    query = content | {"query": _PATH}
    return [
        NativeTool(
            "json_process",
            "parse",
            "Looks something up in JSON.",
            arguments(content | {"json_filter": _PATH}, ("content", "json_filter")),
            _told(_parse),
        ),
        NativeTool(
            "json_process",
            "json_delete",
            "Takes something out of JSON.",
            arguments(query, ("content", "query")),
            _told(_delete),
        ),
        NativeTool(
            "json_process",
            "json_insert",
            "Puts something into JSON.",
            arguments(
                query | {"new_value": "What to put there."}, ("content", "query", "new_value")
            ),
            _told(_insert),
        ),
        NativeTool(
            "json_process",
            "json_replace",
            "Replaces something in JSON.",
            arguments(
                query
                | {
                    "replace_pattern": "The part of a text to replace.",
                    "replace_value": "What to put in its place.",
                },
                ("content", "query", "replace_value"),
            ),
            _told(_replace),
        ),
    ]


def _told(do: Callable[[Given], ToolOutput]) -> Do:
    """What goes wrong is the result's text, as in Dify: flows go on with it."""

    async def telling(given: Given) -> ToolOutput:
        try:
            if _quick(given):
                return do(given)
            return await trio.to_thread.run_sync(do, given, abandon_on_cancel=True)
        except ToolFailed as failure:
            return ToolOutput(text=failure.message)

    return telling


def _quick(given: Given) -> bool:
    """Whether it is done in a millisecond: little JSON, and no path that goes through it more than
    once, as descents, filters and lists of names may."""
    path = str(given.value("json_filter") or given.value("query") or "")
    small = len(str(given.value("content", ""))) <= _ON_LOOP_CHARACTERS
    return small and not _GOES_FAR.search(path)


def _content(given: Given) -> Any:
    text = given.text("content")
    if len(text) > MOST_CHARACTERS:
        raise given.wrong(f"'content' has {len(text)} characters; {MOST_CHARACTERS} are allowed")
    try:
        return read_json(text)
    except ValueError as error:
        raise given.wrong(f"'content' is not JSON: {error}") from None


def _matches(given: Given, name: str, root: Any) -> list[Match]:
    try:
        found = find(given.text(name), root)
    except (PathError, RecursionError) as error:
        raise given.wrong(f"{name!r}: {error}") from None
    if len(found) > MOST_MATCHES:
        raise given.wrong(f"{name!r} leads to more than {MOST_MATCHES} values")
    return found


def _written(given: Given, value: Any) -> str:
    try:
        text = json_text(value)
    except ValueError as error:
        raise given.wrong(str(error)) from None
    escaped = given.flag("ensure_ascii", True) and not text.isascii()
    return json.dumps(value) if escaped else text


def _parse(given: Given) -> ToolOutput:
    found: Any = [match.value for match in _matches(given, "json_filter", _content(given))]
    if not found:
        return ToolOutput(text="")
    found = found[0] if len(found) == 1 else found
    return ToolOutput(text=_written(given, found) if isinstance(found, dict | list) else str(found))


def _delete(given: Given) -> ToolOutput:
    root = _content(given)
    places = {(id(match.holder), match.key): match for match in _matches(given, "query", root)}
    for match in reversed(places.values()):
        if match.holder is not None:
            del match.holder[match.key]
    return ToolOutput(text=_written(given, root))


def _insert(given: Given) -> ToolOutput:
    root = _content(given)
    value = _decoded(given, given.text("new_value"))
    matches = _matches(given, "query", root)
    if not matches and given.flag("create_path"):
        _create(given, root, value)
    for match in matches:
        _put(given, match, value)
    return ToolOutput(text=_written(given, root))


def _put(given: Given, match: Match, value: Any) -> None:
    """Into an object its members, into a list at its end or at `index`, over anything else."""
    if isinstance(match.value, dict):
        if not isinstance(value, dict):
            raise given.wrong("into an object only an object can be put (set value_decode)")
        match.value.update(value)
    elif isinstance(match.value, list):
        end = len(match.value)
        match.value.insert(given.whole("index", end, low=-end, high=end), value)
    elif match.holder is not None:
        match.holder[match.key] = value


def _create(given: Given, root: Any, value: Any) -> None:
    """Make the objects and lists that lead to a path that is not there."""
    path = given.text("query").strip().lstrip("$")
    keys: list[Any] = [
        name if name else int(index) for name, index in _PIECE.findall(path) if name or index
    ]
    here = root
    for number, key in enumerate(keys):
        last = number == len(keys) - 1
        follows: Any = value if last else ([] if isinstance(keys[number + 1], int) else {})
        if not _fits(here, key):
            raise given.wrong(f"there is no way to {key!r} of 'query' in this JSON")
        if isinstance(key, int):
            here.extend([None] * (key + 1 - len(here)))
        if last or _absent(here, key):
            here[key] = follows
        here = here[key]


def _fits(here: Any, key: Any) -> bool:
    if isinstance(key, int):
        return isinstance(here, list) and key < _MOST_PADDED
    return isinstance(here, dict)


def _absent(here: Any, key: Any) -> bool:
    return (here[key] if isinstance(key, int) else here.get(key)) is None


def _replace(given: Given) -> ToolOutput:
    root = _content(given)
    model = given.text("replace_model", "pattern")
    written = given.text("replace_value")
    for match in _matches(given, "query", root):
        if match.holder is None:
            continue
        if model == "key":
            _rename(match, written)
        elif model == "value":
            match.holder[match.key] = _decoded(given, written)
        else:
            match.holder[match.key] = _patterned(given, match.value, written)
    return ToolOutput(text=_written(given, root))


def _rename(match: Match, name: str) -> None:
    if isinstance(match.holder, dict) and match.key in match.holder:
        match.holder[name] = match.holder.pop(match.key)


def _patterned(given: Given, value: Any, written: str) -> Any:
    if not isinstance(value, str):
        raise given.wrong("a part can only be replaced in a text (replace_model)")
    pattern = given.text("replace_pattern")
    if value.count(pattern) * len(written) > MOST_CHARACTERS:
        raise given.wrong("the result would be too large")
    return _decoded(given, value.replace(pattern, written))


def _decoded(given: Given, written: str) -> Any:
    if not given.flag("value_decode"):
        return written
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        raise given.wrong("Cannot decode new value to json object") from None
