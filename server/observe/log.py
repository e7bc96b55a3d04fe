"""Log lines without ever waiting for their reader.

A pipe that nobody empties blocks whoever writes to it. So lines are kept in memory, one task hands
them to a thread in batches, and when the reader is too slow lines are dropped and counted: the
streams do not wait for the log.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Literal

import msgspec
import trio

from server.observe.record import Record

__all__ = ["AccessLog", "LineWriter", "LogFormat", "logging_to"]

LogFormat = Literal["text", "json"]

_LINES: Final = 20_000
_PAUSE_S: Final = 0.05


class LineWriter:
    """Collects lines, from any thread, and writes them from one, at most every 50 ms.

    `dropped` counts the lines lost over 20,000 unwritten ones.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.dropped = 0
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._some = trio.Event()
        self._woken = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = trio.CapacityLimiter(1)

    def write(self, line: bytes) -> None:
        """Take one line, without its end. Never waits, never raises."""
        if len(self._lines) >= _LINES:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._woken and self._token is not None:
            self._woken = True
            try:
                self._token.run_sync_soon(self._wake)
            except trio.RunFinishedError:
                self._token = None  # the loop is gone, and with it whoever would write

    def _wake(self) -> None:
        self._some.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; then write what is left, for at most a second."""
        self._token = trio.lowlevel.current_trio_token()
        task_status.started()
        try:
            while True:
                if not self._lines:
                    await self._some.wait()
                self._some, self._woken = trio.Event(), False
                await self._write_all()
                await trio.sleep(_PAUSE_S)
        finally:
            with trio.move_on_after(1.0, shield=True):
                await self._write_all()

    async def _write_all(self) -> None:
        if self._lines or self._thread.borrowed_tokens:
            # A write to a full pipe cannot be interrupted: at the end the thread is left behind.
            await trio.to_thread.run_sync(
                self._write_now, limiter=self._thread, abandon_on_cancel=True
            )

    def _write_now(self) -> None:
        """In the thread, which takes the lines itself: what it has not taken is not lost."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        try:
            self._stream.write(b"\n".join((*lines, b"")))
            self._stream.flush()
        except (OSError, ValueError):
            # The reader of our log is gone: there is nobody left to tell.
            self.dropped += len(lines)


class _Line(msgspec.Struct, omit_defaults=True, gc=False):
    """The JSON form of one exchange; the keys are documented in `docs/reference/logs.md`."""

    time: str
    level: str
    event: str
    request_id: str
    client: str
    method: str
    path: str
    status: int
    outcome: str
    duration_ms: float
    model: str | None = None
    replica: str | None = None
    attempts: int | None = None
    queue_ms: float | None = None
    ttft_ms: float | None = None
    stream: bool | None = None
    events: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tier: str | None = None
    fell_back_from: Sequence[str] | None = None
    hedge: str | None = None
    put_backs: int | None = None


_encode_line: Final = msgspec.json.Encoder().encode


class AccessLog:
    """One line for each exchange, when it ends."""

    def __init__(self, writer: LineWriter, form: LogFormat, *, enabled: bool = True) -> None:
        self._write = writer.write
        self._form = form
        self._enabled = enabled

    def write(self, record: Record) -> None:
        if self._enabled:
            self._write(_json_line(record) if self._form == "json" else _text_line(record))


def _timestamp() -> str:
    now = time.time()
    second = int(now)
    return f"{_second(second)}.{int((now - second) * 1000):03d}Z"


_seconds: dict[int, str] = {}


def _second(second: int) -> str:
    text = _seconds.get(second)
    if text is None:
        _seconds.clear()
        text = _seconds[second] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return text


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _json_line(record: Record) -> bytes:
    usage = record.usage
    return _encode_line(
        _Line(
            _timestamp(),
            "info",
            "exchange",
            record.request_id,
            record.client,
            record.method,
            record.path,
            record.status,
            record.outcome,
            _ms(record.duration_s) or 0.0,
            record.model,
            record.replica,
            record.attempts or None,
            _ms(record.queued_s),
            _ms(record.ttft_s),
            record.stream or None,
            record.events or None,
            usage.prompt_tokens if usage else None,
            usage.completion_tokens if usage else None,
            usage.cached_tokens if usage else None,
            None if record.decision is None else record.decision.tier,
            record.fell_back_from or None,
            record.hedge,
            record.put_backs or None,
        )
    )


def _text_line(record: Record) -> bytes:
    parts = [
        f"{_timestamp()} {record.client} {record.method} {record.path}",
        f"{record.status} {record.outcome} {_ms(record.duration_s) or 0.0:.1f}ms",
    ]
    if record.model is not None:
        parts.append(f"model={record.model}")
    if record.replica is not None:
        parts.append(f"replica={record.replica} attempts={record.attempts}")
    if record.fell_back_from:
        parts.append(f"fell_back_from={','.join(record.fell_back_from)}")
    if record.hedge is not None:
        parts.append(f"hedge={record.hedge}")
    if record.ttft_s is not None:
        parts.append(f"ttft={record.ttft_s * 1000:.1f}ms")
    if record.usage is not None and record.usage.completion_tokens is not None:
        parts.append(f"tokens={record.usage.prompt_tokens}+{record.usage.completion_tokens}")
    parts.append(f"id={record.request_id}")
    # A path may hold anything a client likes: it must not end our line or write to a terminal.
    return " ".join(parts).encode("unicode_escape")


class _Handler(logging.Handler):
    def __init__(self, writer: LineWriter, form: LogFormat) -> None:
        super().__init__()
        self._writer = writer
        self._form = form
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._writer.write(self._line(record, text))

    def _line(self, record: logging.LogRecord, text: str) -> bytes:
        # What came from outside may hold halves of characters, which UTF-8 cannot say.
        text = text.encode(errors="backslashreplace").decode()
        if self._form == "text":
            return f"{_timestamp()} {record.levelname.lower()} {record.name}: {text}".encode()
        fields: dict[str, Any] = {
            "time": _timestamp(),
            "level": record.levelname.lower(),
            "event": "message",
            "logger": record.name,
            "message": text,
        }
        return _encode_line(fields)


@contextmanager
def logging_to(writer: LineWriter, form: LogFormat, level: int = logging.INFO) -> Iterator[None]:
    """Send the records of the standard logging module through `writer`, in `form`, meanwhile."""
    root = logging.getLogger()
    handlers, old_level = root.handlers, root.level
    root.handlers = [_Handler(writer, form)]
    root.setLevel(level)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(old_level)
