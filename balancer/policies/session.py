"""A conversation stays where its keys and values are."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence

import trio

from balancer.policies.ask import UNKNOWN, Ask
from balancer.policies.loaded import Loaded, R
from balancer.policies.policy import Bookless
from balancer.policies.ties import bounded_load, least_in_flight

__all__ = ["Session"]


class Session(Bookless):
    """A new session goes to the replica with the fewest requests in flight, ties at random, and
    stays there: until it was not heard of for `keep_s`, until it is the one used longest ago of
    more than `most`, or until its replica is away or has more than `bound` times the mean in
    flight (and `slack` requests more than it).

    A session that moves has moved for good: its cache is where it was last. A request without a
    session goes to the fewest in flight. `seed` makes it repeatable.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        keep_s: float = 3600.0,
        most: int = 100_000,
        bound: float = 1.25,
        slack: int = 2,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._random = random.Random(seed)
        self._keep_s = keep_s
        self._most = most
        self._bound = bound
        self._slack = slack
        self._clock = clock
        self._homes: OrderedDict[str, tuple[float, str]] = OrderedDict()  # the oldest use first

    def __len__(self) -> int:
        """Sessions that it remembers."""
        return len(self._homes)

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        home = self._home(ask.session)
        if home is not None:
            for candidate in candidates:
                if candidate.name == home:
                    if candidate.in_flight < bounded_load(candidates, self._bound) + self._slack:
                        return candidate
                    break
        return least_in_flight(candidates, self._random)

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """This is its home now."""
        if ask.session is None:
            return
        now, homes = self._clock(), self._homes
        homes[ask.session] = now, replica.name
        homes.move_to_end(ask.session)
        while len(homes) > self._most or now - next(iter(homes.values()))[0] > self._keep_s:
            homes.popitem(last=False)

    def forget(self, replica: str) -> None:
        """Its cache is empty: no session has a reason to go there."""
        gone = [session for session, (_, name) in self._homes.items() if name == replica]
        for session in gone:
            del self._homes[session]

    def _home(self, session: str | None) -> str | None:
        used = None if session is None else self._homes.get(session)
        if used is None or self._clock() - used[0] > self._keep_s:
            return None
        return used[1]
