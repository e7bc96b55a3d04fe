"""The client's side of a call whose answer is read here: `balancer.dispatch.Client`."""

from __future__ import annotations

from typing import Final

from balancer.dispatch import Trace
from balancer.wire.http1 import Head
from balancer.wire.pump import Sink
from server.pool_models.answer import Answer
from server.workflow.services import ModelFailed, Receiver

__all__ = ["Reading"]

_MOST_BYTES: Final = 16_777_216
"""Of an answer that is no stream."""


class Reading:
    """Reads events as they come; the receiver is told within the same step, and may be slow."""

    __slots__ = ("_body", "_bytes", "_receiver", "_stream", "answer", "sink")

    def __init__(self, receiver: Receiver | None) -> None:
        self._receiver = receiver
        if receiver is None:
            self.answer = Answer()
        else:
            self.answer = Answer(receiver.text, receiver.reasoning)
        self._stream = False
        self._body: list[bytes] = []
        self._bytes = 0
        self.sink: Sink | None = None

    async def start(self, head: Head, trace: Trace, data: bytes, *, end: bool) -> None:
        self._stream = trace.stream
        self._take(data)
        if end:
            self._end()
        await self._drain()

    async def send(self, data: bytes) -> None:
        self._take(data)
        await self._drain()

    async def finish(self, data: bytes) -> None:
        self._take(data)
        self._end()
        await self._drain()

    async def _drain(self) -> None:
        if self._receiver is not None:
            await self._receiver.drain()

    def _take(self, data: bytes) -> None:
        if self._stream:
            self.answer.feed(data)
            return
        self._bytes += len(data)
        if self._bytes > _MOST_BYTES:
            raise ModelFailed(
                f"the answer has more than {_MOST_BYTES:,} bytes", "InvokeServerUnavailableError"
            )
        self._body.append(data)

    def _end(self) -> None:
        if not self._stream:
            self.answer.read(b"".join(self._body))
            self._body.clear()
        elif not self.answer.ended:
            raise ModelFailed(
                "the answer broke off: its stream ended without a finish_reason and without [DONE]",
                "InvokeConnectionError",
            )
