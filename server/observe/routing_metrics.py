"""How well requests were placed: predicted against observed, and what it took to place them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from prometheus_client.metrics_core import Metric

from balancer.decisions import Decision
from server.observe.families import Histograms, counter, histogram, observe
from server.observe.record import Record

__all__ = ["RoutingMetrics"]

_REGRET_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RoutingMetrics:
    """Counts model calls as they end."""

    def __init__(self) -> None:
        self._regret: Histograms = {}
        self._prefix: Counter[tuple[str, ...]] = Counter()
        self._fallbacks: Counter[tuple[str, ...]] = Counter()
        self._hedges: Counter[tuple[str, ...]] = Counter()
        self._put_backs: Counter[tuple[str, ...]] = Counter()

    def settle(self, record: Record) -> None:
        """Count one finished model call."""
        model = record.model or ""
        if record.decision is not None:
            self._judge(record.decision)
        if record.put_backs:
            self._put_backs[model,] += record.put_backs
        if record.hedge is not None:
            self._hedges[model, record.hedge] += 1
        if record.fell_back_from:
            for step in pairwise((*record.fell_back_from, model)):
                self._fallbacks[step] += 1

    def _judge(self, decision: Decision) -> None:
        regret_s = decision.regret_s
        if regret_s is not None:
            # A histogram holds no negative values: how early is one of its own.
            direction = "early" if regret_s < 0 else "late"
            key = (decision.model, decision.policy, direction)
            observe(self._regret, key, _REGRET_S, abs(regret_s))
        if decision.prompt_tokens and decision.cached_tokens is not None and decision.placements:
            model, prompt = decision.model, decision.prompt_tokens
            self._prefix[model, "prompt"] += prompt
            self._prefix[model, "expected"] += expected_tokens(decision, prompt)
            self._prefix[model, "observed"] += min(decision.cached_tokens, prompt)

    def families(self) -> Iterator[Metric]:
        """Every metric of these, as it is now."""
        yield histogram(
            "triolet_routing_regret_seconds",
            "How far the first event was from when the policy predicted it.",
            ("model", "policy", "direction"),
            self._regret,
        )
        yield counter(
            "triolet_prefix_tokens",
            "Prompt tokens of calls whose replica reported what it had cached: all of them, those "
            "that it was expected to hold, and those that it held.",
            ("model", "kind"),
            self._prefix,
        )
        yield counter(
            "triolet_fallbacks",
            "Model calls that went on to the pool of another model.",
            ("model", "to"),
            self._fallbacks,
        )
        yield counter(
            "triolet_hedges",
            "Model calls whose first event was asked for twice, by whose came first.",
            ("model", "won"),
            self._hedges,
        )
        yield counter(
            "triolet_put_backs",
            "Places that went to a request of a higher tier.",
            ("model",),
            self._put_backs,
        )


def expected_tokens(decision: Decision, prompt_tokens: int) -> int:
    """What the chosen replica was expected to hold, of the tokens that it counted itself: ours are
    estimated at four bytes each, so only the share can be compared."""
    last = decision.placements[-1]
    if not last.prompt_tokens:
        return 0
    share = min(1.0, last.matched_tokens / last.prompt_tokens)
    return round(share * prompt_tokens)
