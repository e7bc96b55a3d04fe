"""Events to the terminal. What is written goes out in a thread: a reader that is slow holds up the
run that it reads, and nothing else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import msgspec
import trio

from server.timeline import Moment
from server.workflow.events import AgentLog, Chunk, Event, InputRequired, NodeFinished, NodeRetried
from server.workflow.values import File, Value, plain

__all__ = ["Output", "TerminalSink", "result_json", "value_text"]

_MOST_UNWRITTEN: Final = 65_536
"""Bytes after which a run waits for its reader."""

_MOST_MOMENTS: Final = 200_000
"""Events that are kept for the timeline."""


class Output:
    """Standard output: `run` writes what `put` was given, `drain` waits until most is out."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream or _standard_output()
        self._unwritten = bytearray()
        self._more = trio.Event()
        self._less = trio.Event()
        self.broken = self._stream is None
        """Nobody reads any more, or it cannot be written."""
        self.fault: str | None = None
        """Why it could not be written, unless its reader just went away."""

    def put(self, text: str) -> None:
        """Say something. Synchronous; kept until it is written."""
        if not self.broken:
            self._unwritten += text.encode("utf-8", "replace")
            self._more.set()

    async def drain(self, most: int = _MOST_UNWRITTEN) -> None:
        """Return once no more than so many bytes are left to write."""
        await trio.lowlevel.checkpoint()
        while len(self._unwritten) > most and not self.broken:
            self._less = trio.Event()
            await self._less.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._unwritten:
                data = bytes(self._unwritten)
                try:
                    await trio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)
                except OSError as exc:
                    self.broken = True
                    if not isinstance(exc, BrokenPipeError):
                        self.fault = exc.strerror or str(exc)
                    self._unwritten.clear()
                del self._unwritten[: len(data)]
                self._less.set()

    def _write(self, data: bytes) -> None:
        assert self._stream is not None, "nothing is put where nothing can be written"
        self._stream.write(data)
        self._stream.flush()


def _standard_output() -> BinaryIO | None:
    """None where the process was started with it closed."""
    return sys.stdout.buffer if sys.stdout is not None else None


class TerminalSink:
    """What one run says, shown as asked: its text, its events as JSON lines, or nothing; and kept
    for the timeline if that is wanted."""

    def __init__(
        self,
        output: Output,
        *,
        events: bool = False,
        text: bool = False,
        keeps: bool = False,
        on_form: Callable[[InputRequired], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self._output = output
        self._events = events
        self._text = text
        self._keeps = keeps
        self._on_form = on_form
        self._on_note = on_note
        self.moments: list[Moment] = []
        self.streamed: list[str] = []
        """The text that was shown."""

    def put(self, event: Event) -> None:
        """See `Sink`."""
        if self._keeps and len(self.moments) < _MOST_MOMENTS:
            self.moments.append((time.time(), event))
        if self._events:
            self._output.put(_line(event))
        if isinstance(event, Chunk):
            if self._text:
                self.streamed.append(event.text)
                self._output.put(event.text)
        elif isinstance(event, InputRequired):
            if self._on_form is not None:
                self._on_form(event)
        elif self._on_note is not None and (note := _note(event)) is not None:
            self._on_note(note)

    async def drain(self) -> None:
        """See `Sink`."""
        await self._output.drain()


def _note(event: Event) -> str | None:
    """What somebody at a terminal should know while a run goes on."""
    match event:
        case NodeRetried():
            return f"{event.title}: {event.error} (attempt {event.retry_index} failed, again)"
        case NodeFinished(status="exception"):
            return f"{event.title}: {event.error} (the run goes on)"
        case AgentLog(status="error"):
            return f"{event.title}: {event.label}: {event.error}"
    return None


def _line(event: Event) -> str:
    return _json(event).decode() + "\n"


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=_encoded)
    except UnicodeEncodeError:  # half a character: an argument that was no UTF-8, say
        plainly = msgspec.to_builtins(value, enc_hook=_encoded)
        return json.dumps(plainly, ensure_ascii=False).encode("utf-8", "replace")


def _encoded(value: object) -> Any:
    # Whatever a node put into its outputs that JSON does not have: better read than lost.
    return value.as_dict() if isinstance(value, File) else str(value)


def result_json(fields: dict[str, Any]) -> str:
    """One object, for programs."""
    return _json(plain(fields)).decode() + "\n"


def value_text(outputs: dict[str, Value]) -> str:
    """The outputs of a workflow for people: a text as it is, anything else as JSON."""
    if len(outputs) == 1 and isinstance(only := next(iter(outputs.values())), str):
        return only
    return msgspec.json.format(_json(plain(outputs)), indent=2).decode()
