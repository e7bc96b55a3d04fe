"""Pools, replicas and decisions as the admin API shows them. Times in ms, shares from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from balancer.decisions import Decision, Placement, policy_name
from balancer.policies import Candidate, Explanation
from balancer.pool import Pool
from balancer.readings import Gauges, GpuReading
from balancer.replica import UNBOUNDED, Replica

__all__ = ["decision_line", "decision_view", "pool_view", "replica_view"]


def pool_view(pool: Pool) -> dict[str, Any]:
    """One pool."""
    found = pool.statistics()
    return {
        "model": found.model,
        "policy": policy_name(pool.policy),
        "replicas": [replica.name for replica in pool.replicas],
        "up": found.up,
        "in_flight": found.in_flight,
        "waiting": found.waiting,
        "panic": found.panic,
        "ejected": pool.ejected(),
        "fallback": pool.settings.fallback,
        "tiers": [msgspec.to_builtins(tier) for tier in found.tiers],
    }


def replica_view(
    replica: Replica, models: Sequence[str], now: float, *, runs: int = 0
) -> dict[str, Any]:
    """One replica: its state, its load by our books, what it and its GPUs say, what was learned.

    `runs`: those that its drain waits for.
    """
    found = replica.statistics(now)
    return {
        "url": found.name,
        "models": models,
        "state": found.state,
        "in_flight": found.in_flight,
        "runs": runs,
        "unread": found.unread,
        "unread_tokens": found.unread_tokens,
        "room": None if replica.room == UNBOUNDED else replica.room,
        "requests": found.requests,
        "failures": found.failures,
        "tokens": {
            "prompt": found.prompt_tokens,
            "cached": found.cached_tokens,
            "output": found.output_tokens,
        },
        "kv_share": _rounded(replica.kv_share(now), 3),
        "learned": {
            "prefill_tokens_per_s": round(replica.speed.prefill_tokens_per_s(now)),
            "decode_ms_per_stream": _ms(replica.speed.decode_s_per_stream(now), 4),
        },
        "foreign": {
            "gpu_share": round(replica.foreign_share, 3),
            "requests": round(replica.foreign_requests, 1),
        },
        "engine": _gauges(replica.gauges, now),
        "gpu": _gpu(replica.gpu, now),
    }


def _gauges(gauges: Gauges | None, now: float) -> dict[str, Any] | None:
    if gauges is None:
        return None
    return {
        "age_s": round(now - gauges.at, 1),
        "running": gauges.running,
        "waiting": gauges.waiting,
        "kv_share": _rounded(gauges.kv_share, 3),
        "kv_tokens": gauges.kv_tokens,
        "max_running": gauges.max_running,
    }


def _gpu(reading: GpuReading | None, now: float) -> dict[str, Any] | None:
    if reading is None:
        return None
    return {
        "age_s": round(now - reading.at, 1),
        "utilisation": _rounded(reading.utilisation, 3),
        "memory_share": _rounded(reading.memory_share, 3),
        "foreign_memory_bytes": reading.foreign_memory_bytes,
        "power_w": _rounded(reading.power_w, 1),
        "temperature_c": reading.temperature_c,
        "throttled": reading.throttled,
        "fault": reading.fault,
    }


def decision_line(decision: Decision) -> dict[str, Any]:
    """One decision in short."""
    last = decision.placements[-1] if decision.placements else None
    return {
        "request_id": decision.request_id,
        "model": decision.model,
        "policy": decision.policy,
        "tier": decision.tier,
        "replica": None if last is None else last.replica,
        "attempts": len(decision.placements),
        "predicted_ttft_ms": _ms(decision.predicted_ttft_s),
        "observed_ttft_ms": _ms(decision.observed_ttft_s),
        "regret_ms": _ms(decision.regret_s),
    }


def decision_view(decision: Decision) -> dict[str, Any]:
    """One decision in full."""
    return {
        **decision_line(decision),
        "prompt_tokens": decision.prompt_tokens,
        "cached_tokens": decision.cached_tokens,
        "placements": [_placement(placement) for placement in decision.placements],
    }


def _placement(placement: Placement) -> dict[str, Any]:
    return {
        "replica": placement.replica,
        "at_ms": _ms(placement.at_s),
        "prompt_tokens_estimated": placement.prompt_tokens,
        "cached_tokens_expected": placement.matched_tokens,
        "explanation": _explanation(placement.explanation),
    }


def _explanation(explanation: Explanation | None) -> dict[str, Any] | None:
    if explanation is None:
        return None
    in_ms = explanation.unit == "s"
    return {
        "unit": "ms" if in_ms else explanation.unit,
        "considered": explanation.considered,
        "candidates": [
            _candidate(candidate, explanation.terms, 1000.0 if in_ms else 1.0)
            for candidate in explanation.candidates
        ],
    }


def _candidate(candidate: Candidate, names: Sequence[str], factor: float) -> dict[str, Any]:
    terms = {
        name: round(term * factor, 3) for name, term in zip(names, candidate.terms, strict=True)
    }
    return {
        "replica": candidate.replica,
        "in_flight": candidate.in_flight,
        "matched_tokens": candidate.matched_tokens,
        "cost": round(sum(terms.values()), 3),
        "terms": terms,
    }


def _ms(seconds: float | None, digits: int = 2) -> float | None:
    return None if seconds is None else round(seconds * 1000, digits)


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
