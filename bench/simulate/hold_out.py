"""Variants of the workloads on which nothing was tuned: other rates, lengths, fleets and engines.

No constant of a policy may be chosen by looking at them. Rates are such that good balancing does
not saturate the replicas, as in the workloads themselves.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bench.workload.named import WORKLOADS

__all__ = ["Variant", "variants_of"]


class Variant(NamedTuple):
    """One variant of a workload."""

    name: str
    fleet: str | None = None
    """None: the workload's own."""
    pace: float = 1.0
    """What the workload's own rate is multiplied by."""
    lengths: float = 1.0
    scale: float = 1.0
    """Larger fleets have as much traffic per replica: a part of it will do."""


_USUAL: Final = (
    Variant("rate x 0.7", pace=0.7),
    Variant("rate x 1.15", pace=1.15),
    Variant("lengths x 0.6", pace=1.5, lengths=0.6),
    Variant("lengths x 1.6", pace=0.55, lengths=1.6),
)
_SIZES: Final = (
    Variant("2 replicas", "h100-llama-8b:2"),
    Variant("8 replicas", "h100-llama-8b:8", scale=0.5),
    Variant("16 replicas", "h100-llama-8b:16", scale=0.3),
)
_ENGINES: Final = {"a100": 0.35, "l40s": 0.3, "a10": 0.1}
"""What replicas of another kind can take, of what an H100 can."""

_OTHER_PACES: Final = {
    # Decoding alone, at so many sessions at once.
    **{("multi-turn", gpu): 1.0 for gpu in _ENGINES},
    # An A10 has room for 30,000 tokens of keys and values.
    ("agent", "a10"): 0.06,
    ("cold-heavy-tail", "a10"): 0.05,
    ("fan-out", "a10"): 0.06,
    ("shared-prefix", "lengths x 1.6"): 0.45,
    ("conversation", "a100"): 0.25,
    ("conversation", "l40s"): 0.2,
    ("coding-agent", "l40s"): 0.2,
}
"""Where memory or the kind of work makes another rate necessary."""

_LEFT_OUT: Final = {
    # Contexts of up to 128 Ki tokens are refused, or fill one replica each.
    ("conversation", "a10"),
    ("coding-agent", "lengths x 1.6"),
    ("coding-agent", "a10"),
    # It would hold four of the prompts, of 64 prefixes.
    ("shared-prefix", "a10"),
}
_PARTS: Final = {"azure-conv": 0.25, "skewed-tenants": 0.25, "conversation": 0.5}
"""How much of long traces."""

_MIXED_FLEETS: Final = (
    Variant("one fast of three", "h100-llama-8b:1,l40s-llama-8b:2", pace=0.6),
    Variant("a100 and rtx4090", "a100-llama-8b:2,rtx4090-llama-8b:2", pace=0.35),
)


def variants_of(workload: str) -> tuple[Variant, ...]:
    """The variants of a workload of that name. Raises KeyError if there is none."""
    if workload not in WORKLOADS:
        raise KeyError(workload)
    engines = [Variant(gpu, f"{gpu}-llama-8b:4", pace) for gpu, pace in _ENGINES.items()]
    others = _MIXED_FLEETS if workload == "mixed-fleet" else (*_SIZES, *engines)
    return tuple(
        one._replace(
            pace=_OTHER_PACES.get((workload, one.name), one.pace),
            scale=one.scale * _PARTS.get(workload, 1.0),
        )
        for one in (*_USUAL, *others)
        if (workload, one.name) not in _LEFT_OUT
    )
