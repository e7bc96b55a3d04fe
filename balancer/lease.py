"""The right to use one replica until released, and who is told what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import trio

from balancer.admission import Standing
from balancer.errors import BalancerError
from balancer.load import Charge
from balancer.policies import Ask, Explanation, Outcome
from balancer.prefix import Insertion
from balancer.replica import Replica
from balancer.trust import Expected

__all__ = ["Lease", "Lessor", "ReclaimReason"]

ReclaimReason = Literal["put_back", "replica_lost"]
"""`put_back`: a request of a higher tier takes its place, it waits in line again. `replica_lost`:
nothing will come from there, it should be tried elsewhere."""


class Lessor(Protocol):
    """Who gave the lease: the pool. Told synchronously, in the very step in which it happens."""

    def answered(self, lease: Lease, now: float) -> None: ...

    def failed(self, lease: Lease, now: float) -> None: ...

    def released(self, lease: Lease, now: float) -> None: ...


class Lease:
    """`with lease:`, or `release` (idempotent). Before that at most one of `answered` and
    `failed`, and after `answered` perhaps `cut`; if neither came, the request was abandoned, which
    says nothing of the replica.
    """

    __slots__ = (
        "_era",
        "_lessor",
        "_over",
        "_settled",
        "ask",
        "charge",
        "expected",
        "explanation",
        "insertion",
        "leased_at",
        "matched_tokens",
        "on_reclaim",
        "outcome",
        "prompt_tokens",
        "read",
        "replica",
        "standing",
        "trial",
    )

    def __init__(
        self,
        lessor: Lessor,
        replica: Replica,
        ask: Ask,
        standing: Standing,
        charge: Charge,
        now: float,
    ) -> None:
        self.replica = replica
        self.ask = ask
        self.standing = standing
        self.charge = charge
        self.leased_at = now
        self.outcome = Outcome()
        """What became of it; to be set before the release, if there is something to tell."""
        self.explanation: Explanation | None = None
        """Why it is this replica, if the policy says."""
        self.prompt_tokens = 0
        """Of the prompt, as estimated; 0 if nobody read it."""
        self.matched_tokens = 0
        """Tokens of the prompt that the replica was believed to hold."""
        self.insertion: Insertion | None = None
        """What the prefix index noted of the prompt, to be undone if it is never read."""
        self.expected: Expected | None = None
        """What was expected of the replica's cache, to be compared with what it reports."""
        self.read = False
        """Whether the replica has read the prompt: it was answered."""
        self.on_reclaim: Callable[[ReclaimReason], None] | None = None
        """Called, at most once and never after `answered`, when the request must leave: the lease
        is released by then, or will be in the same step."""
        self._lessor = lessor
        self._settled = self._over = False
        self._era = replica.breaker.begin(now)
        self.trial = replica.on_trial
        """Whether the replica is being tried out after failures: not the time for patience."""
        replica.unanswered[self] = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def unsettled(self) -> bool:
        """Whether nothing has come from the replica yet."""
        return not (self._settled or self._over)

    def answered(self) -> None:
        """The first event is here."""
        if not self.unsettled:
            return
        self._settled = self.read = True
        now = trio.current_time()
        self.replica.unanswered.pop(self, None)
        self.replica.answered(self.charge, self._era, now)
        self._lessor.answered(self, now)
        self.replica.tell_room()  # it has less to read: a tier bound by that may go on

    def failed(self, failure: BalancerError) -> None:
        """It failed before its first event, and the replica may be to blame."""
        if not self.unsettled:
            return
        self._settled = True
        now = trio.current_time()
        if self.replica.failed(failure, self._era, now):
            self._lessor.failed(self, now)

    def cut(self) -> None:
        """It failed after its first event, by the replica's fault."""
        now = trio.current_time()
        self.replica.cut(self._era, now)
        self._lessor.failed(self, now)

    def release(self) -> None:
        """The replica has one request less. Whoever waits for it is served in this very step."""
        if self._over:
            return
        unsettled = self.unsettled
        self._over = True
        now = trio.current_time()
        self.replica.unanswered.pop(self, None)
        if unsettled:
            self.replica.abandoned(self._era)
        try:
            # Before the room is handed out: whoever takes it is placed by books that are true.
            self.replica.closed(self.charge, self.outcome, now)
            self._lessor.released(self, now)
        finally:  # whatever the outcome says: those who wait must not wait for ever
            self.replica.tell_room()

    def reclaim(self, reason: ReclaimReason) -> bool:
        """Take it back from whoever uses it. False if that is no longer possible."""
        on_reclaim = self.on_reclaim
        if on_reclaim is None or not self.unsettled:
            return False
        self.on_reclaim = None
        on_reclaim(reason)
        self.release()
        return True
