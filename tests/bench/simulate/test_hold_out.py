"""Hold-out variants are other traffic than the workloads, and can be played."""

from __future__ import annotations

import pytest

from bench.simulate.cell import parse_fleet
from bench.simulate.hold_out import Variant, variants_of
from bench.workload.named import WORKLOADS


@pytest.mark.parametrize("workload", WORKLOADS)
def test_each_workload_has_variants(workload: str) -> None:
    """Of rate, length and fleet, each with a name of its own and a fleet that exists."""
    variants = variants_of(workload)
    assert len({variant.name for variant in variants}) == len(variants) >= 5
    assert any(variant.pace != 1 and variant.lengths == 1 for variant in variants)
    assert any(variant.lengths != 1 for variant in variants)
    assert any(variant.fleet for variant in variants)
    for variant in variants:
        assert variant.pace > 0 < variant.scale <= 1
        assert variant._replace(name="", scale=1.0) != Variant("")
        parse_fleet(variant.fleet or "h100-llama-8b:4")


def test_unknown_workload() -> None:
    """Is named."""
    with pytest.raises(KeyError):
        variants_of("chat")
