"""Decisions that are kept: the latest, each once, and what they say of the prediction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.decisions import Decision, Decisions, Placement
from balancer.lease import Lease
from balancer.policies import POLICIES, UNKNOWN, Explanation
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.connect import Dialer


def placement(predicted_s: float | None = None, *, explained: bool = True) -> Placement:
    explanation = Explanation("s", (), (), 1, predicted_s) if explained else None
    return Placement("http://a", 0.0, 0, 100, explanation)


def decision(
    request_id: str = "id", *placements: Placement, observed_s: float | None = None
) -> Decision:
    return Decision(request_id, "m", "random", "batch", placements, observed_s, None, None)


@pytest.mark.parametrize(
    ("placements", "observed_s", "regret_s"),
    [
        ([placement(0.5)], 0.75, 0.25),
        ([placement(0.5)], 0.25, -0.25),
        ([placement(9.0), placement(0.5)], 0.5, 0.0),
        ([placement(0.5), placement(explained=False)], 0.5, None),
        ([placement(None)], 0.5, None),
        ([placement(0.5)], None, None),
        ([], 0.5, None),
    ],
)
def test_regret(
    placements: list[Placement], observed_s: float | None, regret_s: float | None
) -> None:
    """Of the last placement, which is the one that was answered; unknown unless both are known."""
    assert decision("id", *placements, observed_s=observed_s).regret_s == regret_s


def test_found_by_id() -> None:
    """Of two requests with one id the later is found, and is the latest."""
    kept = Decisions()
    for request_id, observed_s in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        kept.keep(decision(request_id, observed_s=observed_s))
    found = kept.find("a")
    assert found is not None
    assert found.observed_ttft_s == 3.0
    assert [one.request_id for one in kept.latest(10)] == ["a", "b"]
    assert kept.find("c") is None


@given(
    st.lists(st.sampled_from("abcdefgh"), max_size=30),
    st.integers(min_value=1, max_value=5),
    st.integers(min_value=0, max_value=9),
)
def test_the_latest_are_kept(ids: list[str], most: int, asked: int) -> None:
    """As many as are to be kept, no more, the latest of each id, the latest first."""
    kept = Decisions(most)
    for request_id in ids:
        kept.keep(decision(request_id))
    expected = list(dict.fromkeys(reversed(ids)))[:most]
    assert len(kept) == len(expected)
    assert [one.request_id for one in kept.latest(asked)] == expected[:asked]
    for request_id in "abcdefgh":
        assert (kept.find(request_id) is not None) == (request_id in expected)


async def test_a_placement_keeps_nothing_alive() -> None:
    """It holds numbers of the lease, not the lease with its prompt and its replica."""
    pool = Pool("m", [Replica("http://a", Dialer())], POLICIES["random"]())
    with await pool.lease((), UNKNOWN) as lease:
        found = Placement.of(lease, arrived=lease.leased_at - 2.0)
    assert found[:4] == ("http://a", 2.0, 0, UNKNOWN.prompt_tokens)
    assert not any(isinstance(part, Lease | Replica) for part in found)
