"""Finds stop strings in a text that arrives piece by piece."""

from __future__ import annotations

from collections.abc import Sequence


class StopScan:
    """Lets text through until a stop string appears, wherever the borders of the pieces lie.

    What could be the beginning of a stop string is held back: the last `longest stop - 1`
    characters, as vLLM does it. A stop string that completes later cannot begin before them.
    """

    __slots__ = ("_held", "_include", "_keep", "_stops", "found")

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """`stops` holds no empty string; with `include` the stop string itself is let through."""
        self._stops = tuple(stops)
        self._include = include
        self._keep = max(map(len, self._stops), default=1) - 1
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text, once one did."""

    def feed(self, piece: str) -> str:
        """The text that `piece` releases, maybe none. Not to be called once `found` is set."""
        if not self._stops:
            return piece
        text = self._held + piece
        hit = self._earliest(text)
        if hit is not None:
            at, self.found = hit
            self._held = ""
            return text[: at + len(self.found)] if self._include else text[:at]
        cut = max(0, len(text) - self._keep)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What is still held back, for when the text ends without a stop string."""
        held, self._held = self._held, ""
        return held

    def _earliest(self, text: str) -> tuple[int, str] | None:
        hits = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(hits, key=lambda hit: hit[0], default=None)
