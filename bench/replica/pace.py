"""When tokens are due: the part of the replica that a scheduler of batches can replace.

Pure: times come in as numbers and go out as numbers, on whatever clock the caller uses.
"""

from __future__ import annotations

import math
from typing import Protocol


class Timeline(Protocol):
    """The times of one sequence."""

    def due_s(self, token: int) -> float:
        """When token number `token` is due (0 is the first), on the clock given to `Pace.begin`.

        Asked for one token after the other, and asked again when that time has come: an answer
        that has moved later in between (a sequence still queued, a batch that grew) is waited for.
        """
        ...


class Pace(Protocol):
    """Gives each sequence its timeline."""

    def begin(self, prompt_tokens: int, now_s: float) -> Timeline:
        """A sequence with this many prompt tokens has arrived at `now_s`."""
        ...

    def end(self, timeline: Timeline) -> None:
        """The sequence has finished or was aborted; called exactly once for each `begin`."""
        ...


class SteadyTimeline:
    """First token at a fixed time, the others at a fixed distance."""

    __slots__ = ("_first_s", "_tokens_per_s")

    def __init__(self, first_s: float, tokens_per_s: float) -> None:
        self._first_s = first_s
        self._tokens_per_s = tokens_per_s

    def due_s(self, token: int) -> float:
        # From the first token's time and never from the last wake-up, so lateness does not add up.
        return self._first_s + token / self._tokens_per_s


class SteadyPace:
    """The same pace for every sequence, however many run.

    `ttft_s` is in seconds, 0 or more; `tokens_per_s` is above 0 and may be infinite.
    Raises ValueError for anything else.
    """

    def __init__(self, ttft_s: float, tokens_per_s: float) -> None:
        if not 0 <= ttft_s < math.inf or not tokens_per_s > 0:
            raise ValueError(f"no pace has ttft_s={ttft_s!r} and tokens_per_s={tokens_per_s!r}")
        self._ttft_s = ttft_s
        self._tokens_per_s = tokens_per_s

    def begin(self, prompt_tokens: int, now_s: float) -> Timeline:
        return SteadyTimeline(now_s + self._ttft_s, self._tokens_per_s)

    def end(self, timeline: Timeline) -> None:
        """Nothing is shared between sequences, so there is nothing to give back."""
