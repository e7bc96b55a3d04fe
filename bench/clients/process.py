"""One run of a client as a process: its output in a file, its children ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.clients.result import ClientFailed

__all__ = ["offline_environment", "run_client"]

_TAIL_BYTES: Final = 2_000
_END_S: Final = 10.0
_GONE_S: Final = 5.0
_LOOK_S: Final = 0.01


def offline_environment(home: Path, hub: Path) -> dict[str, str]:
    """What keeps a tool off the network, and its files in `home`; `hub` holds the tokenizer."""
    return {
        "HOME": str(home),
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        # A proxy of the user's is not for loopback.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def run_client(
    command: Sequence[str], environment: Mapping[str, str], *, log: Path, limit_s: float
) -> None:
    """Run a client to its end, with `environment` over this process's own.

    Raises ClientFailed with the end of its output if it fails, or takes longer than `limit_s`; it
    and what it started are then ended.
    """
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                # A group of its own: some clients are a dozen processes.
                start_new_session=True,
            )
        except OSError as error:
            raise ClientFailed(f"cannot start {command[0]}: {error.strerror}") from error
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise ClientFailed(f"not done within {limit_s:g} s: {_tail(log)}") from error
        finally:
            _end_group(process)
    if code:
        raise ClientFailed(f"ended with code {code}: {_tail(log)}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for what is left of the group, also when its first has ended.

    Returns when all are gone, so that they do not disturb the next client.
    """
    _signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    end_s = time.perf_counter() + _GONE_S
    while _signal_group(process, 0) and time.perf_counter() < end_s:
        time.sleep(_LOOK_S)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Whether there was anyone left to get the signal."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _tail(log: Path) -> str:
    text = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
    return text or "(it printed nothing)"
