"""Each tool is installed once, in a virtual environment of its own, below a cache directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench import installation
from bench.installation import NotInstalled

__all__ = ["TOOLS", "Tool", "install"]


class Tool(NamedTuple):
    """One load client as the package index has it."""

    name: str
    """Also the name of its program."""
    version: str
    more: tuple[str, ...] = ()
    """What it needs beside itself, pinned."""
    instead: tuple[str, ...] = ()
    """The same for an index that lacks some of `more`."""

    def program(self, home: Path) -> Path:
        """What to run, of the tool installed in `home`."""
        return home / "bin" / self.name


TOOLS: Final = {
    tool.name: tool
    for tool in (
        Tool("aiperf", "0.13.0"),
        # Its engine, and what that is linked against: see bench.clients.perf_analyzer.
        Tool("genai-perf", "0.0.16", more=("nvidia-cuda-runtime-cu12==12.9.79",)),
        # The usual build of torch brings gigabytes for GPUs, of no use to a load client; not every
        # index has the other.
        Tool("guidellm", "0.8.1", more=("torch==2.13.0+cpu",), instead=("torch==2.13.0",)),
        Tool("locust", "2.47.0"),
    )
}


def install(
    tool: Tool,
    cache: Path,
    say: Callable[[str], None],
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """The environment that holds the tool, made on first use; `finish` adds what pip cannot.

    Raises NotInstalled, and leaves nothing half made, if it cannot be installed.
    """

    def make(home: Path) -> None:
        installation.make_environment(home)
        _pip_install(tool, home)
        if finish is not None:
            finish(home)

    home = cache / "clients" / f"{tool.name}-{tool.version}"
    what = f"installing {tool.name} {tool.version} into {home}; this takes minutes"
    return installation.made_once(home, make, lambda: say(what))


def _pip_install(tool: Tool, home: Path) -> None:
    wanted = f"{tool.name}=={tool.version}"
    try:
        installation.pip_install(home, wanted, *tool.more)
    except NotInstalled:
        if not tool.instead:
            raise
        installation.pip_install(home, wanted, *tool.instead)
