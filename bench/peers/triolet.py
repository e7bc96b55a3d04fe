"""Triolet itself, as a user starts it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from balancer.policies import PolicyName
from bench.peers.gateway import Gateway, Place, Setup

__all__ = ["TRIOLET", "serve_command", "serve_config", "triolet"]

TRIOLET: Final = "triolet"
_ROOT: Final = Path(__file__).parents[2]


def triolet(command_line: str | None = None) -> Gateway:
    """Triolet with its logs off, as its peers. `command_line` as for `serve_command`."""

    def setup(place: Place, policy: str) -> Setup:
        config = place.directory / "triolet.toml"
        content = serve_config(
            port=place.port,
            model=place.model,
            replicas=place.replicas,
            policy=policy,
            access_log=False,
        )
        return Setup(
            [*serve_command(command_line), "--config", str(config)],
            environment={"PYTHONPATH": str(_ROOT)},
            files={config: content},
        )

    # The configuration names its default first.
    return Gateway(TRIOLET, None, get_args(PolicyName), setup, "one process, one thread")


def serve_command(command_line: str | None) -> list[str]:
    """How Triolet is started; `command_line` takes the place of the installed `triolet serve`."""
    if command_line:
        return shlex.split(command_line)
    script = shutil.which("triolet", path=str(Path(sys.executable).parent))
    return [script, "serve"] if script else [sys.executable, "-m", "server.cli", "serve"]


def serve_config(
    *,
    port: int,
    model: str,
    replicas: Sequence[str],
    access_log: bool,
    policy: str | None = None,
) -> str:
    """A configuration with one pool; `policy` None is the default."""
    chosen = f"policy = {json.dumps(policy)}\n" if policy else ""
    return (
        f'listen = ["http://127.0.0.1:{port}"]\n'
        'log_format = "json"\n'
        f"access_log = {json.dumps(access_log)}\n\n"
        "[[pool]]\n"
        f"model = {json.dumps(model)}\n"
        f"{chosen}"
        f"replicas = {json.dumps(list(replicas))}\n"
    )
