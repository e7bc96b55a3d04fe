"""What one run of a graph, or one round of a container, has come to: its variables, its edges, what
it has shown and given out. Synchronous; `frame` does what must be waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from server.workflow.answers import DONE, Answers, Script, TooMuchText
from server.workflow.events import Chunk
from server.workflow.node import FAIL_BRANCH, NodeError, Result
from server.workflow.node_run import EngineNodeRun
from server.workflow.progress import Progress
from server.workflow.readiness import Readiness
from server.workflow.services import Usage
from server.workflow.sizes import TooLarge, weigh
from server.workflow.texts import cleaned, is_whole, whole, writable
from server.workflow.topology import Graph, Root, Vertex
from server.workflow.values import Value
from server.workflow.variables import Variables

__all__ = ["Emit", "Level", "Within"]

Within: TypeAlias = tuple[tuple[str, int], ...]
Emit: TypeAlias = Callable[[Chunk], None]


class Level:
    """One run of one graph. In the end `error` says whether it failed, and with what; `outputs` is
    what the nodes gave out that show something."""

    __slots__ = (
        "_answers",
        "_edges",
        "_graph",
        "_ids",
        "_root",
        "broke",
        "emit",
        "error",
        "outputs",
        "progress",
        "usage",
        "variables",
        "within",
    )

    def __init__(
        self,
        progress: Progress,
        graph: Graph,
        root: Root,
        variables: Variables,
        within: Within = (),
        emit: Emit | None = None,
    ) -> None:
        """`within` names the containers around it, `emit` is where its text goes."""
        self.progress = progress
        self.variables = variables
        self.within = within
        self.emit: Emit = emit or progress.sink.put
        self.outputs: dict[str, Value] = {}
        self.usage = Usage()
        self.error: NodeError | None = None
        self.broke = False
        """Whether a loop-end was reached: the loop around it is to end."""
        self._graph = graph
        self._root = root
        self._edges = Readiness(graph, root)
        self._answers: Answers | None = None
        self._ids: dict[int, str] = {}
        """Of node runs, by vertex."""
        if graph.scripts:
            most = progress.limits.buffered_chars
            states = self._edges.states
            self._answers = Answers(graph.scripts, variables, states, self._show, most)

    def begin(self) -> None:
        """Show what no node holds back."""
        if self._answers is not None and not self.over:
            self._answers.reach(self._root.starts)

    def end(self) -> None:
        """Nothing more comes. What refers back here is let go: nobody shall wait for the garbage
        collector."""
        self._answers = None

    @property
    def over(self) -> bool:
        """Whether it, or the run, has failed or was stopped."""
        return self.error is not None or self.progress.ended is not None

    def next(self) -> EngineNodeRun | None:
        """Begin the run of the node that has been ready for longest; None if there is none, or it
        would be one step too many."""
        edges = self._edges
        while edges.queue and not self.over:
            vertex = edges.queue.popleft()
            if not vertex.silent:
                return self._start(vertex)
            edges.states[vertex.index] = DONE
            edges.follow(vertex, None, self._answers)
        return None

    def _start(self, vertex: Vertex) -> EngineNodeRun | None:
        index = self.progress.step()
        if index is None:
            return None
        predecessor = self._edges.predecessors[vertex.index]
        run = EngineNodeRun(
            self, vertex, self._id_of(vertex), index, predecessor, trio.current_time()
        )
        run.tell_started()
        return run

    def _id_of(self, vertex: Vertex) -> str:
        """Of its run; what it shows may come before it runs."""
        found = self._ids.get(vertex.index)
        if found is None:
            found = self._ids[vertex.index] = self.progress.new_id()
        return found

    def tried(self, run: EngineNodeRun) -> None:
        """A try failed and there will be another: text of it that nobody saw is dropped."""
        self.progress.exceptions += 1
        self._forget_streams(run.vertex)

    def _forget_streams(self, vertex: Vertex) -> None:
        if self._answers is not None:
            for name in vertex.streams:
                self._answers.forget((vertex.id, name))

    # What became of a node

    def settle(self, run: EngineNodeRun, outcome: Result | NodeError, now: float) -> None:
        """Take what a node gave out, or its failure."""
        if isinstance(outcome, Result):
            outcome = self._checked(run.vertex, outcome)
        if isinstance(outcome, NodeError):
            self._failed(run, outcome, now)
            return
        if outcome.usage is not None:
            self.usage += outcome.usage
            self.progress.usage += outcome.usage
        handle = outcome.handle if run.vertex.branches else None
        self._complete(run.vertex, outcome.outputs, handle)
        shown = outcome.outputs if outcome.shown is None else outcome.shown
        run.tell_finished("succeeded", now, outcome, shown)

    def _checked(self, vertex: Vertex, result: Result) -> Result | NodeError:
        if vertex.branches and not result.handle:
            message = f"Branch node {vertex.id} completed without selecting a branch"
            return NodeError(message, "ValueError")
        try:
            result.outputs = self.weigh(result.outputs)
        except NodeError as error:
            return error
        if result.shown is not None:
            result.shown = writable(result.shown)
        if result.process_data:
            result.process_data = writable(result.process_data)
        if result.metadata:
            result.metadata = writable(result.metadata)
        return result

    def _failed(self, run: EngineNodeRun, error: NodeError, now: float) -> None:
        """By its strategy: the run fails with it, or goes on with the error as its outputs."""
        self.progress.exceptions += 1
        policy = run.vertex.policy
        error = _writable(error)
        result = Result(inputs=error.inputs, process_data=error.process_data)
        if policy.strategy is None:
            run.tell_finished("failed", now, result, error.outputs, error.message, error.type)
            self.error = error
            return
        self._forget_streams(run.vertex)
        told = {"error_message": error.message, "error_type": error.type}
        outputs = policy.defaults | told
        result.metadata = {"error_strategy": policy.strategy}
        if policy.strategy == FAIL_BRANCH:
            result.handle = FAIL_BRANCH
        self._complete(run.vertex, outputs, FAIL_BRANCH if policy.strategy == FAIL_BRANCH else None)
        run.tell_finished("exception", now, result, outputs, error.message, error.type)

    def _complete(self, vertex: Vertex, outputs: dict[str, Value], handle: str | None) -> None:
        """Keep the outputs, decide the edges, show what can be shown now."""
        edges, answers = self._edges, self._answers
        self.variables.add(vertex.id, outputs)
        self.broke = self.broke or vertex.ends_loop
        edges.states[vertex.index] = DONE
        if answers is not None:
            for name in vertex.streams:
                answers.end((vertex.id, name))
        edges.follow(vertex, handle, answers)
        if answers is not None:
            answers.flush()
        if vertex.script is not None:
            self.merge(outputs)

    def merge(self, outputs: dict[str, Value]) -> None:
        """Add what a node gave out that shows something: answers one after the other."""
        mine = self.outputs
        for name, value in outputs.items():
            if name == "answer" and isinstance(value, str) and isinstance(mine.get(name), str):
                mine[name] += value
            else:
                mine[name] = value

    def weigh(self, outputs: dict[str, Value]) -> dict[str, Value]:
        """Count what a node gives out, and give it back: with halves of characters replaced, if
        there are any. Raises `NodeError` where it is too much."""
        progress = self.progress
        limits = progress.limits
        try:
            chars, texts = weigh(outputs, limits.value_chars, limits.value_items)
        except TooLarge as error:
            raise NodeError(str(error), "ValueTooLarge") from None
        progress.chars += chars
        if progress.chars > limits.total_chars:
            most = limits.total_chars
            progress.abort("failed", f"The nodes gave out more than {most} characters.")
        together = "".join(texts)
        if not together.isascii() and not is_whole(together):
            return {name: cleaned(value) for name, value in outputs.items()}
        return outputs

    # Text

    def take(self, vertex: Vertex, name: str, text: str) -> None:
        """A piece of a stream that some answer here shows."""
        assert self._answers is not None
        try:
            self._answers.take(vertex.index, (vertex.id, name), text)
        except TooMuchText as error:
            self.progress.abort("failed", str(error))

    def close(self, vertex: Vertex, name: str) -> None:
        """That stream is whole."""
        assert self._answers is not None
        self._answers.close((vertex.id, name))

    def _refuse_text(self) -> None:
        assert self._answers is not None
        self._answers.full = True
        most = self.progress.limits.shown_chars
        self.progress.abort("failed", f"The run showed more than {most} characters.")

    def _show(self, script: Script, selector: tuple[str, ...], text: str, source: int) -> None:
        progress = self.progress
        progress.shown_chars += len(text)
        if progress.shown_chars > progress.limits.shown_chars:
            self._refuse_text()
            return
        vertex = self._graph.vertices[source]
        self.emit(
            Chunk(
                node_run_id=self._id_of(vertex),
                node_id=vertex.id,
                node_type=vertex.type,
                title=vertex.title,
                within=self.within,
                selector=selector,
                text=whole(text),
                answer_id=script.id,
            )
        )


def _writable(error: NodeError) -> NodeError:
    """The failure as it can be told to clients."""
    return NodeError(
        whole(error.message),
        error.type,
        inputs=writable(error.inputs),
        process_data=writable(error.process_data),
        outputs=writable(error.outputs),
    )
