"""The proxies under measurement: how each is started before the fake replicas, and when ready."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.relay.answers import MODEL
from bench.relay.children import Child, ChildFailed, free_port
from bench.relay.peers import Peer, peer_command

DIRECT: Final = "direct"
TRIOLET: Final = "triolet"
_READY_S: Final = 60.0
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Proxy:
    """One kind of proxy and how to start it."""

    name: str
    version: str
    command: Callable[[int, Path], list[str]]
    """Takes the port to listen on and a directory for files; gives the command line."""


@dataclass(frozen=True)
class Running:
    """A target that answers."""

    name: str
    port: int
    child: Child | None
    """None for the replica itself."""


def triolet(command_line: str | None, version: str, replicas: Sequence[str]) -> Proxy:
    """Triolet with everything on: health, metrics, JSON access log, request ids, timing headers.

    `command_line` takes the place of the installed `triolet serve`; `--config FILE` is added to it.
    """

    def command(port: int, directory: Path) -> list[str]:
        config = directory / f"triolet-{port}.toml"
        config.write_text(_triolet_config(port, replicas))
        given = shlex.split(command_line) if command_line else _installed_triolet()
        return [*given, "--config", str(config)]

    return Proxy(TRIOLET, version, command)


def _installed_triolet() -> list[str]:
    script = shutil.which("triolet", path=str(Path(sys.executable).parent))
    return [script, "serve"] if script else [sys.executable, "-m", "server.cli", "serve"]


def _triolet_config(port: int, replicas: Sequence[str]) -> str:
    return (
        f'listen = ["http://127.0.0.1:{port}"]\n'
        'log_format = "json"\n'
        "access_log = true\n\n"
        "[[pool]]\n"
        f"model = {json.dumps(MODEL)}\n"
        f"replicas = {json.dumps(list(replicas))}\n"
    )


def router(peer: Peer, environment: Path, replicas: Sequence[str]) -> Proxy:
    """A peer, installed in `environment`."""

    def command(port: int, directory: Path) -> list[str]:
        return peer_command(
            peer, environment, port=port, metrics_port=free_port(), replicas=replicas
        )

    return Proxy(peer.name, peer.version, command)


def start(proxy: Proxy, *, directory: Path, cores: set[int]) -> Running:
    """Start a proxy and wait until it relays an answer.

    Raises ChildFailed, with the proxy ended, if it does not within a minute.
    """
    port = free_port()
    child = Child(
        proxy.name,
        proxy.command(port, directory),
        log=directory / f"{proxy.name}-{port}.log",
        cores=cores,
        environment={"PYTHONPATH": str(_ROOT)} if proxy.name == TRIOLET else None,
    )
    try:
        _await_answer(child, port)
    except BaseException:
        child.end()
        raise
    return Running(proxy.name, port, child)


def start_fake(index: int, *, directory: Path, cores: set[int]) -> Running:
    """Start a fake replica. Raises ChildFailed if it does not say its port."""
    child = Child(
        f"fake-{index}",
        [sys.executable, "-m", "bench.relay.fake"],
        log=directory / f"fake-{index}.log",
        cores=cores,
        environment={"PYTHONPATH": str(_ROOT)},
    )
    try:
        line = child.first_line(10)
        if not line.isdigit():
            raise ChildFailed(f"{child.name} gave no port: {child.tail()}")
        return Running(DIRECT, int(line), child)
    except BaseException:
        child.end()
        raise


def _await_answer(child: Child, port: int) -> None:
    """Wait for a whole chat answer: a router may listen before it knows its replicas."""
    end_s = time.perf_counter() + _READY_S
    last = "no answer"
    while time.perf_counter() < end_s:
        child.check()
        last = _try_chat(port)
        if last == "200":
            return
        time.sleep(0.1)
    raise ChildFailed(f"{child.name} was not ready in {_READY_S:g} s ({last}): {child.tail()}")


def _try_chat(port: int) -> str:
    """The status of one chat request, or the error in words."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Ready?"}], "max_tokens": 1}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"content-type": "application/json", "connection": "close"},
        )
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
