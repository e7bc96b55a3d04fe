"""What every trace reader can be told."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bench.workload.lines import BadLine, BadLines

__all__ = ["TraceOptions"]


class TraceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a trace is replayed, and how fast.

    Raises:
        ValueError: a value is out of range.
    """

    speedup: float = 1.0
    """Times between requests (for closed-loop traces: think times) are divided by it."""
    limit: int | None = None
    """At most so many sessions; in traces without sessions a request is one."""
    start_offset_s: float = 0.0
    """Requests before it are left out. Counted in the trace's time from its first request."""
    end_offset_s: float | None = None
    """Requests after it are left out."""
    jitter_s: float | None = None
    """Open-loop stamps are moved by U(0, jitter_s) of trace time. None: by the step that the
    stamps are rounded to, if they are (see `bench.workload.traces.timed`); 0: not at all."""
    block_tokens: int | None = None
    """Tokens of one hash block; None: what the format says."""
    seed: int = 0
    """For the jitter."""
    bad_lines: BadLines = "fail"
    on_bad_line: Callable[[BadLine], None] | None = None
    """Told of each line that was skipped; a `BadLineCount`, say."""
    namespace: str = ""
    """Prompts of two namespaces share no text; for replaying one trace beside itself."""

    def __post_init__(self) -> None:
        if not self.speedup > 0:
            raise ValueError(f"the speedup must be above 0, not {self.speedup}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"the limit must be 1 or more, not {self.limit}")
        if not self.start_offset_s >= 0:
            raise ValueError(f"the start offset must not be negative: {self.start_offset_s}")
        if self.end_offset_s is not None and self.end_offset_s < self.start_offset_s:
            raise ValueError(
                f"the end offset, {self.end_offset_s}, lies before the start offset, "
                f"{self.start_offset_s}"
            )
        if self.jitter_s is not None and not self.jitter_s >= 0:
            raise ValueError(f"the jitter must not be negative: {self.jitter_s}")
        if self.block_tokens is not None and self.block_tokens < 1:
            raise ValueError(f"a block has 1 token or more, not {self.block_tokens}")
