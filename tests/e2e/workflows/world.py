"""All services as the server has them, over real sockets and workers, and peers that do as told.

One peer is a replica, one is a site. What is asked of either says what it does: `/slow` in a path
or `drip` in a prompt. Each request that came is kept, with when its connection was seen to close.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from balancer.catalog import Catalog
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.connect import Origin, TcpDialer
from balancer.wire.poller import open_poller
from server.config import CodeConfig, Config, KnowledgeConfig, WebConfig, WorkflowConfig
from server.running.opening import open_services
from server.running.runs import Running
from server.sandbox import Sandbox
from server.workflow.app import App
from server.workflow.events import Chunk, Event
from server.workflow.limits import Limits
from tests.balancer.relays import First
from tests.server.sandbox.watching import children_of_this_process, comes_true, gone, options
from tests.server.tools.test_mcp import FakeMcp
from tests.server.web.loopback import Asked, Loopback, loopback

__all__ = ["Call", "Watcher", "World", "opened", "p99", "starved_s"]

Script = Callable[[Asked, str], Awaitable[None]]


class Call:
    """One request as it reached a peer."""

    def __init__(self, asked: Asked, about: str) -> None:
        self.asked = asked
        self.about = about
        """The path, or the last message of a prompt."""
        self.answered = False
        self.gone = False
        """Whether the connection closed before it was answered."""


class Peer:
    """A server on loopback. `calls` is all that came."""

    def __init__(self, about: Callable[[Asked], str], script: Script) -> None:
        self.calls: list[Call] = []
        self.url = ""
        self._about = about
        self._script = script

    @property
    def open(self) -> list[Call]:
        """Calls that go on."""
        return [call for call in self.calls if not (call.answered or call.gone)]

    async def __call__(self, asked: Asked) -> None:
        call = Call(asked, self._about(asked))
        self.calls.append(call)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_notice_leaving, call, nursery.cancel_scope)
            try:
                await self._script(asked, call.about)
                call.answered = True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                call.gone = True
            nursery.cancel_scope.cancel("answered")
        if not call.answered:
            raise trio.ClosedResourceError


async def _notice_leaving(call: Call, answering: trio.CancelScope) -> None:
    """Nothing is pipelined: what comes meanwhile is the end."""
    try:
        data = await call.asked.stream.receive_some(1)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        data = b""
    if not data:
        call.gone = True
        answering.cancel("the client left")


# A replica

_HEAD = {"content-type": "text/event-stream"}
PACE_S = 0.02


def _path(asked: Asked) -> str:
    return asked.path


def _prompt(asked: Asked) -> str:
    content = asked.json()["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


async def _replica(asked: Asked, prompt: str) -> None:
    """`hang` anywhere; `drip N`: N tokens at the usual pace; `huge N`: N tokens of a megabyte;
    `call NAME`: a call of that tool unless one was made; `say TEXT`."""
    verb, _, rest = prompt.strip().partition(" ")
    messages = asked.json()["messages"]
    if "hang" in prompt:
        await trio.sleep_forever()
    await asked.start(_HEAD)
    if verb == "drip":
        for number in range(int(rest)):
            await trio.sleep(PACE_S)
            await _delta(asked, content=f"{number} ")
    elif verb == "huge":
        for _ in range(int(rest)):
            await _delta(asked, content="x" * 1_000_000)
    elif verb == "call" and messages[-1]["role"] != "tool":
        function = {"name": rest, "arguments": "{}"}
        await _delta(asked, tool_calls=[{"index": 0, "id": "c", "function": function}])
    else:
        await _delta(asked, content=rest)
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    await _event(asked, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    await _event(asked, {"choices": [], "usage": usage})
    await asked.stream.send_all(b"data: [DONE]\n\n")
    await asked.stream.send_eof()


async def _delta(asked: Asked, **delta: Any) -> None:
    await _event(asked, {"choices": [{"index": 0, "delta": delta}]})


async def _event(asked: Asked, content: dict[str, Any]) -> None:
    await asked.stream.send_all(b"data: %b\n\n" % json.dumps({"id": "c", **content}).encode())


# A site

_MEGABYTE = b"x" * 1_000_000
BOMB = gzip.compress(bytes(50_000_000))


async def _site(asked: Asked, path: str) -> None:
    kind = {"content-type": "text/plain"}
    if path.startswith("/hang"):
        await trio.sleep_forever()
    elif path.startswith("/body"):
        await asked.start(kind)
        await asked.stream.send_all(b"some of it")
        await trio.sleep_forever()
    elif path.startswith("/slow"):
        await trio.sleep(float(path.split("/")[2]))
        await asked.answer(200, "late", kind)
    elif path.startswith("/large"):
        await asked.start(kind)
        for _ in range(50):
            await asked.stream.send_all(_MEGABYTE)
        await asked.stream.send_eof()
    elif path.startswith("/bomb"):
        await asked.answer(200, BOMB, kind | {"content-encoding": "gzip"})
    elif path.startswith("/drip"):
        await asked.start(kind)
        while True:
            await asked.stream.send_all(b"x")
            await trio.sleep(0.01)
    elif path.startswith("/json"):
        await asked.answer(
            200, b"[%b1]" % (b"1," * 5_000_000), {"content-type": "application/json"}
        )
    else:
        await asked.answer(200, "hello", kind)


# A server of tools

_MCP = FakeMcp()


async def _mcp(asked: Asked, path: str) -> None:
    """A call of a tool hangs."""
    if b"tools/call" in asked.body:
        await trio.sleep_forever()
    await _MCP(asked)


# All together


class World:
    """What a drill has: services, peers, and what is left of a run."""

    def __init__(
        self, running: Running, pool: Pool, peers: tuple[Peer, ...], apps: dict[str, App]
    ) -> None:
        self.running = running
        self.pool = pool
        self.peers = peers
        self.replica, self.site, self.mcp = peers
        self.apps = apps

    @property
    def sandbox(self) -> Sandbox:
        code = self.running.services.code
        assert isinstance(code, Sandbox)
        return code

    def limit(self, **limits: Any) -> None:
        """For runs from now on."""
        self.running.limits = msgspec.structs.replace(Limits(), **limits)

    def remains(self) -> list[str]:
        """What goes on that no run should have left."""
        found = [
            f"{pair}: {load}"
            for pair, load in self.running.capacity.load().items()
            if load.used or load.waiting
        ]
        found += [f"asked: {call.about}" for peer in self.peers for call in peer.open]
        statistics = self.pool.statistics()
        if statistics.in_flight or statistics.waiting:
            found.append(f"pool: {statistics}")
        if self.sandbox.busy:
            found.append(f"sandbox: {self.sandbox.busy} busy")
        if len(self.running.services.forms):  # type: ignore[arg-type]
            found.append("forms")
        return found

    async def settles(self) -> None:
        """Peers and processes hear of the end a moment later."""
        assert await comes_true(lambda: not self.remains()), self.remains()


class Watcher:
    """A client that keeps all events, and when each piece of text came, without the time in which
    this process was ready and the machine ran others."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.times: list[float] = []

    def put(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Chunk):
            self.times.append(trio.current_time() - starved_s())

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def starved_s() -> float:
    """How long this thread has been ready to run and did not, since it began; 0 where the kernel
    does not say. Drills are about what we do, not about how busy the machine is."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


_WORKFLOW = WorkflowConfig()


@asynccontextmanager
async def opened(
    directory: Path, *, workflow: WorkflowConfig = _WORKFLOW, code_s: float = 10.0
) -> AsyncIterator[World]:
    """Everything runs for as long as the block lasts; nothing is left of it afterwards."""
    (directory / "books" / "base").mkdir(parents=True)
    (directory / "books" / "base" / "a.txt").write_text("---\nyear: 2024\n---\nSome words.\n")
    (directory / "temporary").mkdir()
    await _start_monty()
    before, sockets, usual = children_of_this_process(), _sockets(), tempfile.tempdir
    tempfile.tempdir = str(directory / "temporary")
    config = Config(
        models={"*": "m"},
        workflow=workflow,
        web=WebConfig(allow=("127.0.0.1",)),
        code=CodeConfig(enabled=True, time_s=code_s),
        knowledge=KnowledgeConfig(dir=str(directory / "books")),
    )
    try:
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            yield await _opened(config, nursery, stack)
            await stack.aclose()
            nursery.cancel_scope.cancel("the drill is over")
        started = children_of_this_process() - before
        assert await gone(list(started))
        assert await comes_true(lambda: _sockets() <= sockets), (_sockets(), sockets)
        assert not list((directory / "temporary").iterdir())
    finally:
        tempfile.tempdir = usual


async def _opened(config: Config, nursery: trio.Nursery, stack: AsyncExitStack) -> World:
    poller = open_poller()
    await nursery.start(poller.run)
    peers = (Peer(_prompt, _replica), Peer(_path, _site), Peer(_path, _mcp))
    for peer in peers:
        server: Loopback = await stack.enter_async_context(loopback(peer))
        peer.url = server.url
    one = Replica(Origin.parse(peers[0].url), TcpDialer(poller))
    stack.callback(one.close)
    pool = Pool("m", [one], First())
    apps: dict[str, App] = {}
    catalog = Catalog([pool])
    running = await stack.enter_async_context(open_services(config, catalog, apps=apps.get))
    return World(running, pool, peers, apps)


_monty_runs = False


async def _start_monty() -> None:
    """Its client keeps a few sockets for as long as the process lives."""
    global _monty_runs
    if not _monty_runs:
        async with Sandbox(options(monty=True)) as sandbox:
            await sandbox.run("python3", "def main():\n    return {'a': 1}\n", {})
        _monty_runs = True


def _sockets() -> int:
    """How many this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found
