"""What the sandbox may use: limits per call, how many calls at once, what code is allowed."""

from __future__ import annotations

import msgspec

from server.workflow.code_outputs import OutputLimits

__all__ = ["CallLimits", "SandboxOptions"]


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one call. What is over one of them is a `CodeFailed`."""

    time_s: float
    """From when the work is handed over; the process is killed then."""
    memory_bytes: int
    """Address space beyond what the process starts with."""
    input_bytes: int
    output_bytes: int


class SandboxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The table `[code]`, and what templates and documents may use."""

    enabled: bool = False
    """Whether code nodes run at all; templates and documents do in any case."""
    network: bool = False
    """Whether code may open connections, to anywhere that this machine reaches."""
    packages: tuple[str, ...] = ()
    """Installed packages that code may import beside the standard library, such as "pandas". With
    `network`, "requests" is among them; "json_repair" always is."""
    monty: bool = True
    """Whether simple Python goes to Monty where it is installed; it is faster than a process."""
    strict: bool = False
    """Refuse to run anything where the kernel cannot lock processes down (seccomp, Landlock)."""
    workers: int = 4
    """Calls of one kind (code, templates, documents) at the same time; others wait in line."""
    idle_workers: int = 2
    """Processes kept forked ahead of need, for code."""
    outputs: OutputLimits = OutputLimits()
    """What a code node may give out."""
    code: CallLimits = CallLimits(
        time_s=10.0, memory_bytes=256 << 20, input_bytes=8 << 20, output_bytes=1 << 20
    )
    templates: CallLimits = CallLimits(
        time_s=2.0, memory_bytes=128 << 20, input_bytes=8 << 20, output_bytes=4 << 20
    )
    documents: CallLimits = CallLimits(
        time_s=60.0, memory_bytes=1 << 30, input_bytes=64 << 20, output_bytes=16 << 20
    )
