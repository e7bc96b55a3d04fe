"""Server-sent events, as bytes: where one ends, how many there were, what the last ones said.

A relay forwards whole events only. Then a replica that dies in the middle of one leaves no half
event on the client's side, and an error event of ours can follow at any time. Nothing is decoded.

The WHATWG rules: lines end with LF, CRLF or CR, an empty line ends an event. Engines write LF or
CRLF; a lone CR as a line end is accepted by no engine and no common client, and not by us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = [
    "ByteTap",
    "EventTap",
    "Tap",
    "TapOverflow",
    "data_of",
    "events_of",
    "is_comment",
    "latest_event",
]

HELD_BYTES: Final = 1_048_576
"""The longest event: one without an end after this many bytes is the replica's fault."""

_BOUNDARY: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(rb"\r?\n")


class TapOverflow(Exception):
    """An event grew past `HELD_BYTES` without ending."""


class EventTap:
    """Lets whole events through and keeps the tail; counts them and remembers the latest.

    `recent` is the latest passed bytes, at least the last two events if they came apart: the one
    with `usage` and `[DONE]`.
    """

    __slots__ = ("_joint", "_last", "_previous", "_tail", "_tail_bytes", "events")

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._joint = b""
        self._last = b""
        self._previous = b""
        self.events = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes up to the end of the last whole event; may be empty."""
        if self._tail:
            if not self._ends_event(data):
                return self._keep(data)
            data = self._take_tail() + data
        if not data.endswith(b"\n\n"):
            data = self._cut(data)
            if not data:
                return data
        self.events += data.count(b"\n\n") or len(_BOUNDARY.findall(data))
        self._previous = self._last
        self._last = data
        return data

    def _ends_event(self, data: bytes) -> bool:
        """Whether a boundary ends in `data`, where it may have begun in the tail. Large events come
        in many pieces: each byte of them is looked at once.
        """
        joint = self._joint + data
        return b"\n\n" in joint or b"\n\r\n" in joint

    def _cut(self, data: bytes) -> bytes:
        """Split off what follows the last boundary and keep it as the tail."""
        end = 0
        for newline in (b"\n\n", b"\n\r\n"):
            found = data.rfind(newline)
            if found >= 0:
                end = max(end, found + len(newline))
        self._keep(data[end:])
        return data[:end]

    def _keep(self, data: bytes) -> bytes:
        if data:
            self._tail.append(data)
            self._tail_bytes += len(data)
            self._joint = (self._joint + data[-3:])[-3:]
            if self._tail_bytes > HELD_BYTES:
                raise TapOverflow(f"an event of more than {HELD_BYTES} bytes")
        return b""

    def _take_tail(self) -> bytes:
        tail = self.pending
        self._tail.clear()
        self._tail_bytes = 0
        self._joint = b""
        return tail

    @property
    def pending(self) -> bytes:
        """The beginning of an event whose end has not come."""
        return b"".join(self._tail)

    @property
    def recent(self) -> bytes:
        return self._previous + self._last


class ByteTap:
    """The same for bodies that are not events (JSON, audio): everything passes at once."""

    __slots__ = ("_last", "_previous", "events")

    def __init__(self) -> None:
        self._last = b""
        self._previous = b""
        self.events = 0

    def feed(self, data: bytes) -> bytes:
        self.events += 1
        self._previous = self._last
        self._last = data
        return data

    @property
    def pending(self) -> bytes:
        return b""

    @property
    def recent(self) -> bytes:
        return self._previous + self._last


Tap = EventTap | ByteTap


def events_of(data: bytes) -> Iterator[bytes]:
    """The whole events in `data`, without their final empty line."""
    for block in _BOUNDARY.split(data):
        if block:
            yield block


def latest_event(data: bytes, containing: bytes, before: int | None = None) -> tuple[bytes, int]:
    """The last event of `data` that contains those bytes, and where it begins.

    `before` leaves out what stands from that offset on. `(b"", -1)` if there is none. Looks from
    the end, so that a long stretch of events costs no more than a short one.
    """
    found = data.rfind(containing, 0, before)
    if found < 0:
        return b"", -1
    begin = 0
    for boundary in (b"\n\n", b"\n\r\n"):
        at = data.rfind(boundary, 0, found)
        if at >= 0:
            begin = max(begin, at + len(boundary))
    end = _BOUNDARY.search(data, found)
    return data[begin : end.start() if end else len(data)], begin


def data_of(event: bytes) -> bytes:
    """The event's data: its `data:` lines joined by LF, one leading space removed from each."""
    lines = (line for line in _LINE_END.split(event) if line.startswith(b"data:"))
    return b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in lines)


def is_comment(data: bytes) -> bool:
    """Whether all events in `data` are comments (keep-alives such as `: ping`)."""
    if not data.startswith(b":"):
        return False
    lines = (line for event in events_of(data) for line in _LINE_END.split(event))
    return all(line.startswith(b":") for line in lines if line)
