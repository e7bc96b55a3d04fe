"""What a placement costs is measured on the balancer's own pool."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from bench.simulate.decision_cost import decision_cost_command, measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("policy", ["least_request", "lmetric"])
def test_every_lease_is_measured(policy: str) -> None:
    """And every settlement; more replicas cost more."""
    few, many = (measure(count, policy, "agent", 300, 2) for count in (2, 60))
    assert few.lease_s.count == few.settle_s.count == few.leases == 300
    assert 0 < few.lease_s.p50 < many.lease_s.p50
    assert few.prompt_tokens > 1_000
    assert few.peak_bytes >= few.before_bytes > 1_000_000


def test_numbers_of_replicas_are_checked() -> None:
    """Before anything is measured."""
    result = CliRunner().invoke(decision_cost_command, ["--replicas", "4,many"])
    assert result.exit_code == 2
    assert "4,many" in result.output


@pytest.mark.slow
def test_a_line_for_each_policy_and_number() -> None:
    """Each from a process of its own."""
    options = ["--replicas", "2,3", "--policy", "random,least_request", "--requests", "100"]
    result = CliRunner().invoke(decision_cost_command, options)
    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.output.splitlines()[1:]] == [
        [policy, count] for policy in ("random", "least_request") for count in ("2", "3")
    ]
