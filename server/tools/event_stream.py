"""Server-sent events with their names, read from bytes as they come. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["EventStream", "EventTooLong", "ServerEvent"]

MOST_BYTES: Final = 8 * 1024 * 1024
_LINE_END: Final = re.compile(rb"[\r\n]")


class EventTooLong(ValueError):
    """An event, or a line of one, without an end."""


class ServerEvent(NamedTuple):
    name: str
    data: str
    id: str = ""


class EventStream:
    """`feed` it bytes; it gives the events that they complete. Lines end with LF, CRLF or CR."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._looked_at = 0
        self._lines: list[str] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Raises `EventTooLong`."""
        self._held += data
        while (line := self._next_line()) is not None:
            self._size += len(line)
            if line:
                self._lines.append(line)
            elif event := self._event():
                yield event
        if len(self._held) + self._size > MOST_BYTES:
            raise EventTooLong(f"an event is longer than {MOST_BYTES} bytes")

    def _next_line(self) -> str | None:
        """The next whole line. A CR is an end at once; the LF that may follow it is skipped."""
        held = self._held
        if self._after_cr and held:
            self._after_cr = False
            if held.startswith(b"\n"):
                del held[:1]
        found = _LINE_END.search(held, self._looked_at)
        if found is None:
            self._looked_at = len(held)
            return None
        end = found.start()
        line = held[:end].decode("utf-8", "replace")
        self._after_cr = held[end] == 0x0D
        del held[: end + 1]
        self._looked_at = 0
        return line

    def _event(self) -> ServerEvent | None:
        name, id, data = "message", "", []
        for line in self._lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
            elif field == "id":
                id = value
        self._lines, self._size = [], 0
        return ServerEvent(name, "\n".join(data), id) if data else None
