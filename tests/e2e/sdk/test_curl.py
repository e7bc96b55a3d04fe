"""curl, as people try things out: `curl -N` shows each event when it is there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.e2e.sdk.replica import ScriptedReplica, event, streamed
from tests.e2e.sdk.serving import Relay, relaying

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")

CHAT = "/v1/chat/completions"


@asynccontextmanager
async def _curl(relay: Relay, *options: str) -> AsyncIterator[trio.Process]:
    command = [
        str(CURL),
        *("-sN", *options, f"{relay.url}{CHAT}", "-H", "content-type: application/json"),
        *("-d", '{"model": "scripted", "stream": true}'),
    ]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


async def _read(process: trio.Process, wanted: bytes) -> None:
    """Read curl's output up to `wanted`, which must be the last of it now."""
    assert process.stdout is not None
    seen = b""
    with trio.fail_after(5):
        while not seen.endswith(wanted):
            data = await process.stdout.receive_some()
            assert data, f"the end came before {wanted!r}: {seen!r}"
            seen += data


async def test_each_event_arrives_when_it_is_sent() -> None:
    """The replica sends an event only after curl has shown the one before."""
    gates = [trio.Event() for _ in range(4)]
    events = [event({"choices": [], "number": number}) for number in range(4)]
    steps = [step for pair in zip(gates, events, strict=True) for step in pair]
    replica = ScriptedReplica({CHAT: streamed(*steps, event("[DONE]"))})
    async with relaying(replica) as relay, _curl(relay) as curl:
        for gate, text in zip(gates[:-1], events[:-1], strict=True):
            gate.set()
            await _read(curl, text)
        gates[-1].set()
        await _read(curl, events[-1] + event("[DONE]"))
        with trio.fail_after(5):
            assert await curl.wait() == 0


async def test_a_cut_stream_ends_well_formed() -> None:
    """The error event is the last one, and curl does not find the transfer broken."""
    token = event({"choices": [{"delta": {"content": "x"}}]})
    replica = ScriptedReplica({CHAT: streamed(token, cut=True)})
    async with relaying(replica) as relay, _curl(relay) as curl:
        await _read(curl, b'"code":"replica_failed"}}\n\n')
        with trio.fail_after(5):
            assert await curl.wait() == 0


async def test_an_interrupted_curl_frees_the_replica() -> None:
    """Ctrl-C on curl ends the replica's work."""
    never, first = trio.Event(), event({"choices": []})
    replica = ScriptedReplica({CHAT: streamed(first, never)})
    async with relaying(replica) as relay:
        async with _curl(relay) as curl:
            await _read(curl, first)
            assert relay.triolet.relay.in_flight == 1
        await relay.until_idle()


async def test_http10() -> None:
    """HTTP/1.0: no chunks, the connection's end is the stream's end."""
    replica = ScriptedReplica({CHAT: streamed(event({"choices": []}), event("[DONE]"))})
    async with relaying(replica) as relay, _curl(relay, "--http1.0") as curl:
        await _read(curl, event("[DONE]"))
        with trio.fail_after(5):
            assert await curl.wait() == 0
