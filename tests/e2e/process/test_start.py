"""What `triolet serve` says when it starts, and what it says when it cannot."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.e2e.process.command import Server, completed, pool_file, serving, started
from tests.e2e.sdk.replica import ScriptedReplica, event, streamed
from tests.e2e.sdk.serving import until

pytestmark = pytest.mark.slow

CURL = shutil.which("curl")


async def _run_printed_command(server: Server, until: bytes) -> bytes:
    """The last line that it printed, run by a shell: its output up to `until`, or all."""
    line = server.said.splitlines()[-1].strip()
    process = await trio.lowlevel.open_process(
        ["/bin/sh", "-c", f"exec {line}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    output = b""
    try:
        with trio.fail_after(20):
            while until not in output and (data := await process.stdout.receive_some()):
                output += data
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()
        await process.stdout.aclose()
    return output


async def test_the_demo_from_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """With no configuration and no engine: two simulated replicas, which say what they are."""
    began = time.monotonic()
    async with serving(tmp_path, demo=True) as server, server.client() as client:
        for path in ("/healthz", "/health"):  # the second is where engines answer
            assert (await client.get(path)).json() == {"status": "ok"}
        ready_s = time.monotonic() - began
        record_property("ready_s", round(ready_s, 3))
        assert ready_s < 3.0
        assert re.search(r"embedded demo, a simulation.*\n  demo  http://\S+, http://", server.said)
        [model] = (await client.get("/v1/models")).json()["data"]
        assert (model["id"], model["replicas"]) == ("demo", 2)
        assert "simulation" in model["owned_by"]
        call: dict[str, object] = {"model": "demo", "max_tokens": 24}
        call["messages"] = [{"role": "user", "content": "Hello!"}]
        names: set[str] = set()

        async def ask() -> None:
            answer = await client.post("/v1/chat/completions", json=call)
            text = answer.json()["choices"][0]["message"]["content"]
            assert "simulat" in text
            names.update(re.findall(r"demo-\d", text))

        async with trio.open_nursery() as nursery:  # of two at once each gets one
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert names == {"demo-0", "demo-1"}
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
async def test_the_printed_curl_streams(tmp_path: Path) -> None:
    """The command that it prints works as it is, and streams the demo's text."""
    async with serving(tmp_path, demo=True) as server:
        output = await _run_printed_command(server, until=b"simul")
    events = output.split(b"\n\n")
    assert len(events) > 5
    assert all(b"chat.completion.chunk" in event for event in events[:-1])


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
async def test_the_printed_curl_survives_odd_names(tmp_path: Path, nursery: trio.Nursery) -> None:
    """A model's name with quotes and a dollar reaches the replica through the shell."""
    replica = ScriptedReplica({"/v1/chat/completions": streamed(event("[DONE]"))})
    url = await nursery.start(replica.serve)
    pool_file(tmp_path, url, model="it's $HOME/`x` é")
    async with serving(tmp_path) as server:
        assert "from the configuration" in server.said
        assert url in server.said
        assert await _run_printed_command(server, until=b"[DONE]") == b"data: [DONE]\n\n"
    assert replica.asked[0].json["model"] == "it's $HOME/`x` é"
    nursery.cancel_scope.cancel()


async def test_a_replica_that_is_not_there_yet(tmp_path: Path) -> None:
    """A configured replica need not run: Triolet starts, lives, and says it is not ready."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        pool_file(tmp_path, f"http://127.0.0.1:{bound.getsockname()[1]}")
        async with serving(tmp_path) as server, server.client() as client:
            assert (await client.get("/healthz")).status_code == 200
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["pools"] == {"scripted": {"replicas": 1, "up": 0}}


async def test_a_replica_that_is_down_is_logged_once(tmp_path: Path) -> None:
    """Why a replica is down stands in one line, and its URL in it once."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        pool_file(tmp_path, url)
        async with serving(tmp_path) as server:
            await until(lambda: "is down" in server.logged())
    [line] = server.logged().splitlines()
    assert line.endswith(f"replica {url} is down: connection refused: nothing listens there")


# --- wrong configurations


async def test_check_config_prints_what_is_in_effect(tmp_path: Path) -> None:
    """Exit code 0; flags beat the environment, the environment beats the file."""
    pool_file(tmp_path, "http://127.0.0.1:1", extra="drain_s = 3\nlog_format = 'json'")
    environ = {"TRIOLET_DRAIN_S": "2", "TRIOLET_LIMITS__HEAD_S": "4"}
    done = await completed(tmp_path, "check-config", "--set", "limits.head_s=5", environ=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    printed = done.stdout.decode()
    for line in ("drain_s = 2.0", "head_s = 5.0", 'log_format = "json"', 'model = "scripted"'):
        assert line in printed.splitlines()


WRONG = """
drain_s = "soon"
listn = ["http://127.0.0.1:0"]
[[pool]]
model = "m"
replicas = ["http://127.0.0.1:1"]
timeouts = { connect_ms = 5 }
"""


@pytest.mark.parametrize("command", ["check-config", "serve"])
async def test_every_mistake_is_named(tmp_path: Path, command: str) -> None:
    """Exit code 2, and a line for each mistake with file, key and what was expected."""
    (tmp_path / "triolet.toml").write_text(WRONG)
    done = await completed(tmp_path, command)
    assert (done.returncode, done.stdout) == (2, b"")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("file triolet.toml: ") for line in lines)
    text = "\n".join(lines)
    assert 'drain_s: found "soon", expected a number of seconds' in text
    assert "did you mean listen?" in text
    assert "pool[0].timeouts.connect_ms" in text


async def test_a_wrong_configuration_is_found_before_listening(tmp_path: Path) -> None:
    """With the port taken and the configuration wrong, it is the configuration that is told."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = await completed(tmp_path, "serve", "--listen", listen, "--drain-s", "-1")
    assert done.returncode == 2
    assert b"drain_s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "drain_s"), "KEY=VALUE"),
        (("--set", "drains=1"), "drain_s"),
        (("--config", "missing.toml"), "missing.toml"),
        (("--listen", "https://127.0.0.1:0"), "tls"),
        (("--log-format", "xml"), "json"),
        (("--lisen", "x"), "--listen"),
    ],
)
async def test_wrong_flags(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """Exit code 2 and a hint, whatever is wrong with the command line."""
    done = await completed(tmp_path, "serve", *arguments)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


async def test_the_port_is_taken(tmp_path: Path) -> None:
    """Exit code 1 and one sentence with the address."""
    pool_file(tmp_path, "http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await completed(tmp_path, "serve", "--listen", f"http://127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        f"triolet: cannot listen on 127.0.0.1 port {port}: Address already in use"
    ]


async def test_a_certificate_of_no_use(tmp_path: Path) -> None:
    """Exit code 1 and one sentence that names the file."""
    pool_file(tmp_path, "http://127.0.0.1:1", extra="tls = { cert = 'c.pem', key = 'c.pem' }")
    (tmp_path / "c.pem").write_text("not a certificate")
    done = await completed(tmp_path, "serve", "--listen", "https://127.0.0.1:0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr.decode()
    assert "c.pem" in done.stderr.decode()


async def test_version(tmp_path: Path) -> None:
    """`triolet --version`."""
    done = await completed(tmp_path, "--version")
    assert done.returncode == 0
    assert re.fullmatch(r"triolet, version \d+\.\d+\.\d+\S*\n", done.stdout.decode())


# --- the other command that serves


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_replica(tmp_path: Path, number: signal.Signals) -> None:
    """`triolet replica --port 0` says where it is and that it is a simulation, and can be ended."""
    options = ("--port", "0", "--model", "m", "--name", "my-name", "--tokens-per-s", "inf")
    async with started(tmp_path, "replica", *options, mark="serves model") as server:
        assert "simulation" in server.said
        async with server.client() as client:
            call = {"model": "m", "messages": [{"role": "user", "content": "Hello!"}]}
            answer = await client.post("/v1/chat/completions", json=call)
        assert "my-name" in answer.json()["choices"][0]["message"]["content"]
        server.send(number)
        assert await server.ended() == 0
    assert server.logged() == ""


async def test_a_replica_with_impossible_settings(tmp_path: Path) -> None:
    """Exit code 1 and a sentence that names the setting."""
    done = await completed(tmp_path, "replica", "--port", "0", "--tokens-per-s", "0")
    assert done.returncode == 1
    assert "tokens_per_s" in done.stderr.decode()
