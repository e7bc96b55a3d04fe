"""The workflow engine under `scripts/bench engine`: runs apps as told, one JSON object a line.

    -> {"do": "run", "case": "chain-10", "export": "...", "inputs": {}, "concurrency": 16,
        "seconds": 0.5}
    <- {"runs": 1234, "wall_s": 0.5004, "outputs": {}}

The way of a run is that of the product, inputs checked and all, apart from the models, which are
scripted, and the sink, which counts. `python -m server.engine_bench` starts it.
"""

from __future__ import annotations

import gc
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from server import __version__
from server.dify.dsl import read_app
from server.running.runs import Running
from server.workflow.app import App, ModelRef
from server.workflow.capacity import Capacity
from server.workflow.events import Chunk, Event
from server.workflow.graph import compile_graph
from server.workflow.jinja import InProcessJinja
from server.workflow.limits import Limits
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    Receiver,
    Services,
    Usage,
)

__all__ = ["Bench", "main"]

Command = dict[str, Any]

_SLOTS: Final = 100_000
"""More than ever wait here: slots are not what is measured."""


class _Absent:
    """Stands for the services that no case uses."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this benchmark has no such service (asked for {name!r})")


class _ScriptedModel:
    """Streams `tokens` pieces after `takes_s` seconds, or waits for `release`."""

    def __init__(self) -> None:
        self.tokens = 0
        self.takes_s = 0.0
        self.waits = False
        self.release = trio.Event()
        self._missing = 0
        self._all_here = trio.Event()

    def expect(self, calls: int) -> trio.Event:
        """Set once so many more calls wait."""
        self.waits, self._missing, self._all_here = True, calls, trio.Event()
        return self._all_here

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        if self.waits:
            self._missing -= 1
            if not self._missing:
                self._all_here.set()
            await self.release.wait()
            return Completion(text="released")
        if self.takes_s:
            await trio.sleep(self.takes_s)
        for number in range(self.tokens if receiver is not None else 0):
            assert receiver is not None
            receiver.text(f"token {number} ")
            await receiver.drain()
            await trio.lowlevel.checkpoint()  # as if the next piece had to be read
        return Completion(text="", usage=Usage(1, self.tokens))

    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts:
        return ModelFacts()


class _Counting:
    """A sink that counts what is streamed."""

    def __init__(self) -> None:
        self.chunks = 0

    def put(self, event: Event) -> None:
        if type(event) is Chunk:
            self.chunks += 1

    async def drain(self) -> None:
        """There is always room."""


class Bench:
    """Does what one line says."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._model = _ScriptedModel()
        absent: Any = _Absent()
        given: dict[str, Any] = dict.fromkeys(Services.__struct_fields__, absent)
        services = Services(**given | {"models": self._model, "jinja": InProcessJinja()})
        self._running = Running(services, Capacity({}, default=_SLOTS), Limits())
        self._apps: dict[str, App] = {}
        self._held = 0
        self._all_gone = trio.Event()

    async def obey(self, command: Command) -> dict[str, Any]:
        """The answer to one command."""
        orders: dict[str, Callable[[Command], Awaitable[dict[str, Any]]]] = {
            "run": self._run,
            "compile": self._compile,
            "hold": self._hold,
            "release": self._release,
            "stream": self._stream,
        }
        return await orders[command["do"]](command)

    def _app(self, command: Command) -> App:
        app = self._apps.get(command["case"])
        if app is None:
            app, _ = read_app(command["export"])
            self._apps[command["case"]] = app
        return app

    async def _run(self, command: Command) -> dict[str, Any]:
        """Runs of one app, `concurrency` at a time, for so many seconds."""
        app, inputs, runs = self._app(command), command["inputs"], 0
        self._model.takes_s, self._model.tokens = command.get("model_s") or 0.0, 0
        outputs: dict[str, Any] = {}
        began_s = time.perf_counter()
        end_s = began_s + command["seconds"]

        async def keep_running() -> None:
            nonlocal runs, outputs
            while time.perf_counter() < end_s:
                result = await self._running.run_app(app, inputs, query="q", sink=_Counting())
                if result.status != "succeeded":
                    raise RuntimeError(f"the run {result.status}: {result.error}")
                outputs = result.outputs
                runs += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(command["concurrency"]):
                nursery.start_soon(keep_running)
        return {"runs": runs, "wall_s": time.perf_counter() - began_s, "outputs": outputs}

    async def _compile(self, command: Command) -> dict[str, Any]:
        """CPU seconds to read an export, and to compile its graph."""
        times, app = command["times"], self._app(command)
        began_s = time.process_time()
        for _ in range(times):
            read_app(command["export"])
        read_s = time.process_time() - began_s
        began_s = time.process_time()
        for _ in range(times):
            compile_graph(app.graph, app.mode)
        return {"read_s": read_s / times, "compile_s": (time.process_time() - began_s) / times}

    async def _hold(self, command: Command) -> dict[str, Any]:
        """Start runs that wait for a model, and leave them so."""
        app = self._app(command)
        all_here = self._model.expect(command["runs"])
        for _ in range(command["runs"]):
            self._held += 1
            self._nursery.start_soon(self._one, app, command["inputs"])
        await all_here.wait()
        gc.collect()
        return {"held": self._held}

    async def _one(self, app: App, inputs: dict[str, Any]) -> None:
        await self._running.run_app(app, inputs)
        self._held -= 1
        if not self._held:
            self._all_gone.set()

    async def _release(self, command: Command) -> dict[str, Any]:
        self._model.release.set()
        if self._held:
            await self._all_gone.wait()
        self._model.release, self._model.waits = trio.Event(), False
        self._all_gone = trio.Event()
        return {}

    async def _stream(self, command: Command) -> dict[str, Any]:
        """Runs one after another, each with so many tokens of the scripted model."""
        app, sink = self._app(command), _Counting()
        self._model.tokens = command["tokens"]
        for _ in range(command["runs"]):
            result = await self._running.run_app(app, command["inputs"], query="q", sink=sink)
            if result.status != "succeeded":
                raise RuntimeError(f"the run {result.status}: {result.error}")
        return {"tokens": sink.chunks}


async def _serve() -> None:
    _say({"ready": f"Triolet {__version__}, Python {platform.python_version()}"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey_all, Bench(nursery), nursery.cancel_scope)


async def _obey_all(bench: Bench, scope: trio.CancelScope) -> None:
    """Until the input ends."""
    while line := await trio.to_thread.run_sync(sys.stdin.buffer.readline):
        try:
            answer = await bench.obey(msgspec.json.decode(line))
        except Exception as error:  # it is the benchmark's to judge
            answer = {"error": f"{type(error).__name__}: {error}"}
        _say(answer)
    scope.cancel("the input has ended")


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Until stdin ends. The collector is set as the server sets it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    trio.run(_serve)


if __name__ == "__main__":
    main()
