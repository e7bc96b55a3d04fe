"""Locks a process up, then makes it another program. Run as `python -I -S`, by the program's own
client, which believes that it starts the program itself.

`sys.argv[1]` holds the settings: the program's `path`, the `parent` that it dies with, folders that
are `readable` beside the system's libraries, `memory_bytes` of address space beyond what this
process has. What follows are the program's arguments. It gets no environment.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from server.sandbox import lockdown
from server.sandbox.filter import PROGRAM_FD

__all__ = ["main"]

_MOST_FILES = 1 << 20


def main() -> None:
    """Does not return. Where a lock does not close, says so and exits."""
    settings = json.loads(sys.argv[1])
    try:
        _launch(settings, [settings["path"], *sys.argv[2:]])
    except OSError as error:
        sys.exit(f"triolet: {settings['path']} could not be locked down: {error}")


def _launch(settings: dict[str, Any], command: list[str]) -> None:
    os.closerange(3, _MOST_FILES)
    os.chdir("/")
    lockdown.step_back()
    locks = lockdown.make_for_program(settings["path"], settings["readable"])
    # Opened while we are who we were: another user may be unable to come by.
    program = os.open(settings["path"], os.O_RDONLY)
    os.dup2(program, PROGRAM_FD, inheritable=False)
    quiet = os.open(os.devnull, os.O_WRONLY)
    memory_bytes, parent = settings["memory_bytes"], settings["parent"]
    lockdown.close(locks, memory_bytes=memory_bytes, cpu_s=None, parent=parent)
    os.dup2(quiet, 2)
    os.execve(PROGRAM_FD, command, {})
