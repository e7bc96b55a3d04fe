"""A first event asked for twice: a second try elsewhere, begun when the first takes too long.

Whoever has its first event first wins; the other's connection is closed at once, which stops its
replica's work. A try that fails leaves the other alone in the race. Two that fail are one failure.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import trio

from balancer.attempt import Attempt, PutBack
from balancer.errors import AttemptFailed, BalancerError, Overdue

__all__ = ["Race"]


class Race:
    """Runs `first`, and beside it what `second` gives (None: nobody) once `after_s` have passed
    without an event. Both are its own from then on, and have scopes of their own."""

    __slots__ = ("_after_s", "_over", "_second", "_winner", "entrants")

    def __init__(
        self, first: Attempt, after_s: float, second: Callable[[], Attempt | None]
    ) -> None:
        self.entrants = [first]
        """All that were sent, in order."""
        self._after_s = after_s
        self._second = second
        self._winner: Attempt | None = None
        self._over = trio.Event()

    async def run(self) -> Attempt:
        """The winner, to be used with `with`; the other is settled already.

        Raises the failure if there is no winner: `AttemptFailed`, `Overdue`, or `PutBack`.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._enter, self.entrants[0], nursery.cancel_scope)
                with trio.move_on_after(self._after_s):
                    await self._over.wait()
                second = None if self._over.is_set() else self._second()
                if second is not None:
                    self.entrants.append(second)
                    nursery.start_soon(self._enter, second, nursery.cancel_scope)
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        if self._winner is None:
            raise _as_one([entrant.failure for entrant in self.entrants])
        return self._winner

    async def _enter(self, attempt: Attempt, race: trio.CancelScope) -> None:
        try:
            with attempt.scope, ExitStack() as held:
                held.enter_context(attempt)
                await attempt.start()
                if self._winner is None:
                    self._winner = attempt
                    held.pop_all()  # it goes on
                    race.cancel("the other has begun to answer")
        except AttemptFailed as failure:
            attempt.failure = failure
        if attempt.scope.cancelled_caught:
            attempt.failure = attempt.why_cancelled()
        self._over.set()


def _as_one(failures: list[BalancerError | None]) -> BalancerError:
    """What two failures amount to. A limit that has passed is final, a place lost is no failure."""
    found = [failure for failure in failures if failure is not None]
    for kind in (Overdue, AttemptFailed, PutBack):
        for failure in found:
            if isinstance(failure, kind):
                return failure
    raise AssertionError(f"a race that nobody won or lost: {failures!r}")
