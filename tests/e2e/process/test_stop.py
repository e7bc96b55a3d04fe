"""How it ends: streams may finish, those that do not are told, and a second signal is final."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.process.command import Server, pool_file, serving
from tests.e2e.sdk.replica import ScriptedReplica, event, hanging, streamed, whole
from tests.e2e.sdk.serving import until

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
CALL = {"model": "scripted", "stream": True}
FIRST, LAST = event({"choices": [], "number": 1}), event({"choices": [], "number": 2})
DONE = event("[DONE]")


@asynccontextmanager
async def _stream(server: Server) -> AsyncIterator[_Reading]:
    async with server.client() as client, client.stream("POST", CHAT, json=CALL) as answer:
        assert answer.status_code == 200
        yield _Reading(answer)


class _Reading:
    """A stream that is being read: `until` a mark, or to its `rest`."""

    def __init__(self, answer: httpx.Response) -> None:
        self._pieces = answer.aiter_raw()
        self.text = ""

    async def until(self, mark: str) -> None:
        with trio.fail_after(5):
            while mark not in self.text:
                self.text += (await anext(self._pieces)).decode()

    async def rest(self) -> str:
        """Read to the end; all of the text."""
        with trio.fail_after(10):
            async for piece in self._pieces:
                self.text += piece.decode()
        return self.text


async def _refuses_connections(server: Server) -> bool:
    port = int(server.url.rpartition(":")[2])
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return True
    await stream.aclose()
    return False


async def _stopped_accepting(server: Server) -> None:
    with trio.fail_after(5):
        while True:
            if await _refuses_connections(server):
                return
            await trio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle(tmp_path: Path, number: signal.Signals) -> None:
    """With nothing to finish it ends at once, with 0, though a client keeps a connection."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    async with serving(tmp_path) as server, server.client() as client:
        await client.get("/healthz")
        server.send(number)
        assert await server.ended(within_s=3) == 0
    assert "Traceback" not in server.logged()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """A signal that comes as soon as it says that it serves is obeyed, not fatal."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    async with serving(tmp_path) as server:
        server.send(number)
        if number == signal.SIGHUP:
            await until(lambda: "SIGHUP: 1 pools" in server.logged())
            server.send(signal.SIGTERM)
        assert await server.ended(within_s=3) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stream_finishes(
    tmp_path: Path, nursery: trio.Nursery, number: signal.Signals
) -> None:
    """New connections are refused while the stream that runs comes to its good end."""
    gate = trio.Event()
    replica = ScriptedReplica({CHAT: streamed(FIRST, gate, LAST, DONE)})
    pool_file(tmp_path, await nursery.start(replica.serve))
    async with serving(tmp_path) as server, _stream(server) as reading:
        await reading.until(FIRST.decode())
        server.send(number)
        await _stopped_accepting(server)
        assert server.process.poll() is None
        gate.set()
        assert await reading.rest() == (FIRST + LAST + DONE).decode()
        assert await server.ended() == 0
    assert "stopping: 1 calls in flight" in server.logged()
    nursery.cancel_scope.cancel()


async def _answered_while_draining(tmp_path: Path, nursery: trio.Nursery) -> httpx.Response:
    """The answer to a call that had none when the signal came."""
    gate = trio.Event()

    async def gated(asked: Any, stream: trio.SocketStream) -> None:
        await gate.wait()
        await whole({"choices": []})(asked, stream)

    replica = ScriptedReplica({CHAT: gated})
    pool_file(tmp_path, await nursery.start(replica.serve))
    answers: list[httpx.Response] = []
    async with serving(tmp_path) as server, server.client() as client:

        async def call() -> None:
            answers.append(await client.post(CHAT, json={"model": "scripted"}))

        async with trio.open_nursery() as calls:
            calls.start_soon(call)
            await until(lambda: replica.asked)
            server.send(signal.SIGTERM)
            await _stopped_accepting(server)
            gate.set()
        assert await server.ended() == 0
    nursery.cancel_scope.cancel()
    return answers[0]


async def test_a_call_without_an_answer_yet_finishes(tmp_path: Path, nursery: trio.Nursery) -> None:
    """The same for a call whose answer has not begun."""
    answer = await _answered_while_draining(tmp_path, nursery)
    assert (answer.status_code, answer.json()) == (200, {"choices": []})


async def test_an_answer_while_draining_says_close(tmp_path: Path, nursery: trio.Nursery) -> None:
    """The client is told not to use this connection again."""
    answer = await _answered_while_draining(tmp_path, nursery)
    assert answer.headers.get("connection") == "close"


async def test_drain_s_passes(tmp_path: Path, nursery: trio.Nursery) -> None:
    """A stream that does not finish is told in-band, a call without an answer gets 503."""
    left = trio.Event()
    stuck = ScriptedReplica({CHAT: streamed(FIRST, trio.Event()), "/v1/embeddings": hanging(left)})
    pool_file(tmp_path, await nursery.start(stuck.serve))
    answers: list[httpx.Response] = []
    async with (
        serving(tmp_path, "--drain-s", "0.5") as server,
        server.client() as client,
        _stream(server) as reading,
    ):
        await reading.until(FIRST.decode())

        async def embed() -> None:
            answers.append(await client.post("/v1/embeddings", json={"model": "scripted"}))

        async with trio.open_nursery() as calls:
            calls.start_soon(embed)
            await until(lambda: len(stuck.asked) == 2)
            server.send(signal.SIGTERM)
            text = await reading.rest()
        assert await server.ended(within_s=5) == 0
    first, last, nothing = text.split("\n\n")
    assert (first + "\n\n", nothing) == (FIRST.decode(), "")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutdown"
    assert answers[0].status_code == 503
    assert answers[0].json()["error"]["code"] == "shutdown"
    with trio.fail_after(2):
        await left.wait()
    assert "drain_s has passed: ending 2 calls" in server.logged()
    nursery.cancel_scope.cancel()


async def test_no_drain(tmp_path: Path, nursery: trio.Nursery) -> None:
    """With `drain_s = 0` streams are told at once."""
    stuck = ScriptedReplica({CHAT: streamed(FIRST, trio.Event())})
    pool_file(tmp_path, await nursery.start(stuck.serve), extra="drain_s = 0")
    async with serving(tmp_path) as server, _stream(server) as reading:
        await reading.until(FIRST.decode())
        server.send(signal.SIGTERM)
        assert '"code":"shutdown"' in await reading.rest()
        assert await server.ended(within_s=4) == 0
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,) * 2])
async def test_a_second_signal(
    tmp_path: Path, nursery: trio.Nursery, numbers: tuple[signal.Signals, ...]
) -> None:
    """The second signal ends everything at once: the stream breaks off, and is seen to."""
    stuck = ScriptedReplica({CHAT: streamed(FIRST, trio.Event())})
    pool_file(tmp_path, await nursery.start(stuck.serve), extra="drain_s = 60")
    async with serving(tmp_path) as server, _stream(server) as reading:
        await reading.until(FIRST.decode())
        server.send(numbers[0])
        await _stopped_accepting(server)
        assert server.process.poll() is None
        server.send(numbers[1])
        # Not an orderly end: the client must not take what it has for the whole answer.
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await reading.rest()
        assert await server.ended(within_s=3) == 0
    assert "second signal" in server.logged()
    assert "Traceback" not in server.logged()
    nursery.cancel_scope.cancel()
