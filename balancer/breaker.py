"""Two reasons to leave a replica alone, learned from what became of requests to it. Pure.

`Breaker`: it fails. `Pause`: it says that it has no room. Which of the two a failure is a reason
for, if any, is told by `balancer.faults`.

    closed ──(failures in a row, or their share of enough)──> open
    open ──(its rest is over)──> half open: a few trials at a time, the rest goes elsewhere
    half open ──(so many trials answered)──> closed     half open ──(one failed)──> open, longer

A request counts as answered when its first event is here: answers last minutes, and a breaker
that waited for their ends would know of failures at once and of successes much too late. If the
stream is cut later, that is a failure of its own, beside the success; so a replica that cuts every
stream has a share of one half, which is the default at which it opens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from balancer.window import Window

__all__ = ["Backoff", "Breaker", "BreakerSettings", "Pause", "State"]

State = Literal["closed", "open", "half_open"]


class BreakerSettings(NamedTuple):
    """When a breaker opens, and how it closes again."""

    failures_in_a_row: int = 5
    """So many failures with no success between them open it."""
    failure_share: float = 0.5
    """So does this share of failures in the last `window_s` (0 to 1) ..."""
    volume: int = 10
    """... if at least so many requests were counted there."""
    window_s: float = 10.0
    rest_s: float = 0.5
    """How long it is open the first time; twice as long each time after that ..."""
    rest_max_s: float = 30.0
    """... up to this. Both within a fifth, by chance."""
    trials: int = 1
    """Requests that may be on their way at once while it is half open."""
    successes: int = 2
    """So many answered trials close it."""


_JITTER: Final = 0.2


class Backoff:
    """A rest that is twice as long each time, up to `max_s`, each by chance a fifth off.

    It begins anew after a quiet time: if nothing came up for as long as the last rest took, and
    for `calm_s` at least, after that rest was over.
    """

    __slots__ = ("_base_s", "_calm_s", "_exponent", "_max_s", "_random", "until")

    def __init__(
        self, base_s: float, max_s: float, calm_s: float, random: Callable[[], float]
    ) -> None:
        self._base_s = base_s
        self._max_s = max_s
        self._calm_s = calm_s
        self._random = random
        self._exponent = 0
        self.until = -math.inf
        """When the last rest is, or was, over."""

    def rest(self, now: float) -> float:
        """Begin a rest now; returns when it is over."""
        if now - self.until > max(self._calm_s, self._rest_s(self._exponent - 1)):
            self._exponent = 0
        rest_s = self._rest_s(self._exponent)
        self._exponent += 1
        self.until = now + rest_s * (1 + _JITTER * (2 * self._random() - 1))
        return self.until

    def _rest_s(self, exponent: int) -> float:
        return min(self._max_s, self._base_s * 2.0 ** min(max(exponent, 0), 60))


class Breaker:
    """Whether one replica is worth a request, judged by the requests it had.

    For each request: `begin` when it is leased, then exactly one of `answered`, `failed` and
    `abandoned`, and after `answered` perhaps `cut`. All but the first are given what `begin`
    returned; what began before the breaker's last change of state says nothing of it now, and is
    ignored. So a hundred requests that a dying replica takes with it open it once.
    """

    __slots__ = (
        "_backoff",
        "_connecting",
        "_counts",
        "_era",
        "_good",
        "_in_a_row",
        "_out",
        "_settings",
        "_state",
    )

    def __init__(self, settings: BreakerSettings, random: Callable[[], float]) -> None:
        self._settings = settings
        self._counts = Window(settings.window_s)
        self._backoff = Backoff(settings.rest_s, settings.rest_max_s, settings.window_s, random)
        self._state: State = "closed"
        self._era = 0
        self._in_a_row = 0
        self._connecting = False
        self._out = 0
        self._good = 0

    def state(self, now: float) -> State:
        """How it stands. What is open becomes half open by the passing of time alone."""
        if self._state == "open" and now >= self._backoff.until:
            self._change("half_open")
        return self._state

    @property
    def standing(self) -> State:
        """The same as it was when last looked at."""
        return self._state

    def admits(self, now: float) -> bool:
        """Whether a request may begin now: always if closed, never if open, else if there is a
        trial to be had."""
        if self._state == "closed":
            return True
        return self.state(now) == "half_open" and self._out < self._settings.trials

    @property
    def rest_until(self) -> float:
        """When it is half open at the latest, if it is open; in the past otherwise."""
        return self._backoff.until if self._state == "open" else -math.inf

    @property
    def unreachable(self) -> bool:
        """Whether it is open because no connection could be made."""
        return self._state == "open" and self._connecting

    def begin(self, now: float) -> int:
        """A request is leased (whether or not this `admits` it: the pool may know no better)."""
        if self.state(now) == "half_open":
            self._out += 1
        return self._era

    def answered(self, era: int, now: float) -> bool:
        """Its first event is here. Returns whether that has closed the breaker."""
        if era != self._era or self._state == "open":
            return False
        if self._state == "closed":
            self._counts.add(now, False)
            self._in_a_row = 0
            return False
        self._out -= 1
        self._good += 1
        if self._good < self._settings.successes:
            return False
        self._change("closed")
        return True

    def failed(self, era: int, now: float, *, connecting: bool = False) -> bool:
        """It failed, by the replica's fault, before its first event. Returns whether that has
        opened the breaker. One that could not even connect opens it at once: nobody is there."""
        return era == self._era and self._count_failure(now, connecting)

    def cut(self, era: int, now: float) -> bool:
        """It failed after it was answered. Returns whether that has opened the breaker."""
        return era == self._era and self._count_failure(now, connecting=False)

    def abandoned(self, era: int) -> None:
        """It ended in a way that says nothing of the replica. A trial is given back."""
        if era == self._era and self._state == "half_open":
            self._out -= 1

    def reached(self, now: float) -> bool:
        """A probe had an answer. If nobody was there before, that ends the rest; of a replica
        that fails requests it says nothing. Returns whether it ended a rest."""
        if not self.unreachable:
            return False
        self._backoff.until = min(self._backoff.until, now)
        self._change("half_open")
        return True

    def _count_failure(self, now: float, connecting: bool) -> bool:
        if self._state == "open":
            return False
        if self._state == "closed":
            self._counts.add(now, True)
            self._in_a_row += 1
            if not connecting and not self._is_failing(now):
                return False
        self._connecting = connecting
        self._change("open")
        self._backoff.rest(now)
        return True

    def _is_failing(self, now: float) -> bool:
        settings = self._settings
        if self._in_a_row >= settings.failures_in_a_row:
            return True
        failures, requests = self._counts.share(now)
        return requests >= settings.volume and failures >= settings.failure_share * requests

    def _change(self, state: State) -> None:
        self._state = state
        self._era += 1
        self._in_a_row = self._out = self._good = 0
        self._counts.clear()


_PAUSE_S: Final = 0.25
_PAUSE_MAX_S: Final = 5.0


class Pause:
    """A replica that answered 429 or 503 gets nothing for as long as it asked for.

    If it did not say how long: 0.25 s, twice as long each time in a row, up to 5 s.
    """

    __slots__ = ("_in_a_row", "_random", "until")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._in_a_row = 0
        self.until = -math.inf
        """When it is worth asking again."""

    def refused(self, now: float, retry_after_s: float | None) -> None:
        """It had no room. Of several who are told so at once the one who waits longest counts."""
        if retry_after_s is None:
            if now < self.until:
                return  # asked before it paused: that is known
            retry_after_s = min(_PAUSE_MAX_S, _PAUSE_S * 2.0 ** min(self._in_a_row, 10))
            retry_after_s *= 1 + _JITTER * (2 * self._random() - 1)
            self._in_a_row += 1
        self.until = max(self.until, now + retry_after_s)

    def answered(self) -> None:
        """It served a request."""
        self._in_a_row = 0
