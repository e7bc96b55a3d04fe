"""Simulated replicas as processes of their own, which a drill can kill, stop and start again."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from tests.e2e.drills.places import kept_port
from tests.e2e.faults.client import MODEL
from tests.e2e.process.command import Server, started

__all__ = ["Engine", "fleet"]


class Engine:
    """`triolet replica` on a port that stays its own. Start it, end it, start it again."""

    def __init__(self, directory: Path, port: int, name: str, options: tuple[str, ...]) -> None:
        self.port = port
        self._directory = directory
        self._name = name
        self._options = options
        self._stack = AsyncExitStack()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, its cache empty; it listens afterwards."""
        self._directory.mkdir(exist_ok=True)
        own = ("--port", str(self.port), "--model", MODEL, "--name", self._name)
        self._server = await self._stack.enter_async_context(
            started(self._directory, "replica", *own, *self._options, mark="serves model")
        )

    def send(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.send(number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.end()

    async def end(self) -> None:
        await self._stack.aclose()
        self._stack = AsyncExitStack()


@asynccontextmanager
async def fleet(directory: Path, number: int, *options: str) -> AsyncIterator[list[Engine]]:
    """So many of them, with the same options of `triolet replica`."""
    async with AsyncExitStack() as stack:
        engines = []
        for index in range(number):
            port = stack.enter_context(kept_port())
            engine = Engine(directory / f"replica-{index}", port, f"replica-{index}", options)
            stack.push_async_callback(engine.end)
            engines.append(engine)
        async with trio.open_nursery() as nursery:
            for engine in engines:
                nursery.start_soon(engine.start)
        yield engines
