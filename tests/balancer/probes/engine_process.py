"""An engine as the process table sees it: one process listens, its child would have the GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["engine"]

LISTENER = """
import os, socket, sys
sock = socket.create_server(("127.0.0.1", 0))
worker = os.fork()
if worker == 0:
    sock.close()
    sys.stdin.read()
    os._exit(0)
print(sock.getsockname()[1], worker, flush=True)
sys.stdin.read()
os.waitpid(worker, 0)
"""


@contextmanager
def engine() -> Iterator[tuple[int, int, int]]:
    """A process that listens, with a child that does not: port, its pid, the child's."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port, worker = map(int, process.stdout.readline().split())
        try:
            yield port, process.pid, worker
        finally:
            process.communicate(timeout=10)
