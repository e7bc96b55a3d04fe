"""JSONPath, as far as exports use it. Pure and bounded.

`$.a.b`, `a.b`, `['a b']`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `.*`, `..name`, `..*`, `['a','b']`, and
filters: `[?(@.price < 10)]`, `[?(@.a.b == 'x' && @.c || @.d)]`. Regexes and functions are not.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import msgspec

__all__ = ["Match", "PathError", "find", "parse"]

MOST_MATCHES: Final = 10_000
MOST_STEPS: Final = 64
MOST_CHARACTERS: Final = 2_000
MOST_VISITED: Final = 1_000_000


class PathError(ValueError):
    """A path that is not understood, or that goes too far."""


class Match(msgspec.Struct, frozen=True):
    """A value and where it stands: `holder[key]`; the root has no holder."""

    value: Any
    holder: Any = None
    key: Any = None


Step: TypeAlias = Callable[[Match, "_Budget"], Iterator[Match]]
Condition: TypeAlias = Callable[[Any, "_Budget"], bool]

_NAME: Final = re.compile(r"[^\s.\[\]'\"()?*@]+")
_INDEX: Final = re.compile(r"\[\s*(-?\d{1,9})\s*\]")
_SLICE: Final = re.compile(r"\[\s*(-?\d{0,9})\s*:\s*(-?\d{0,9})\s*(?::\s*(-?\d{0,9})\s*)?\]")
_QUOTED: Final = r"(?:'(?:[^'\\]|\\.){0,400}'|\"(?:[^\"\\]|\\.){0,400}\")"
_NAMES: Final = re.compile(rf"\[\s*({_QUOTED}(?:\s*,\s*{_QUOTED}){{0,31}})\s*\]")
_QUOTED_ONE: Final = re.compile(_QUOTED)
_ALL: Final = re.compile(r"\[\s*\*\s*\]|\*")
_FILTER: Final = re.compile(r"\[\s*\?\s*")


def find(path: str, root: Any) -> list[Match]:
    """What the path leads to, in the order of the document. Raises `PathError`."""
    return _walk(parse(path), root, _Budget())


class _Budget:
    """How many values may still be looked at."""

    def __init__(self) -> None:
        self._left = MOST_VISITED

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise PathError(f"the path goes through more than {MOST_VISITED} values")


def parse(path: str) -> list[Step]:
    """The steps of a path. Raises `PathError`, naming the place."""
    text = path.strip()
    if len(text) > MOST_CHARACTERS:
        raise PathError(f"the path is longer than {MOST_CHARACTERS} characters")
    at = 1 if text.startswith("$") else 0
    steps: list[Step] = []
    while at < len(text):
        step, at = _step(text, at)
        steps.append(step)
        if len(steps) > MOST_STEPS:
            raise PathError(f"the path has more than {MOST_STEPS} steps")
    return steps


def _step(text: str, at: int) -> tuple[Step, int]:
    if text.startswith("..", at):
        step, at = _plain_step(text, at + 2)
        return _descending(step), at
    return _plain_step(text, at + 1 if text[at] == "." else at)


def _plain_step(text: str, at: int) -> tuple[Step, int]:
    found = _FILTER.match(text, at)
    if found:
        end = _closing(text, found.end())
        return _filtered(_condition(text[found.end() : end])), end + 1
    for pattern, make in _FORMS:
        found = pattern.match(text, at)
        if found:
            return make(found), found.end()
    raise PathError(f"the path {text[:80]!r} is not understood at {text[at : at + 20]!r}")


def _closing(text: str, at: int) -> int:
    """Where the bracket of a filter closes."""
    depth, quote = 0, ""
    for place in range(at, len(text)):
        letter = text[place]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "[":
            depth += 1
        elif letter == "]":
            if not depth:
                return place
            depth -= 1
    raise PathError("a filter of the path is not closed")


def _named(names: list[str]) -> Step:
    def step(match: Match, budget: _Budget) -> Iterator[Match]:
        budget.spend()
        if isinstance(match.value, dict):
            for name in names:
                if name in match.value:
                    yield Match(match.value[name], match.value, name)

    return step


def _indexed(index: int) -> Step:
    def step(match: Match, budget: _Budget) -> Iterator[Match]:
        budget.spend()
        value = match.value
        if isinstance(value, list) and -len(value) <= index < len(value):
            place = index % len(value)
            yield Match(value[place], value, place)

    return step


def _sliced(cut: slice) -> Step:
    def step(match: Match, budget: _Budget) -> Iterator[Match]:
        if isinstance(match.value, list):
            for place in range(*cut.indices(len(match.value))):
                budget.spend()
                yield Match(match.value[place], match.value, place)

    return step


def _children(match: Match, budget: _Budget) -> Iterator[Match]:
    value = match.value
    pairs = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else pairs:
        budget.spend()
        yield Match(item, value, key)


def _descending(step: Step) -> Step:
    def descend(match: Match, budget: _Budget) -> Iterator[Match]:
        waiting = [match]
        while waiting:
            here = waiting.pop()
            yield from step(here, budget)
            waiting.extend(reversed(list(_children(here, budget))))

    return descend


def _filtered(condition: Condition) -> Step:
    def step(match: Match, budget: _Budget) -> Iterator[Match]:
        for child in _children(match, budget):
            if condition(child.value, budget):
                yield child

    return step


def _cut(found: re.Match[str]) -> Step:
    low, high, stride = (int(part) if part else None for part in found.groups())
    if stride == 0:
        raise PathError("a slice of the path has a step of 0")
    return _sliced(slice(low, high, stride))


def _quoted_names(found: re.Match[str]) -> Step:
    return _named([_unquoted(one[0]) for one in _QUOTED_ONE.finditer(found[1])])


def _unquoted(written: str) -> str:
    return re.sub(r"\\(.)", r"\1", written[1:-1])


_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Step]], ...]] = (
    (_ALL, lambda found: _children),
    (_INDEX, lambda found: _indexed(int(found[1]))),
    (_SLICE, _cut),
    (_NAMES, _quoted_names),
    (_NAME, lambda found: _named([found[0]])),
)

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON: Final = re.compile(
    rf"\s*@(?P<path>[^=!<>]{{0,200}}?)\s*(?:(?P<sign>==|!=|<=|>=|<|>|=)\s*"
    rf"(?P<value>{_QUOTED}|-?\d{{1,18}}(?:\.\d{{1,18}})?|true|false|null)\s*)?"
)


def _condition(written: str) -> Condition:
    text = written.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    either = [
        [_comparison(part) for part in re.split(r"&&|&", alternative)]
        for alternative in re.split(r"\|\||\|", text)
    ]
    return lambda value, budget: any(all(one(value, budget) for one in every) for every in either)


def _comparison(written: str) -> Condition:
    found = _COMPARISON.fullmatch(written)
    if found is None:
        raise PathError(f"the filter {written[:60]!r} is not understood")
    steps = parse(found["path"].strip())
    if not found["sign"]:
        return lambda value, budget: bool(_walk(steps, value, budget))
    compare, wanted = _COMPARE[found["sign"]], _literal(found["value"])

    def holds(value: Any, budget: _Budget) -> bool:
        matches = _walk(steps, value, budget)
        return any(_compared(compare, match.value, wanted) for match in matches)

    return holds


def _walk(steps: list[Step], value: Any, budget: _Budget) -> list[Match]:
    """What the steps lead to. A walk that leads nowhere counts too: filters make many."""
    budget.spend()
    matches = [Match(value)]
    for step in steps:
        matches = [found for match in matches for found in step(match, budget)]
    return matches


def _compared(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    try:
        return compare(left, right)
    except TypeError:
        return False


def _literal(written: str) -> Any:
    if written[0] in "'\"":
        return _unquoted(written)
    named = {"true": True, "false": False, "null": None}
    if written in named:
        return named[written]
    return float(written) if "." in written else int(written)
