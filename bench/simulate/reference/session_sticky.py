"""A session stays where it began."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies import Ask, Bookless, Loaded
from balancer.policies.loaded import R
from balancer.policies.ties import least_in_flight
from bench.simulate.reference.fleet import Fleet
from bench.simulate.reference.recent import Recent

__all__ = ["SessionSticky"]


class SessionSticky(Bookless):
    """`sticky_least_loaded` of the vLLM router: a new session goes to the replica with the fewest
    requests in flight (ties at random) and stays there, whatever the load, until it was not heard
    of for two hours. A request without a session goes to the fewest in flight.

    If its replica is away or full, the session moves for good: its cache is where it was last.
    """

    def __init__(self, fleet: Fleet, *, keep_s: float = 7200.0) -> None:
        self._random = fleet.random()
        self._home: Recent[str] = Recent(keep_s, fleet.clock)

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        name = self._home.get(ask.session) if ask.session is not None else None
        if name is not None:
            for candidate in candidates:
                if candidate.name == name:
                    return candidate
        return least_in_flight(candidates, self._random)

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """This is its home now."""
        if ask.session is not None:
            self._home.use(ask.session, replica.name)
