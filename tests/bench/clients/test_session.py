"""The order of runs and what a failing client does to the others."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.clients.registry import Client
from bench.clients.result import ClientFailed, Load, Result, Times
from bench.clients.server import Seen, Served
from bench.clients.session import run_clients


class Still(Served):
    """A server that nobody asks anything."""

    def look(self) -> Seen:
        return Seen(*[0.0] * len(Seen._fields))


def client(name: str, *, script: str = "", readable: bool = True) -> Client:
    """A client that runs a line of Python."""

    def read(out: Path, load: Load) -> Result:
        if not readable:
            raise ClientFailed("no result was written")
        return Result(client=name, sent=load.requests, errors=0, times=Times())

    return Client(
        name,
        "1",
        lambda load, url, out: [sys.executable, "-c", script],
        lambda load: {},
        read,
    )


def run(clients: list[Client], place: Path, repeat: int) -> tuple[list[tuple[int, str]], list[str]]:
    """What ran, and what failed."""
    failures: list[str] = []
    runs = run_clients(
        clients,
        Load(),
        Still("http://127.0.0.1:1", ()),
        repeat=repeat,
        directory=place,
        say=lambda text: None,
        failures=failures,
    )
    return [(one.repetition, one.result.client) for one in runs], failures


def test_order_is_reversed_each_time(tmp_path: Path) -> None:
    """There and back: what drifts falls on all alike."""
    ran, failures = run([client("a"), client("b")], tmp_path, 3)
    assert ran == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    assert failures == []


def test_failing_client_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    """Neither a bad end nor a missing result passes for a run."""
    clients = [
        client("bad", script="import sys; sys.exit('it broke')"),
        client("mute", readable=False),
        client("good"),
    ]
    ran, failures = run(clients, tmp_path, 1)
    assert ran == [(0, "good")]
    assert failures == [
        "bad, repetition 1: ended with code 1: it broke",
        "mute, repetition 1: no result was written",
    ]
