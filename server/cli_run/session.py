"""From a loaded app to an exit code: replicas, services, one run or a conversation, signals."""

from __future__ import annotations

import logging
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import click
import msgspec
import trio

from balancer.catalog import Catalog
from balancer.wire.poller import open_poller
from server.cli_run.asking import Asker, read_line
from server.cli_run.given import GivenFile, given_file
from server.cli_run.showing import Output, TerminalSink, result_json, value_text
from server.config import Config
from server.files import FileStore
from server.running.conversation import Conversation
from server.running.opening import open_services
from server.running.runs import Running
from server.supply import Supply
from server.timeline import draw, read
from server.workflow.app import App
from server.workflow.engine import RunResult, Stop
from server.workflow.events import InputRequired
from server.workflow.inputs import InputError
from server.workflow.reading import GraphError
from server.workflow.services import ServiceFailed
from server.workflow.values import File

if TYPE_CHECKING:
    from server.dify.dsl import Offers
    from server.dify.report import Report

__all__ = ["Asked", "Loaded", "Shown", "go"]

Shown: TypeAlias = Literal["text", "events", "json"]

FAILED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130

_TOLD: Final = 10
"""Findings of the report that are shown before a run."""

_LAST_WORDS_S: Final = 2.0
"""How long what was said may take to be written after the end."""


class Loaded(Protocol):
    """The app and where it is from."""

    app: App
    report: Report
    allow_code: bool

    def read(self, offers: Offers) -> tuple[App, Report]:
        """Once more, for what is offered."""

    def offers(self, served: frozenset[str]) -> Offers:
        """What there is here, with these models."""

    def find(self, id: str) -> App | None:
        """Another app, for those that call one as a tool."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the app."""

    inputs: dict[str, Any]
    query: str | None
    """None: ask for one turn after another."""
    tier: str
    user: str


def go(
    config: Config, loaded: Loaded, asked: Asked, shown: Shown, *, graph: Path | None = None
) -> int:
    """Run it, and return the process's exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    session = _Session(config, loaded, asked, shown, graph)
    return trio.run(session.run, strict_exception_groups=True)


class _Session:
    def __init__(
        self, config: Config, loaded: Loaded, asked: Asked, shown: Shown, graph: Path | None
    ) -> None:
        self._config = config
        self._loaded = loaded
        self._asked = asked
        self._shown = shown
        self._graph = graph
        self._output = Output()
        self._stop = Stop()
        self._asking = trio.CancelScope()
        """Around the wait for a person's next words, which a stop of the run does not reach."""
        self._interrupted = False
        self._code = 0

    async def run(self) -> int:
        """Everything, in one nursery. A first Ctrl-C stops the run, a second one everything."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as top:
                top.start_soon(self._obey, signals, top.cancel_scope)
                top.start_soon(self._output.run)
                async with trio.open_nursery() as nursery:
                    await self._work(nursery)
                    nursery.cancel_scope.cancel("the run is over")
                await self._write_out()
                if self._output.fault is not None:
                    self._say(f"the output could not be written: {self._output.fault}")
                    self._code = self._code or FAILED
                top.cancel_scope.cancel("all is said")
        return INTERRUPTED if self._interrupted else self._code

    async def _write_out(self) -> None:
        with trio.move_on_after(_LAST_WORDS_S):
            await self._output.drain(0)

    async def _obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _ in signals:
            if self._interrupted:
                scope.cancel("interrupted twice")
            self._interrupted = True
            self._stop()
            self._asking.cancel("interrupted")

    async def _work(self, nursery: trio.Nursery) -> None:
        async with AsyncExitStack() as stack:
            catalog = await self._catalog(nursery)
            running = await stack.enter_async_context(self._services(catalog))
            try:
                running.graph_of(self._loaded.app)
                inputs = _kept(self._asked.inputs, running)
                running.checked(self._loaded.app, inputs)
                await self._turns(running, inputs)
            except (GraphError, InputError, ServiceFailed) as exc:
                self._say(f"{self._loaded.app.name}: {exc}")
                self._code = WRONG

    @asynccontextmanager
    async def _services(self, catalog: Catalog) -> AsyncIterator[Running]:
        loaded = self._loaded
        async with open_services(
            self._config, catalog, allow_code=loaded.allow_code, apps=loaded.find
        ) as running:
            yield running

    async def _catalog(self, nursery: trio.Nursery) -> Catalog:
        """The models, where the app may call one; and what it will miss."""
        report = self._loaded.report
        if not report.models and all(tool.kind != "workflow" for tool in report.tools):
            self._warn(report)
            return Catalog()
        poller = open_poller()
        await nursery.start(poller.run)
        supply = Supply(self._config, poller)
        source = await supply.start(nursery)
        if source == "demo":
            self._say("no engine was found here and no [[pool]] is configured: a demo answers")
        served = frozenset(supply.catalog.pools)
        self._loaded.app, report = self._loaded.read(self._loaded.offers(served))
        self._warn(report)
        return supply.catalog

    def _warn(self, report: Report) -> None:
        """What is missing or not done here: the run may go another way, so it is not refused."""
        found = [*report.of("unsupported"), *report.of("missing")]
        for one in found[:_TOLD]:
            self._say(f"{one.place}: {one.message}{'; ' + one.fix if one.fix else ''}")
        if len(found) > _TOLD:
            self._say(f"and {len(found) - _TOLD} things more: see `triolet apps import --check`")

    # Turns

    async def _turns(self, running: Running, inputs: dict[str, Any]) -> None:
        app, asked = self._loaded.app, self._asked
        if app.mode in ("workflow", "completion"):
            await self._turn(running, inputs, asked.query or "", None)
            return
        conversation = Conversation(id=str(uuid.uuid4()))
        if asked.query is not None:
            await self._turn(running, inputs, asked.query, conversation)
            return
        self._open(app)
        while not self._interrupted:
            query = await self._next_query()
            if query is None:
                return
            if query.strip():
                await self._turn(running, inputs, query, conversation)

    def _open(self, app: App) -> None:
        opening = app.features.get("opening_statement")
        if isinstance(opening, str) and opening.strip():
            self._output.put(opening.strip() + "\n")
        self._say("Ctrl-D ends the conversation")

    async def _next_query(self) -> str | None:
        await self._output.drain(0)
        with trio.CancelScope() as self._asking:
            return await read_line("> ")
        return None  # interrupted

    async def _turn(
        self,
        running: Running,
        inputs: dict[str, Any],
        query: str,
        conversation: Conversation | None,
    ) -> None:
        self._stop = Stop()
        if self._interrupted:
            return
        run_id = str(uuid.uuid4())
        async with trio.open_nursery() as forms:
            sink = self._sink(running, forms)
            result = await running.run_app(
                self._loaded.app,
                inputs,
                query=query,
                user=self._asked.user,
                conversation=conversation,
                tier=self._asked.tier,
                sink=sink,
                stop=self._stop,
                run_id=run_id,
            )
            forms.cancel_scope.cancel("the run is over")
        self._show(result, sink, run_id)
        await self._write_out()
        self._judge(result)
        await self._draw(sink)

    def _sink(self, running: Running, forms: trio.Nursery) -> TerminalSink:
        book: Any = running.services.forms
        store: Any = running.services.files

        def file(name: str, written: str) -> dict[str, Any]:
            kept = _kept_one(given_file(name, written), store)
            if isinstance(kept, File):
                return {"transfer_method": "local_file", "upload_file_id": kept.related_id}
            return dict(kept)

        terminal = sys.stdin is not None and sys.stdin.isatty()
        asker = Asker(book, self._say, terminal=terminal, file=file)

        def on_form(event: InputRequired) -> None:
            forms.start_soon(asker.ask, event)

        return TerminalSink(
            self._output,
            events=self._shown == "events",
            text=self._shown == "text" and _streams(self._loaded.app),
            keeps=self._graph is not None,
            on_form=on_form,
            on_note=self._say,
        )

    def _show(self, result: RunResult, sink: TerminalSink, run_id: str) -> None:
        if self._shown == "json":
            self._output.put(result_json({"run_id": run_id, **msgspec.structs.asdict(result)}))
        elif self._shown == "text":
            self._show_text(result, sink)

    def _judge(self, result: RunResult) -> None:
        """What became of it, once what it showed is out: both may be one terminal's lines."""
        self._code = FAILED if result.status in ("failed", "stopped") else 0
        if result.status == "partial-succeeded":
            self._say(f"{result.exceptions_count} node runs failed on the way")
        elif result.status != "succeeded":
            self._say(f"the run {_SAID[result.status]}: {result.error or 'nothing says why'}")

    def _show_text(self, result: RunResult, sink: TerminalSink) -> None:
        """What was streamed stands there already; outputs that were not come after it."""
        streamed = "".join(sink.streamed)
        if streamed and not streamed.endswith("\n"):
            self._output.put("\n")
        if self._loaded.app.mode == "workflow" and result.outputs:
            text = value_text(result.outputs)
            if text.strip() != streamed.strip():
                self._output.put(text if text.endswith("\n") else text + "\n")

    async def _draw(self, sink: TerminalSink) -> None:
        if self._graph is None:
            return
        picture = draw(read(sink.moments), self._loaded.app.name)
        try:
            await trio.Path(self._graph).write_text(picture, encoding="utf-8")
        except OSError as exc:
            self._say(f"{self._graph}: {exc.strerror or exc}")
            self._code = self._code or FAILED

    def _say(self, text: str) -> None:
        click.echo(f"triolet: {text}", err=True)


def _streams(app: App) -> bool:
    """Whether text is shown as it comes. Of a workflow with several outputs nobody could tell which
    one it belongs to: they are shown at the end."""
    ends = [node for node in app.graph.nodes if node.type == "end"]
    return all(len(node.data.get("outputs") or ()) <= 1 for node in ends)


_SAID: Final = {"failed": "failed", "stopped": "was stopped"}


def _kept(inputs: dict[str, Any], running: Running) -> dict[str, Any]:
    """The inputs with each file in the store. Raises `ServiceFailed`."""
    store: Any = running.services.files
    return {name: _kept_one(value, store) for name, value in inputs.items()}


def _kept_one(value: Any, store: FileStore) -> Any:
    if isinstance(value, GivenFile):
        kept: File = store.upload(value.content, name=value.name, mime_type=value.mime_type)
        return kept
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_kept_one(one, store) for one in value]
    return value
