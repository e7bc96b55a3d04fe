"""Reference policies: what other projects do, written from their public descriptions.

They take the place of a policy of the balancer in a simulation. Each file says which project it
follows, where its constants come from and what is simplified. All decide on what a router can know
by itself: own counters and an index of the prompts it sent; none reads an engine's gauges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from balancer.policies import Policy
from bench.simulate.reference.bounded_hash import BoundedHash
from bench.simulate.reference.dynamo_cost import DynamoCost
from bench.simulate.reference.expected_cost import ExpectedCost
from bench.simulate.reference.fleet import Engine, Fleet
from bench.simulate.reference.higress_prefix import HigressPrefix
from bench.simulate.reference.llmd_blend import LlmdBlend
from bench.simulate.reference.llmd_sticky import LlmdSticky
from bench.simulate.reference.lmetric import LMetric
from bench.simulate.reference.ring_hash import RingHash
from bench.simulate.reference.session_sticky import SessionSticky
from bench.simulate.reference.sglang_cache_aware import SglangCacheAware
from bench.simulate.reference.smg_least_load import SmgLeastLoad

__all__ = ["REFERENCE", "Engine", "Fleet"]

REFERENCE: Final[Mapping[str, Callable[[Fleet], Policy]]] = {
    "sglang_cache_aware": SglangCacheAware,
    "sglang_cache_aware_code": partial(SglangCacheAware, threshold=0.5, absolute=32, relative=1.1),
    "llmd_blend": LlmdBlend,
    "llmd_sticky": LlmdSticky,
    "dynamo_cost": DynamoCost,
    "lmetric": LMetric,
    "bounded_hash": BoundedHash,
    "ring_hash": RingHash,
    "higress_prefix": HigressPrefix,
    "session_sticky": SessionSticky,
    "smg_least_load": SmgLeastLoad,
    "expected_cost_told": ExpectedCost,
}
"""By name. `sglang_cache_aware` has the defaults of its command line, `..._code` those of its
code. `expected_cost_told` is the balancer's own as first designed, told how fast each replica is;
that of the balancer has to find out."""
