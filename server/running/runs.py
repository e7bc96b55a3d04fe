"""One run of an app: its graph from the cache, its inputs checked, the engine called."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import trio

from balancer.catalog import Catalog
from server.running.conversation import Assignments, Conversation
from server.workflow import engine
from server.workflow.app import App
from server.workflow.capacity import Capacity
from server.workflow.engine import RunResult, Stop
from server.workflow.events import Event, Sink
from server.workflow.given_files import Upload
from server.workflow.graph import TRIGGERS, Graph, compile_graph
from server.workflow.inputs import checked, of_event
from server.workflow.limits import Limits
from server.workflow.node import Run
from server.workflow.services import Services
from server.workflow.values import File, Value

__all__ = ["Discard", "Running"]

_GRAPHS: Final = 256
"""Compiled graphs that are kept; one of 50 nodes takes about 100 kB."""

_COMPILED_AT_ONCE: Final = 100
"""Nodes of a graph that is compiled without a thread: 10 ms, once."""

_STRETCH_S: Final = 0.001
"""After checking inputs for so long other tasks get their turn."""

_NEW: Final = Conversation(id="")


class Discard:
    """A sink for runs that nobody watches."""

    def put(self, event: Event) -> None:
        """Forget it."""

    async def drain(self) -> None:
        """There is always room."""


class Running:
    """What runs share. Made by `open_services`; of the process's one event loop."""

    def __init__(
        self,
        services: Services,
        capacity: Capacity,
        limits: Limits,
        *,
        catalog: Catalog | None = None,
        upload: Upload | None = None,
    ) -> None:
        """`catalog` is what models are served from; `upload` finds an uploaded file by its id."""
        self.services = services
        self.capacity = capacity
        self.limits = limits
        self.catalog = catalog or Catalog()
        self._upload = upload
        self._graphs: OrderedDict[str, Graph] = OrderedDict()

    def graph_of(self, app: App) -> Graph:
        """Compiled at its first use and kept by its digest. Raises `GraphError`."""
        graph = self._graphs.get(app.digest)
        if graph is None:
            return self._keep(app, compile_graph(app.graph, app.mode))
        self._graphs.move_to_end(app.digest)
        return graph

    async def _compiled(self, app: App) -> Graph:
        """The same. A large one is compiled in a thread: it may take a good part of a second."""
        if len(app.graph.nodes) <= _COMPILED_AT_ONCE or app.digest in self._graphs:
            return self.graph_of(app)
        graph = await trio.to_thread.run_sync(
            compile_graph, app.graph, app.mode, abandon_on_cancel=True
        )
        return self._keep(app, graph)

    def _keep(self, app: App, graph: Graph) -> Graph:
        if app.digest:
            self._graphs[app.digest] = graph
            if len(self._graphs) > _GRAPHS:
                self._graphs.popitem(last=False)
        return graph

    def checked(
        self, app: App, inputs: Mapping[str, Any], start: str | None = None
    ) -> dict[str, Value]:
        """What a run would be given. Raises `InputError` for inputs that the app does not take."""
        return self._given(self.graph_of(app), app, inputs, start)

    def _given(
        self, graph: Graph, app: App, inputs: Mapping[str, Any], start: str | None
    ) -> dict[str, Value]:
        if graph.vertices[graph.root_of(start).index].node.type in TRIGGERS:
            return of_event(inputs, most_items=self.limits.value_items)
        return checked(app.inputs, inputs, upload=self._upload, most_items=self.limits.value_items)

    async def run_app(
        self,
        app: App,
        inputs: Mapping[str, Any],
        *,
        query: str = "",
        files: Sequence[File] = (),
        user: str = "",
        conversation: Conversation | None = None,
        tier: str = "interactive",
        deadline: float | None = None,
        sink: Sink | None = None,
        stop: Stop | None = None,
        start: str | None = None,
        run_id: str | None = None,
        depth: int = 0,
    ) -> RunResult:
        """Run it to its end. What goes wrong in a node is in the result.

        `conversation` is read, and changed: its variables with each assignment, whatever becomes of
        the run; what was said, when it went well. `deadline` (of Trio's clock) is by when models
        must have a replica, `start` another start node than the first one, `depth` how many
        workflows called one another to get here. Raises `GraphError` for an app that cannot be
        compiled and `InputError` for inputs that it does not take.
        """
        graph = await self._compiled(app)
        began = trio.current_time()
        given = self._given(graph, app, inputs, start)
        if trio.current_time() - began > _STRETCH_S:
            await trio.lowlevel.checkpoint()
        before = conversation or _NEW
        run = Run(
            id=run_id or str(uuid.uuid4()),
            app=app,
            services=self.services,
            user=user,
            conversation_id=before.id,
            query=query,
            history=before.history,
            tier=tier,
            deadline=deadline,
            depth=depth,
            started_at=time.time(),
        )
        reader: Sink = sink or Discard()
        if conversation is not None and app.conversation:
            reader = Assignments(conversation, reader)
        result = await engine.run(
            graph,
            run,
            given,
            reader,
            capacity=self.capacity,
            limits=self.limits,
            start=start,
            conversation=before.variables,
            files=files,
            dialogue_count=before.turns + 1,
            stop=stop,
        )
        if conversation is not None and result.status in ("succeeded", "partial-succeeded"):
            conversation.said(query, str(result.outputs.get("answer", "")), result.conversation)
        return result
