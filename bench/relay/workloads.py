"""What is sent: the seven workloads, in full and in a quick form, and the bytes of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Final

from bench.relay.answers import MODEL, events_per_stream

PLAIN: Final = "no-stream"
SATURATED: Final = "saturated"
PACED_32: Final = "paced-32"
PACED_256: Final = "paced-256"
STAGGERED_32: Final = "staggered-32"
STAGGERED_256: Final = "staggered-256"
HELD: Final = "held"


@dataclass(frozen=True)
class Workload:
    """One kind of traffic."""

    name: str
    lanes: int
    """Requests in flight."""
    tokens: int
    stream: bool = True
    pace_ms: int = 0
    """Between the tokens of a stream; 0 as fast as can be."""
    staggered: bool = False
    """Each stream by its own clock; otherwise all in step, as an engine that batches sends."""
    requests: int = 0
    """How many are measured; 0 where a time is measured instead."""
    window_s: float = 0.0
    """How long streams are measured while they run."""
    ramp_s: float = 0.0
    """Over how long streams are opened, where they are opened once and held."""

    @property
    def events(self) -> int:
        """SSE events of one whole answer; 0 if it is not streamed."""
        return events_per_stream(self.tokens) if self.stream else 0

    @property
    def stream_s(self) -> float:
        """How long one stream takes at its pace."""
        return self.tokens * self.pace_ms / 1000

    @property
    def title(self) -> str:
        """The workload in words."""
        if not self.stream:
            return f"no stream, {self.lanes} at once"
        pace = f"{self.pace_ms} ms a token" if self.pace_ms else "saturated"
        clock = "staggered" if self.staggered else "in step"
        return f"{self.tokens}-token streams, {pace}, {clock}, {self.lanes} at once"


MEASURED: Final = (
    Workload(PLAIN, lanes=32, tokens=32, stream=False, requests=10_000),
    Workload(SATURATED, lanes=32, tokens=32, requests=2_500),
    Workload(PACED_32, lanes=32, tokens=64, pace_ms=20, window_s=3),
    Workload(PACED_256, lanes=256, tokens=64, pace_ms=20, window_s=3),
    Workload(STAGGERED_32, lanes=32, tokens=64, pace_ms=20, staggered=True, window_s=3),
    Workload(STAGGERED_256, lanes=256, tokens=64, pace_ms=20, staggered=True, window_s=3),
)
HELD_OPEN: Final = Workload(
    HELD, lanes=2_000, tokens=16, pace_ms=1_000, staggered=True, window_s=3, ramp_s=8
)
NAMES: Final = (*(workload.name for workload in MEASURED), HELD)
PROFILED: Final = frozenset({PLAIN, SATURATED, PACED_32, STAGGERED_32})


def measured(*, quick: bool) -> tuple[Workload, ...]:
    """The workloads that are repeated; the quick ones only show that all of it works."""
    if not quick:
        return MEASURED
    return tuple(
        replace(
            workload,
            requests=workload.requests // 10,
            window_s=workload.window_s / 4,
            tokens=min(workload.tokens, 32),
        )
        for workload in MEASURED
    )


def held(*, quick: bool) -> Workload:
    """The streams that are held open to see what they cost in memory."""
    return replace(HELD_OPEN, lanes=200, tokens=4, window_s=0.5, ramp_s=1) if quick else HELD_OPEN


def request_bytes(workload: Workload, *, port: int, prompt_bytes: int) -> bytes:
    """The request of a workload, head and body, as an OpenAI client sends it."""
    sentence = "The quick brown fox jumps over the lazy dog and comes back for more. "
    pace = f"pace={workload.pace_ms}ms" + (" staggered" if workload.staggered else "")
    prompt = (sentence * (prompt_bytes // len(sentence) + 1))[:prompt_bytes]
    content: dict[str, object] = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": f"You are a replica. {pace}"},
            {"role": "user", "content": prompt},
        ],
        "max_tokens": workload.tokens,
        "temperature": 0.7,
        "stream": workload.stream,
    }
    body = json.dumps(content, separators=(",", ":")).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        "accept: application/json\r\naccept-encoding: identity\r\nuser-agent: triolet-bench\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
