"""The routers Triolet is compared with: pinned releases, each in its own virtual environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_INSTALL_LIMIT_S: Final = 600
_STREAMS_AT_ONCE: Final = 32_768


@dataclass(frozen=True)
class Peer:
    """One router as it comes from the package index, with its options for a fair run."""

    name: str
    version: str
    script: str
    options: Callable[[int, int], list[str]]
    """Takes the ports for requests and for metrics."""


class PeerMissing(Exception):
    """A router cannot be installed here; the message says why."""


def _vllm_options(port: int, metrics_port: int) -> list[str]:
    return [
        *_common_options(port, metrics_port),
        *("--log-level", "warning"),
        *("--max-concurrent-requests", str(_STREAMS_AT_ONCE)),
    ]


def _sglang_options(port: int, metrics_port: int) -> list[str]:
    # max-concurrent-requests is unlimited there by default.
    return ["launch", *_common_options(port, metrics_port), "--log-level", "warn"]


def _common_options(port: int, metrics_port: int) -> list[str]:
    return [
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)),
        *("--policy", "round_robin"),
    ]


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("vllm-router", "0.1.17", "vllm-router", _vllm_options),
        Peer("sglang-router", "0.3.2", "sglang-router", _sglang_options),
    )
}


def peer_command(
    peer: Peer, environment: Path, *, port: int, metrics_port: int, replicas: Sequence[str]
) -> list[str]:
    """The command line of a router in front of these replica URLs."""
    script = environment / "bin" / peer.script
    return [str(script), *peer.options(port, metrics_port), "--worker-urls", *replicas]


def install(peer: Peer, cache: Path, say: Callable[[str], None]) -> Path:
    """The virtual environment that holds the router, made on first use.

    Raises PeerMissing, and leaves nothing half made, if it cannot be installed.
    """
    environment = cache / "peers" / f"{peer.name}-{peer.version}"
    done = environment / "installed"
    if done.exists():
        return environment
    say(f"installing {peer.name} {peer.version} into {environment}")
    shutil.rmtree(environment, ignore_errors=True)
    try:
        environment.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(environment)])
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        options = ["--disable-pip-version-check", "--no-input"]
        _run([*pip, *options, f"{peer.name}=={peer.version}"])
        done.touch()
    except BaseException:
        shutil.rmtree(environment, ignore_errors=True)
        raise
    return environment


def _run(command: list[str]) -> None:
    """Run one step of an installation. Raises PeerMissing with the end of its output."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise PeerMissing(lines[-1] if lines else f"{command[0]}: code {done.returncode}")
