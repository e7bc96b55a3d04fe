"""How a run gets on: counts for whoever shows them, and a live line on a terminal."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

from bench.load.record import Record
from bench.load.selfcheck import quantile

__all__ = ["Live", "Shown", "Tally", "live_line"]

_EVERY_S: Final = 0.5
_RECENT: Final = 200


class Tally:
    """What has become of the requests of one phase so far."""

    def __init__(self, phase: str, now: Callable[[], float]) -> None:
        self.phase = phase
        self._now = now
        self._begin = now()
        self.outcomes: Counter[str] = Counter()
        self.tokens = 0
        self._firsts: deque[float] = deque(maxlen=_RECENT)
        self.in_flight: Callable[[], int] = int
        self.sent: Callable[[], int] = int

    def settle(self, record: Record) -> None:
        """A request is over."""
        self.outcomes[record.outcome] += 1
        if record.outcome == "ok":
            self.tokens += record.output_tokens or record.counted_output_tokens
            if record.content_s:
                self._firsts.append(record.content_s[0] - record.sent_s)

    def line(self) -> str:
        """All of it in one line."""
        lasted_s = max(self._now() - self._begin, 1e-9)
        first_s = quantile(self._firsts, 0.5)
        first = "-" if first_s is None else f"{first_s * 1e3:.0f} ms"
        return (
            f"{self.phase} {lasted_s:.0f} s: {self.sent()} sent, {self.outcomes['ok']} ok, "
            f"{self.outcomes['error']} errors, {self.in_flight()} in flight, TTFT p50 {first}, "
            f"{self.tokens / lasted_s:.0f} tok/s"
        )


class Shown(Protocol):
    """Shows a run's progress."""

    async def run(self, line: Callable[[], str]) -> None:
        """Show what `line` gives, until cancelled."""


class Live:
    """A line that is written anew, with rich if it is installed. To stderr."""

    async def run(self, line: Callable[[], str]) -> None:
        screen = _screen()
        try:
            while True:
                await trio.sleep(_EVERY_S)
                screen.show(line())
        finally:
            screen.close()


def live_line() -> Live | None:
    """The live line if stderr is a terminal, else nothing."""
    return Live() if sys.stderr.isatty() else None


class _PlainScreen:
    def show(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def close(self) -> None:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


class _RichScreen:
    def __init__(self, console: Any, live: Any, text: Any) -> None:
        self._live = live(console=console, auto_refresh=False, transient=True)
        self._text = text
        self._live.start()

    def show(self, text: str) -> None:
        # Not highlighted and on one line: the loop that measures stands still meanwhile.
        self._live.update(self._text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        self._live.stop()


def _screen() -> _PlainScreen | _RichScreen:
    try:
        # Late, since it takes a while, and optional: a plain line says the same.
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.text import Text
    except ImportError:
        return _PlainScreen()
    return _RichScreen(Console(stderr=True), RichLive, Text)
