"""How fast a replica reads prompts and writes answers, learned from what it did.

Two straight lines, fitted by least squares to what was observed:

- reading `u` uncached prompt tokens takes `a + u * b` seconds, where `a` is paid once by whoever
  finds nobody being read before it;
- a token takes `d + n * e` seconds where n others are in flight.

What a replica is worth beside others is told by `slowness`: its time over that which the line of
all of them says. So a replica that happens to get short prompts is not taken for a slow one.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = [
    "DECODE_S_PER_STREAM",
    "MOST_START_S",
    "MOST_START_TOKENS",
    "PREFILL_TOKENS_PER_S",
    "Fit",
    "Line",
    "Speed",
]

PREFILL_TOKENS_PER_S: Final = 12_000.0
DECODE_S_PER_STREAM: Final = 0.00042
"""First guesses: an 8B model on a GPU of the A100's class."""

_READ_START_S: Final = 0.03
_TOKEN_S: Final = 0.015
_GUESS: Final = 0.25

# How much is remembered: so many seconds of reading and so many answers; of both less after a
# minute in which nothing happened.
_READ_MEMORY_S: Final = 5.0
_WRITE_MEMORY: Final = 60.0
_IDLE_MEMORY_S: Final = 60.0

# How much must be observed until half of a difference is believed. At half of these chance makes
# equal replicas look unequal: near saturation that costs more than slow ones are found sooner.
_READ_DOUBT_S: Final = 2.0
_WRITE_DOUBT: Final = 20.0

_PART_S: Final = 0.1
_LONGEST_S: Final = 30.0


class Line:
    """`y = base * z + slope * x`, fitted to weighted observations of which the old ones fade."""

    __slots__ = ("x", "xx", "xy", "y", "z", "zx", "zy", "zz")

    def __init__(self) -> None:
        self.zz = self.zx = self.xx = self.zy = self.xy = 0.0
        self.z = self.x = self.y = 0.0
        """Sums without weights, for `slowness`."""

    def fade(self, kept: float) -> None:
        """Only this share of what was observed still counts."""
        self.zz *= kept
        self.zx *= kept
        self.xx *= kept
        self.zy *= kept
        self.xy *= kept
        self.z *= kept
        self.x *= kept
        self.y *= kept

    def add(self, z: float, x: float, y: float, weight: float) -> None:
        """One observation."""
        self.zz += weight * z * z
        self.zx += weight * z * x
        self.xx += weight * x * x
        self.zy += weight * z * y
        self.xy += weight * x * y
        self.z += z
        self.x += x
        self.y += y

    def join(self, other: Line) -> None:
        """What the other observed, too."""
        self.zz += other.zz
        self.zx += other.zx
        self.xx += other.xx
        self.zy += other.zy
        self.xy += other.xy

    def fit(self, most: float = math.inf) -> tuple[float, float]:
        """Base, at most `most`, and slope; neither below 0. There must have been an observation."""
        zz, zx, xx, zy, xy = self.zz, self.zx, self.xx, self.zy, self.xy
        determinant = zz * xx - zx * zx
        if determinant <= 1e-9 * zz * xx:
            return min(most, zy / zz), 0.0
        base = (zy * xx - xy * zx) / determinant
        slope = (xy * zz - zy * zx) / determinant
        if slope < 0.0:
            base, slope = zy / zz, 0.0
        if not 0.0 <= base <= most:
            base = min(max(0.0, base), most)
            slope = max(0.0, xy - base * zx) / xx
        return base, slope

    @property
    def mean(self) -> float:
        """Of y, where z is 1."""
        return self.zy / self.zz

    def slowness(self, base: float, slope: float, doubt: float, late: float = 0.0) -> float:
        """Its time, and `late` more, by that which `base` and `slope` say; as if for `doubt` of
        time they had been the same."""
        return (self.y + late + doubt) / (base * self.z + slope * self.x + doubt)


Fit = tuple[float, float]
"""Base and slope of a line."""

MOST_START_S: Final = 0.01
MOST_START_TOKENS: Final = 1.5
"""Reading starts within so many seconds and so many times what a token takes: the front end, half
of a step that runs, and the weights of its own. What takes longer is reading; or where counts are
rough, the fit would take most of it for a start."""


class Speed:
    """What was observed of one replica. The first guesses count no more than half of what a single
    request teaches."""

    __slots__ = (
        "_begins",
        "_since",
        "_tokens",
        "_until",
        "_written",
        "guessed_reads",
        "guessed_writes",
        "reads",
        "writes",
    )

    def __init__(
        self,
        prefill_tokens_per_s: float = PREFILL_TOKENS_PER_S,
        decode_s_per_stream: float = DECODE_S_PER_STREAM,
    ) -> None:
        self.reads = Line()
        """Of reading: z is whether it began from nothing, x tokens, y seconds."""
        self.writes = Line()
        """Of writing: z is 1, x others in flight, y seconds for a token."""
        self.guessed_reads = Line()
        """The first guess, as two small observations."""
        self.guessed_writes = Line()
        """The same of writing."""
        self._guess(prefill_tokens_per_s, decode_s_per_stream)
        self._since: float | None = None
        self._begins = 0.0
        self._tokens = 0
        self._until = 0.0
        self._written = 0.0

    def _guess(self, prefill_tokens_per_s: float, decode_s_per_stream: float) -> None:
        tokens, others = 1000.0, 8.0  # where observations are: a wrong guess bends nothing far off
        read_s, token_s = tokens / prefill_tokens_per_s, others * decode_s_per_stream
        self.guessed_reads.add(1.0, 0.0, _READ_START_S, _GUESS)
        self.guessed_reads.add(0.0, tokens, read_s, _GUESS * _weight(tokens))
        self.guessed_writes.add(1.0, 0.0, _TOKEN_S, _GUESS)
        self.guessed_writes.add(1.0, others, _TOKEN_S + token_s, _GUESS)

    def prefill_tokens_per_s(self, now: float) -> float:
        """Uncached prompt tokens per second while many are to be read; more than 0."""
        return 1.0 / max(1e-9, _joined(self.guessed_reads, self.reads).fit()[1])

    def decode_s_per_stream(self, now: float) -> float:
        """How much longer each token takes for each stream more in flight, in seconds."""
        return _joined(self.guessed_writes, self.writes).fit()[1]

    def slow_to_read(self, usual: Fit, waiting_tokens: int, now: float) -> float:
        """How many times as long as `usual` it takes to read. Near 1 until enough was observed.

        `waiting_tokens` are to be read now. That none of them was, although it is time, counts
        already: one that hangs is found out before it answers.
        """
        base, slope = usual
        late_s = 0.0
        if self._since is not None:
            late_s = max(0.0, now - self._since - base - slope * waiting_tokens)
        return self.reads.slowness(base, slope, _READ_DOUBT_S, late_s)

    def slow_to_write(self, usual: Fit) -> float:
        """The same of writing."""
        doubt_s = _WRITE_DOUBT * max(1e-4, usual[0])
        return self.writes.slowness(*usual, doubt_s)

    def sent(self, now: float) -> None:
        """A request was sent to it: from now on there is something to be read."""
        if self._since is None:
            self._since = now
            self._begins = 1.0
            self._tokens = 0

    def read(self, tokens: int, more: bool, now: float) -> None:
        """The prompt of a request, of which so many tokens were not cached, is read; is there
        `more` to be read?"""
        if self._since is None:
            return
        self._tokens += tokens
        passed_s = now - self._since
        if more and passed_s < _PART_S:
            return
        self._note_reading(min(passed_s, _LONGEST_S), now)
        self._go_on(more, now)

    def gave_up(self, more: bool, now: float) -> None:
        """A request ended before its prompt was read, nobody knows how far. Nothing is learned."""
        self._go_on(more, now)

    def wrote(self, company: float, itl_s: float, now: float) -> None:
        """An answer took so long for each token, while so many others were in flight."""
        idle_s = now - self._written
        self.writes.fade(math.exp(-1.0 / _WRITE_MEMORY - idle_s / _IDLE_MEMORY_S))
        self.writes.add(1.0, company, min(itl_s, _LONGEST_S), 1.0)
        self._written = now

    def _note_reading(self, passed_s: float, now: float) -> None:
        idle_s = now - self._until
        self.reads.fade(math.exp(-passed_s / _READ_MEMORY_S - idle_s / _IDLE_MEMORY_S))
        self.reads.add(self._begins, self._tokens, passed_s, _weight(self._tokens))
        self._until = now

    def _go_on(self, more: bool, now: float) -> None:
        self._since = now if more else None
        self._begins = 0.0
        self._tokens = 0


def _joined(one: Line, other: Line) -> Line:
    both = Line()
    both.join(one)
    both.join(other)
    return both


def _weight(tokens: float) -> float:
    # The more there is to read, the more its time varies.
    return 1000.0 / (1000.0 + tokens)
