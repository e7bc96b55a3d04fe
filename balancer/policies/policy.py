"""What a policy is: a choice, and what it is told about what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from balancer.policies.ask import Ask
from balancer.policies.loaded import Loaded, R

__all__ = ["NO_BOOKS", "Bookless", "Books", "Policy"]


class Books(Protocol):
    """Is told what becomes of requests, synchronously, in the very step in which it happens.

    For each `leased` there is exactly one `released`, and before it at most one `answered`.
    """

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """The request goes to this replica."""

    def answered(self, replica: Loaded, ask: Ask) -> None:
        """Its first event is here: the replica has read the prompt."""

    def released(self, replica: Loaded, ask: Ask, cached_tokens: int | None) -> None:
        """It is over, however it ended. `cached_tokens`: what the replica says it had of the
        prompt already; None if it says nothing."""


class Policy(Books, Protocol):
    """Chooses where the next request goes. Between `pick` and `leased` nothing else runs."""

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        """One of `candidates`, which are never empty and always in the pool's order."""


class Bookless:
    """A policy that needs to be told nothing. Its subclasses have `pick` alone."""

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """Nothing is kept."""

    def answered(self, replica: Loaded, ask: Ask) -> None:
        """Nothing is kept."""

    def released(self, replica: Loaded, ask: Ask, cached_tokens: int | None) -> None:
        """Nothing is kept."""


NO_BOOKS: Final[Books] = Bookless()
"""For a lease that no policy gave."""
