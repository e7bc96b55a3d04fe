"""Steps of an engine that are alike and follow one another."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from bench.engine.sequence import Sequence

__all__ = ["Stretch"]


class Stretch(NamedTuple):
    """`steps` steps of one kind in a row; more than one only if nothing but decoding happens.

    Step number i (the first is 0) takes `first_s + i * growth_s`.
    """

    start_s: float
    steps: int
    first_s: float
    growth_s: float
    decoding: int
    """Sequences that decode in each of them."""
    before: int
    """Number of the step before its first one."""
    prefilled: tuple[Sequence, ...] = ()
    """Whose prompts are complete with it: they have their next token at its end."""
    open: bool = False
    """Whether it may still be cut short; what it takes is then not yet booked in the batch."""

    def end_s(self, steps: int) -> float:
        """When the first `steps` of its steps are done."""
        return self.start_s + steps * self.first_s + self.growth_s * (steps * (steps - 1) / 2)

    def divided(self, steps: int) -> tuple[Stretch, Stretch]:
        """The first `steps` of its steps, not to be cut short any more, and all others."""
        rest = self._replace(
            start_s=self.end_s(steps),
            steps=self.steps - steps,
            first_s=self.first_s + steps * self.growth_s,
            before=self.before + steps,
        )
        return self._replace(steps=steps, open=False), rest

    def begun_before(self, now_s: float) -> int:
        """How many of its steps began before `now_s`."""
        return bisect_left(range(self.steps), now_s, key=self.end_s)

    def done(self, now_s: float) -> int:
        """How many of its steps have ended at `now_s`."""
        return bisect_right(range(1, self.steps + 1), now_s, key=self.end_s)
