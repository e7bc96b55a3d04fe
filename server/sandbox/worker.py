"""What a fork does: lock itself up, say so, take one job, answer, and end."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

from server.sandbox import frames, lockdown

__all__ = ["JOBS", "Failed", "serve"]

JOBS: Final = {
    "python3": "server.sandbox.python_job",
    "javascript": "server.sandbox.javascript",
    "template": "server.sandbox.jinja_worker",
    "document": "server.sandbox.document_text",
}
"""Each has `work(head, body) -> bytes`, and `prepare()` to load what it needs before forks."""


class Failed(Exception):
    """The work could not be done, for a reason that its user is told. `type` is for those who
    tell errors apart; empty, it is what all errors of this kind of work are."""

    def __init__(self, message: str, type: str = "") -> None:
        super().__init__(message)
        self.type = type


def serve(fd: int, locks: lockdown.Locks, settings: dict[str, Any], parent: int) -> None:
    """Never returns to the code of the process that forked."""
    memory_bytes, cpu_s = settings["memory_bytes"], settings["cpu_s"]
    lockdown.close(locks, memory_bytes=memory_bytes, cpu_s=cpu_s, parent=parent)
    os.write(fd, frames.HELLO.pack(os.getpid()))
    head, body = frames.receive(fd)
    try:
        answer = importlib.import_module(JOBS[head["job"]]).work(head, body)
    except BaseException as error:  # noqa: ASYNC103 - no Trio here: a process of its own
        _refuse(fd, error)
        return  # noqa: ASYNC104
    if len(answer) > head["output_bytes"]:
        _refuse(fd, Failed(f"the result is larger than {head['output_bytes']} bytes"))
        return
    frames.send(fd, {"ok": True}, answer)


def _refuse(fd: int, error: BaseException) -> None:
    kind = ""
    if isinstance(error, Failed):
        text, kind = str(error), error.type
    elif isinstance(error, MemoryError):
        text = "out of memory"
    else:
        text = f"{type(error).__name__}: {error}"
    frames.send(fd, {"ok": False, "error": text[:4000], "type": kind[:100]})
