"""Why requests went where they did, and how well that was foreseen. The latest are kept.

Kept as they are, formatted when somebody asks: a request pays for a tuple, not for a page.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from balancer.lease import Lease
from balancer.policies import POLICIES, Explanation, Policy
from balancer.trace import Trace

__all__ = ["Decision", "Decisions", "Placement", "policy_name"]

_NAMES: Final[dict[object, str]] = {kind: name for name, kind in POLICIES.items()}


def policy_name(policy: Policy) -> str:
    """What it is called in the configuration."""
    kind = type(policy)
    return _NAMES.get(kind) or kind.__name__


class Placement(NamedTuple):
    """One attempt: where it went, and why."""

    replica: str
    at_s: float
    """Since the request's arrival."""
    matched_tokens: int
    """Of its prompt, that the replica was believed to hold."""
    prompt_tokens: int
    """As estimated here, four bytes a token; 0 if the policy does not read prompts."""
    explanation: Explanation | None
    """None if the policy has nothing to explain."""

    @classmethod
    def of(cls, lease: Lease, arrived: float) -> Placement:
        """What a lease tells of itself."""
        return cls(
            lease.replica.name,
            lease.leased_at - arrived,
            lease.matched_tokens,
            lease.prompt_tokens,
            lease.explanation,
        )


class Decision(NamedTuple):
    """One request that is over."""

    request_id: str
    model: str
    policy: str
    tier: str
    placements: tuple[Placement, ...]
    """Its attempts, the last one last."""
    observed_ttft_s: float | None
    """From the last placement to the first event; None if none came."""
    prompt_tokens: int | None
    """As the replica counts them, and how many of them it had in its cache: None if not said."""
    cached_tokens: int | None

    @classmethod
    def of(cls, request_id: str, policy: Policy, trace: Trace) -> Decision | None:
        """What is to be told of a request that is over; None if it never had a replica."""
        if not trace.leases:
            return None
        return cls(
            request_id,
            trace.model,
            policy_name(policy),
            trace.leases[-1].standing.tier,
            tuple([Placement.of(lease, trace.started) for lease in trace.leases]),
            trace.observed_ttft_s,
            trace.usage.prompt_tokens,
            trace.usage.cached_tokens,
        )

    @property
    def predicted_ttft_s(self) -> float | None:
        """Of the last placement; None if its policy predicts nothing."""
        explanation = self.placements[-1].explanation if self.placements else None
        return None if explanation is None else explanation.predicted_ttft_s

    @property
    def regret_s(self) -> float | None:
        """How much later than predicted the first event came; negative if it came sooner."""
        predicted, observed = self.predicted_ttft_s, self.observed_ttft_s
        return None if predicted is None or observed is None else observed - predicted


class Decisions:
    """The latest decisions by request id; `most` of them at most."""

    def __init__(self, most: int = 1_000) -> None:
        self._most = most
        self._kept: OrderedDict[str, Decision] = OrderedDict()

    def keep(self, decision: Decision) -> None:
        """The oldest makes room. Of two requests with one id the later is kept."""
        self._kept.pop(decision.request_id, None)
        self._kept[decision.request_id] = decision
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def find(self, request_id: str) -> Decision | None:
        """None if there was none of that id lately."""
        return self._kept.get(request_id)

    def latest(self, most: int) -> list[Decision]:
        """The latest first."""
        return [self._kept[key] for _, key in zip(range(most), reversed(self._kept), strict=False)]

    def __len__(self) -> int:
        return len(self._kept)
