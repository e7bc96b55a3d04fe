"""What a policy is: a choice, and what it is told about what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, NamedTuple, Protocol

from balancer.policies.ask import Ask
from balancer.policies.loaded import Loaded, R

__all__ = [
    "NO_BOOKS",
    "Bookless",
    "Books",
    "Candidate",
    "Explanation",
    "Outcome",
    "Policy",
]


class Outcome(NamedTuple):
    """What became of a request, as far as it is known; None where it is not."""

    answered: bool = False
    """Whether a first event came."""
    ttft_s: float | None = None
    """From the lease to the first event."""
    itl_s: float | None = None
    """Mean time between its tokens."""
    prompt_tokens: int | None = None
    """As the replica counts them."""
    cached_tokens: int | None = None
    """Those of them that it had in its cache already."""
    output_tokens: int | None = None


class Candidate(NamedTuple):
    """One replica in an explanation."""

    replica: str
    in_flight: int
    matched_tokens: int
    """Of the prompt, that it was believed to hold."""
    terms: tuple[float, ...]
    """In the order of `Explanation.terms`."""


class Explanation:
    """Why a pick was what it was."""

    __slots__ = ("_candidates", "considered", "predicted_ttft_s", "terms", "unit")

    def __init__(
        self,
        unit: str,
        terms: tuple[str, ...],
        candidates: tuple[Candidate, ...] | Callable[[], tuple[Candidate, ...]],
        considered: int,
        predicted_ttft_s: float | None = None,
    ) -> None:
        """`candidates` may be made when somebody asks; of what was then, not of what is."""
        self.unit = unit
        """Of the terms: `s` (seconds), `requests`, ..."""
        self.terms = terms
        """What a candidate's cost is the sum of; the least wins."""
        self.considered = considered
        """How many candidates there were."""
        self.predicted_ttft_s = predicted_ttft_s
        """Of the chosen one; None if the policy predicts none."""
        self._candidates = candidates

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The best of them, at most 16, the cheapest first."""
        if callable(self._candidates):
            self._candidates = self._candidates()
        return self._candidates


class Books(Protocol):
    """Is told what becomes of requests, synchronously, in the very step in which it happens.

    For each `leased` there is exactly one `released`, and before it at most one `answered`.
    """

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """The request goes to this replica; its load has it already."""

    def answered(self, replica: Loaded, ask: Ask) -> None:
        """Its first event is here: the replica has read the prompt."""

    def released(self, replica: Loaded, ask: Ask, outcome: Outcome) -> None:
        """It is over, however it ended."""


class Policy(Books, Protocol):
    """Chooses where the next request goes. Between `pick` and `leased` nothing else runs."""

    reads_prompt: ClassVar[bool]
    """Whether it wants `Ask.prompt_tokens`, `blocks` and `matches`. If not, no prompt is read."""

    @property
    def explanation(self) -> Explanation | None:
        """Of the last pick; None if there is nothing to explain."""

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        """One of `candidates`, which are never empty and always in the pool's order."""

    def forget(self, replica: str) -> None:
        """That replica is gone, or was started again: what was known of it holds no longer."""


class Bookless:
    """A policy that needs to be told nothing. Its subclasses have `pick` alone."""

    reads_prompt: ClassVar[bool] = False
    explanation: Explanation | None = None

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """Nothing is kept."""

    def answered(self, replica: Loaded, ask: Ask) -> None:
        """Nothing is kept."""

    def released(self, replica: Loaded, ask: Ask, outcome: Outcome) -> None:
        """Nothing is kept."""

    def forget(self, replica: str) -> None:
        """Nothing is kept."""


NO_BOOKS: Final[Books] = Bookless()
"""For a lease that no policy gave."""
