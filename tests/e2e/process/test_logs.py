"""The log of a real process: lines that parse, nothing of what was said, and no reader needed."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from server.observe.log import LineWriter, logging_to
from tests.e2e.process.command import Server, environment, pool_file, serving, spawned
from tests.e2e.sdk.replica import ScriptedReplica, event, streamed, whole
from tests.e2e.sdk.serving import until

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
SECRET = "wMvkGq0"
ANSWER = {
    "choices": [{"message": {"content": f"{SECRET} back"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


async def test_json_lines_hold_no_content(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Every line is an object; prompts, answers, keys and queries are in none of them."""
    replica = ScriptedReplica(
        {
            CHAT: whole(ANSWER),
            "/v1/completions": streamed(event(ANSWER), cut=True),
            "/v1/embeddings": whole({"error": {"message": SECRET}}, status=500),
        }
    )
    pool_file(tmp_path, await nursery.start(replica.serve))
    call = {"model": "scripted", "messages": [{"role": "user", "content": SECRET}]}
    headers = {"authorization": f"Bearer {SECRET}", "x-request-id": "mine"}
    async with serving(tmp_path, "--log-format", "json") as server, server.client() as client:
        await client.post(f"{CHAT}?q={SECRET}", json=call, headers=headers)
        await client.post("/v1/completions", json={**call, "stream": True})
        await client.post("/v1/embeddings", json=call)
        await client.post(CHAT, json={**call, "model": 5})
        await client.post(CHAT, content=f'{{"{SECRET}"', headers={"content-type": "text/plain"})
        await until(lambda: len(server.exchanges()) == 5)
        server.send(signal.SIGHUP)
        await until(lambda: '"event":"message"' in server.logged())
    assert SECRET not in server.logged()
    first, second, third, *_ = exchanges = server.exchanges()
    assert [line["status"] for line in exchanges] == [200, 200, 500, 400, 415]
    assert [line["outcome"] for line in exchanges[:3]] == ["ok", "cut", "status"]
    assert (first["request_id"], first["path"], first["client"]) == ("mine", CHAT, "127.0.0.1")
    assert (first["prompt_tokens"], first["completion_tokens"]) == (3, 2)
    assert second["stream"] is True
    assert third["replica"] == replica.url
    messages = [json.loads(line) for line in server.logged().splitlines()]
    assert "SIGHUP: 1 pools from the configuration" in [line.get("message") for line in messages]
    nursery.cancel_scope.cancel()


async def test_no_access_log(tmp_path: Path) -> None:
    """`--no-access-log` leaves the messages and drops the exchanges."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    async with serving(tmp_path, "--no-access-log") as server, server.client() as client:
        await client.get("/healthz")
        await until(lambda: "is down" in server.logged())
    assert "/healthz" not in server.logged()


async def _fill(server: Server, lines: int) -> None:
    """Make it log: answers of 404 cost next to nothing."""
    limits = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(
        base_url=server.url, trust_env=False, limits=limits, timeout=5
    ) as client:
        for _ in range(lines):
            assert (await client.get("/nothing-at-all/" + "x" * 4000)).status_code == 404


async def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    """With stderr's pipe full, calls are answered and the process can still be ended."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    async with serving(tmp_path, stderr=subprocess.PIPE) as server, server.client() as client:
        await _fill(server, 60)  # a pipe holds 64 KiB
        assert (await client.get("/healthz")).status_code == 200
        server.send(signal.SIGTERM)
        assert await server.ended(within_s=5) == 0


async def test_a_log_whose_reader_left(tmp_path: Path) -> None:
    """With stderr's reader gone, lines are dropped and counted."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    async with serving(tmp_path, stderr=subprocess.PIPE) as server, server.client() as client:
        assert server.process.stderr is not None
        await server.process.stderr.aclose()
        await _fill(server, 3)
        with trio.fail_after(5):
            while True:
                if "lines_dropped_total 0.0" not in (await client.get("/metrics")).text:
                    break
                await trio.sleep(0.05)
        server.send(signal.SIGTERM)
        assert await server.ended(within_s=5) == 0


@pytest.mark.parametrize("when", ["before", "after"])
async def test_nobody_reads_stdout(tmp_path: Path, when: str) -> None:
    """`triolet serve | true`: the announcement may be lost, the server is not."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    reading, writing = os.pipe()
    if when == "before":
        os.close(reading)
    async with spawned(tmp_path, "serve", "--listen", url, stdout=writing) as server:
        os.close(writing)
        server.url = url
        await _alive(server)
        if when == "after":
            os.close(reading)
            await _alive(server)
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
    assert "Traceback" not in server.logged()


async def test_closed_descriptors(tmp_path: Path) -> None:
    """Started with stdout and stderr closed, as some supervisors do: it serves."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-m", "server.cli"]
    process = await trio.lowlevel.open_process(
        [*command, "serve", "--listen", url], cwd=tmp_path, env=environment()
    )
    server = Server(process, tmp_path / "no.log")
    server.url = url
    try:
        await _alive(server)
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
    finally:
        process.kill()


async def _alive(server: Server) -> None:
    async with server.client() as client:
        with trio.fail_after(10):
            while server.process.poll() is None:
                try:
                    assert (await client.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    await trio.sleep(0.02)
                else:
                    return
    raise AssertionError(f"it ended: {server.logged()}")


class _SlowReader(io.BytesIO):
    """A stream whose every write takes a while, as one to a busy disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()

    def write(self, data: Any) -> int:
        self.writing.set()
        time.sleep(0.1)
        return super().write(data)


async def test_a_thread_may_log() -> None:
    """Whoever logs in a thread (a library, a worker) is heard, and meets no error of ours."""
    stream = io.BytesIO()
    writer = LineWriter(stream)
    with logging_to(writer, "text"):
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            await trio.to_thread.run_sync(logging.getLogger("a.thread").warning, "said in a thread")
            await until(lambda: b"said in a thread" in stream.getvalue())
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("moment", ["before the thread", "in the thread"])
async def test_last_words(moment: str) -> None:
    """What was logged just before the end is written, however the end falls."""
    stream = _SlowReader()
    writer = LineWriter(stream)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        await trio.testing.wait_all_tasks_blocked()
        writer.write(b"last words")
        if moment == "in the thread":
            await trio.to_thread.run_sync(stream.writing.wait, 5)
        nursery.cancel_scope.cancel("the end")
    assert stream.getvalue() == b"last words\n"
