"""The command `triolet gpu-agent`."""

from __future__ import annotations

import sys

import click

__all__ = ["gpu_agent"]

_FAILED = 1


@click.command("gpu-agent")
@click.option(
    "--listen",
    default="http://127.0.0.1:8747",
    show_default=True,
    metavar="URL",
    help="Address to listen on; http://0.0.0.0:8747 for a Triolet on another machine.",
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1, max=60),
    default=1.0,
    show_default=True,
    help="Seconds between samples.",
)
def gpu_agent(listen: str, interval_s: float) -> None:
    """Publish this machine's GPUs for a Triolet on another one."""
    from server.config import parse_listen
    from server.gpu_agent import run_agent

    try:
        address = parse_listen(listen)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--listen") from exc
    if address.scheme != "http":
        raise click.BadParameter("the agent speaks plain http only", param_hint="--listen")
    try:
        run_agent(address, interval_s)
    except OSError as exc:
        click.echo(f"triolet: {exc.strerror or exc}", err=True)
        sys.exit(_FAILED)
