"""The proxies under measurement: how each is started before the fake replicas, and when ready."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.gateway import Gateway
from bench.peers.ready import await_answer
from bench.peers.triolet import TRIOLET, serve_command, serve_config
from bench.relay.answers import MODEL
from bench.relay.children import Child, ChildFailed, free_port
from bench.relay.peers import peer_command

__all__ = ["DIRECT", "TRIOLET", "Proxy", "Running", "router", "start", "start_fake", "triolet"]

DIRECT: Final = "direct"
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
        config.write_text(serve_config(port=port, model=MODEL, replicas=replicas, access_log=True))
        return [*serve_command(command_line), "--config", str(config)]

    return Proxy(TRIOLET, version, command)


def router(peer: Gateway, environment: Path, replicas: Sequence[str]) -> Proxy:
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
        await_answer(child, port, MODEL)
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
