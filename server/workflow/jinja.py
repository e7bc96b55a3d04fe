"""Templates of Jinja, rendered in this process where that is sure to take little time.

The syntax tree says what a template can cost for each character that it is given
(`jinja_cost`), the values say how many there are. What would take more than `BUDGET_US`, and what
cannot be known, is left to a worker. The sandbox of jinja2 keeps templates from Python's insides,
here and there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sized
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import trio

from server.workflow.jinja_environment import make_environment
from server.workflow.services import CodeFailed
from server.workflow.values import File, plain

if TYPE_CHECKING:
    from server.workflow.jinja_bounds import Loop, Measured, Rates

__all__ = ["InProcessJinja", "Renderer", "TieredJinja"]

BUDGET_US: Final = 5000.0
"""Microseconds that a template may be expected to take at most; on a slow core, twice that."""

MOST_ITEMS: Final = 5000
"""Values within values; counting them takes part of the time."""

ITEM: Final = 20
"""Characters that an item of a list or an object counts for."""

MOST_CODE: Final = 1200
"""Characters between braces that are compiled at once: about 5 us for each. Of the text around,
30 count for one."""

MOST_PREPARED: Final = 40_000
"""Those that are compiled in a thread, beside the loop."""

MOST_SOURCE: Final = 200_000


class Renderer(Protocol):
    """Renders a template where it can be stopped."""

    async def render(self, source: str, values: dict[str, Any]) -> str: ...


class _Costly(Exception):
    pass


class _Compiled(NamedTuple):
    template: Any
    """None if it is not cheap."""
    bytes: int
    cost: Measured | None = None


_LATER: Final = _Compiled(None, 0)


class InProcessJinja:
    """`render_now` of `services.Jinja`. Compiled templates are kept, `most_bytes` of them at a
    guess. Used from the one thread of the event loop."""

    def __init__(self, most_bytes: int = 16 * 1024 * 1024) -> None:
        from jinja2 import pass_context

        from server.workflow import jinja_calls, jinja_cost

        self._measured = jinja_cost.measured
        self._not_cheap = jinja_calls.NotCheap
        self._environment = make_environment()
        filters = self._environment.filters
        filters.update({name: _guarded(filters[name]) for name in jinja_calls.GUARDED})
        # What reads the context is not computed at compile time, as filters of constants are.
        filters[jinja_cost.CHARGE] = pass_context(partial(self._charge))
        self._compiled: OrderedDict[str, _Compiled] = OrderedDict()
        self._bytes = 0
        self._most_bytes = most_bytes
        self._left_us = 0.0
        self._sizes: dict[str, int] = {}
        self._loops: list[Loop] = []

    def render_now(self, source: str, values: dict[str, Any]) -> str | None:
        """The text, or None if it may be costly. Raises `CodeFailed`: a template that is none, or
        that went wrong."""
        compiled = self._find(source)
        if compiled.template is None or compiled.cost is None:
            return None
        counted = _sizes_of(values)
        if counted is None:
            return None
        self._sizes, has_files = counted
        self._loops = compiled.cost.loops
        outside = compiled.cost.outside
        self._left_us = BUDGET_US - outside.steps - self._sum(outside.far)
        if self._left_us < 0:
            return None
        try:
            return compiled.template.render(plain(values) if has_files else values)  # type: ignore[no-any-return]
        except _Costly:
            return None
        except Exception as error:
            # Whatever a template raises is its own fault: it ran in the sandbox.
            raise CodeFailed(str(error)[:2000], type(error).__name__) from None

    def _charge(self, _context: Any, iterable: Any, number: int) -> Any:
        """Take what a loop costs from what is left, before it begins."""
        if not isinstance(iterable, Sized):
            iterable = list(iterable)
        loop = self._loops[number]
        rounds = len(iterable) * (loop.steps + self._sum(loop.far))
        self._left_us -= rounds + self._sum(loop.entry)
        if self._left_us < 0:
            raise _Costly
        return iterable

    def _sum(self, rates: Rates) -> float:
        sizes = self._sizes
        return sum(rate * sizes.get(name, 0) for name, rate in rates.items())

    async def prepare(self, source: str) -> bool:
        """Compile a template that `render_now` finds too long to compile at once. Whether there
        is hope that it renders it now. Raises `CodeFailed`."""
        if source in self._compiled:
            return False
        compiled = await trio.to_thread.run_sync(self._compile, source)
        self._keep(source, compiled)
        return compiled.template is not None

    def _find(self, source: str) -> _Compiled:
        compiled = self._compiled.get(source)
        if compiled is not None:
            self._compiled.move_to_end(source)
            return compiled
        if _code_characters(source) + len(source) // 30 > MOST_CODE:
            return _LATER
        compiled = self._compile(source)
        self._keep(source, compiled)
        return compiled

    def _keep(self, source: str, compiled: _Compiled) -> None:
        if source in self._compiled:
            return
        self._compiled[source] = compiled
        self._bytes += compiled.bytes
        while self._bytes > self._most_bytes and self._compiled:
            _, oldest = self._compiled.popitem(last=False)
            self._bytes -= oldest.bytes

    def _compile(self, source: str) -> _Compiled:
        """Parsed, measured, compiled in this order: jinja2 computes constants as it compiles."""
        from jinja2 import TemplateSyntaxError

        code = _code_characters(source)
        costly = _Compiled(None, 2 * len(source) + 500)
        if code > MOST_PREPARED or len(source) > MOST_SOURCE:
            return costly
        try:
            tree = self._environment.parse(source)
            cost = self._measured(tree)
            template = self._environment.from_string(tree)
        except (self._not_cheap, RecursionError, MemoryError):
            return costly
        except TemplateSyntaxError as error:
            raise CodeFailed(
                f"line {error.lineno}: {error.message}"[:2000], "TemplateSyntaxError"
            ) from None
        except SyntaxError:
            return costly
        size = 4 * len(source) + 40 * code + 4000
        return _Compiled(template, size, cost)


class TieredJinja:
    """`services.Jinja`: in process what is cheap, by `slow` what is not."""

    def __init__(self, fast: InProcessJinja, slow: Renderer) -> None:
        self._fast = fast
        self._slow = slow
        self.render_now = fast.render_now

    async def render(self, source: str, values: dict[str, Any]) -> str:
        """Raises `CodeFailed`."""
        text = self._fast.render_now(source, values)
        if text is None and await self._fast.prepare(source):
            text = self._fast.render_now(source, values)
        return await self._slow.render(source, values) if text is None else text


def _code_characters(source: str) -> int:
    """How much of it stands in braces, as far as a glance can tell."""
    count = 0
    for opening, closing in (("{{", "}}"), ("{%", "%}")):
        at = source.find(opening)
        while at >= 0:
            end = source.find(closing, at)
            end = len(source) if end < 0 else end
            count += end - at + 2
            at = source.find(opening, end)
    return count


def _sizes_of(values: dict[str, Any]) -> tuple[dict[str, int], bool] | None:
    """Characters of each value, an item counting as `ITEM`, and whether there are files; None if
    there are too many items."""
    sizes: dict[str, int] = {}
    left = MOST_ITEMS
    has_files = False
    for name, value in values.items():
        if isinstance(value, str):
            sizes[name] = len(value)
            continue
        counted = _counted(value, left)
        if counted is None:
            return None
        sizes[name], left, found = counted
        has_files = has_files or found
    return sizes, has_files


def _counted(value: Any, left: int) -> tuple[int, int, bool] | None:
    characters, before = 0, left
    has_files = False
    waiting: list[Any] = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            left -= len(value)
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            left -= len(value)
            waiting.extend(value)
        elif isinstance(value, File):
            has_files = True
            left -= 12
            characters += 300 + len(value.url or "")
        elif isinstance(value, int):
            characters += 8 + value.bit_length() // 3
        else:
            characters += 20
        if left < 0:
            return None
    return characters + ITEM * (before - left), left, has_files


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter for lists, kept from taking a long text apart."""
    from server.workflow.jinja_calls import MOST_SPREAD

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(each, str) and len(each) > MOST_SPREAD for each in args[:2]):
            raise _Costly
        return function(*args, **kwargs)

    return guarded
