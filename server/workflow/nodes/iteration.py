"""iteration: the nodes inside, once for each item of a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import trio

from server.workflow.level import Level
from server.workflow.node import NodeError, NodeRun, Result, Work
from server.workflow.node_run import EngineNodeRun
from server.workflow.progress import Group
from server.workflow.reading import Reader
from server.workflow.rounds import Container, Rounds, Turns
from server.workflow.values import Value
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["Iteration"]

_MOST_PARALLEL: Final = 100
"""Rounds at once. Dify's editor allows ten."""

_MODES: Final = ("terminated", "continue-on-error", "remove-abnormal-output")


class Iteration(Container):
    """Gives out `output`: what the node of `output_selector` gave out in each round.

    A round sees the run's variables and writes into a layer of its own, with `item` and `index`
    of this node; what it sets of the conversation goes to the run when it is over.
    """

    type: ClassVar[str] = "iteration"
    work: ClassVar[Work] = "none"

    def read(self, data: Reader) -> None:
        self._items = data.selector("iterator_selector")
        self._output = data.selector("output_selector")
        parallel = data.flag("is_parallel")
        self._parallel = data.whole("parallel_nums", 10) if parallel else 1
        self._parallel = min(max(self._parallel, 1), _MOST_PARALLEL)
        self._flatten = data.flag("flatten_output", True)
        self._mode = data.text("error_handle_mode", "terminated")
        if self._mode not in _MODES:
            raise data.wrong("error_handle_mode", f"expected one of {', '.join(_MODES)}")

    def reads(self) -> Iterable[Selector]:
        return (self._items,)

    async def execute(self, run: NodeRun) -> Result:
        assert isinstance(run, EngineNodeRun)
        items = self._found(run.variables)
        inputs: dict[str, Value] = {"iterator_selector": items}
        results: list[Value] = [None] * len(items)
        with Rounds(run, self.body, inputs, len(items)) as rounds:
            rounds.steps = len(items)
            if self._parallel == 1 or len(items) < 2 or not self.body.waits:
                await self._one_by_one(run, rounds, items, results)
            else:
                await _Parallel(self, run, rounds, items, results).go(self._parallel)
            outputs: dict[str, Value] = {"output": self._whole(results)}
            metadata = rounds.done(outputs, event={})
        return Result(outputs=outputs, inputs=inputs, metadata=metadata)

    def _found(self, variables: Variables) -> list[Value]:
        found = variables.get(self._items)
        if found is MISSING:
            raise NodeError(
                f"iterator variable {list(self._items)} not found", "IteratorVariableNotFoundError"
            )
        if found is None:
            return []
        if not isinstance(found, list):
            raise NodeError(
                f"invalid iterator value: {found!r:.200}, please provide a list.",
                "InvalidIteratorValueError",
            )
        return found

    async def _one_by_one(
        self, run: EngineNodeRun, rounds: Rounds, items: list[Value], results: list[Value]
    ) -> None:
        for index, item in enumerate(items):
            rounds.announce(index)
            level = await rounds.go(index, self.layer(run, index, item))
            run.level.merge(level.outputs)
            self.keep(run, level, index, results)

    def layer(self, run: EngineNodeRun, index: int, item: Value) -> Variables:
        """The variables of one round."""
        variables = run.variables.scope()
        variables.add(self.id, {"item": item, "index": index})
        return variables

    def keep(self, run: EngineNodeRun, level: Level, index: int, results: list[Value]) -> None:
        """Take what a round leaves behind. Raises `NodeError` if it failed and that ends it all."""
        run.variables.add("conversation", level.variables.own_of("conversation"))
        run.level.broke = run.level.broke or level.broke
        if level.error is None:
            found = level.variables.get(self._output) if self._output else None
            results[index] = None if found is MISSING else found
            return
        results[index] = None if self._mode == "continue-on-error" else _DROPPED
        if self._mode == "terminated":
            outputs = {"output": self._whole(results[:index])}
            raise NodeError(level.error.message, "IterationNodeError", outputs=outputs)

    def _whole(self, results: list[Value]) -> list[Value]:
        kept = [result for result in results if result is not _DROPPED]
        lists = [result for result in kept if result is not None]
        if not self._flatten or not lists or not all(isinstance(one, list) for one in lists):
            return kept
        return [item for result in lists for item in result]


class _Dropped:
    """Stands for a round that failed and leaves nothing."""


_DROPPED: Final = _Dropped()


class _Parallel:
    """Rounds at the same time: each task takes the next item when it is through with one."""

    def __init__(
        self,
        node: Iteration,
        run: EngineNodeRun,
        rounds: Rounds,
        items: list[Value],
        results: list[Value],
    ) -> None:
        self._node = node
        self._run = run
        self._rounds = rounds
        self._items = items
        self._results = results
        self._next: Iterator[int] = iter(range(len(items)))
        self._turns = Turns(run.level)
        self._error: NodeError | None = None

    async def go(self, tasks: int) -> None:
        async with trio.open_nursery() as nursery:
            group = Group(nursery, self._run.level.progress)
            for index in range(min(tasks, len(self._items))):
                self._rounds.announce(next(self._next))
                group.start(self._rounds_from, index, group)
        if self._error is not None:
            raise self._error

    async def _rounds_from(self, first: int, group: Group) -> None:
        index: int | None = first
        while index is not None:
            layer = self._node.layer(self._run, index, self._items[index])
            level = await self._rounds.go(index, layer, self._turns.of(index))
            if self._error is not None:
                return
            self._turns.over(index, level)
            try:
                self._node.keep(self._run, level, index, self._results)
            except NodeError as error:
                self._error = error
                group.cancel()
                return
            index = next(self._next, None)
            if index is not None:
                self._rounds.announce(index)
