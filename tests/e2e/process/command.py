"""`triolet …` as a real process: started as a person starts it, in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from balancer.probes.discovery import USUAL_PORTS

__all__ = ["Server", "completed", "environment", "pool_file", "serving", "spawned", "started"]

ROOT: Final = Path(__file__).resolve().parents[3]
_MODULE: Final = ["-m", "server.cli"]
_WITHOUT_DISCOVERY: Final = [
    "-c",
    "from balancer.probes import discovery; discovery.USUAL_PORTS.clear(); "
    "from server.cli import main; main()",
]
_START_S: Final = 20.0
_END_S: Final = 10.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without any TRIOLET_ variable, and able to import the tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIOLET_")}
    return {**kept, "PYTHONPATH": str(ROOT), **(extra or {})}


def _engine_here() -> bool:
    """Whether somebody listens on a port where Triolet would look for an engine."""
    for port in USUAL_PORTS.values():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
    return False


def _command(arguments: Sequence[str], *, demo: bool) -> list[str]:
    # A person's own Ollama must not turn a test of the demo into a test of Ollama.
    program = _WITHOUT_DISCOVERY if demo and _engine_here() else _MODULE
    return [sys.executable, *program, *arguments]


def pool_file(directory: Path, *urls: str, model: str = "scripted", extra: str = "") -> Path:
    """Write a triolet.toml with one pool of these replicas."""
    file = directory / "triolet.toml"
    file.write_text(f'{extra}\n[[pool]]\nmodel = "{model}"\nreplicas = {json.dumps(urls)}\n')
    return file


async def completed(
    directory: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    with trio.fail_after(_START_S):
        return await trio.run_process(
            _command(arguments, demo=False),
            cwd=directory,
            env=environment(environ),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


class Server:
    """A process that serves. Its log goes to a file, `log`."""

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.said = ""
        self.url = ""

    async def read_until(self, mark: str) -> None:
        """Read stdout up to the end of a line that contains `mark`, and find the URL."""
        assert self.process.stdout is not None
        with trio.fail_after(_START_S):
            while mark not in self.said or not self.said.endswith("\n"):
                data = await self.process.stdout.receive_some()
                assert data, f"it ended, saying {self.said!r} and logging {self.logged()!r}"
                self.said += data.decode()
        place = self.said.index("http")
        self.url = self.said[place:].split()[0].rstrip(",")

    def logged(self) -> str:
        """The log so far."""
        return self.log.read_text() if self.log.exists() else ""

    def exchanges(self) -> list[dict[str, Any]]:
        """Its lines of exchanges, where it logs JSON."""
        lines = [json.loads(line) for line in self.logged().splitlines()]
        return [line for line in lines if line["event"] == "exchange"]

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self, within_s: float = _END_S) -> int:
        """Wait for the end; the exit code."""
        with trio.fail_after(within_s):
            return await self.process.wait()

    def client(self) -> httpx.AsyncClient:
        """An HTTP client with its base URL."""
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10)


@asynccontextmanager
async def spawned(
    directory: Path,
    *arguments: str,
    demo: bool = False,
    stdout: int = subprocess.PIPE,
    stderr: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """A command that goes on, ended at the end in any case. `stderr` is a file if not given."""
    log = directory / "stderr.log"
    with log.open("ab") as log_file:
        process = await trio.lowlevel.open_process(
            _command(arguments, demo=demo),
            cwd=directory,
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=log_file if stderr is None else stderr,
        )
    try:
        yield Server(process, log)
    finally:
        process.kill()
        with trio.fail_after(_END_S, shield=True):
            await process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                await pipe.aclose()


@asynccontextmanager
async def started(
    directory: Path, *arguments: str, mark: str, **options: Any
) -> AsyncIterator[Server]:
    """The same, ready once it says `mark`."""
    async with spawned(directory, *arguments, **options) as server:
        await server.read_until(mark)
        yield server


@asynccontextmanager
async def serving(directory: Path, *arguments: str, **options: Any) -> AsyncIterator[Server]:
    """`triolet serve` on a free port."""
    listen = ("serve", "--listen", "http://127.0.0.1:0", *arguments)
    async with started(directory, *listen, mark="curl ", **options) as server:
        yield server
