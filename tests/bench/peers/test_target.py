"""Targets out of names, and the order they are measured in."""

from __future__ import annotations

import pytest

from bench.peers.registry import PEERS
from bench.peers.target import in_random_order, targets_of


def names(given: str, *, default_only: bool = False) -> list[str]:
    return [str(target) for target in targets_of(given, PEERS, default_only=default_only)]


def test_a_name_is_all_its_policies_and_a_pair_is_one() -> None:
    """In the order given, each once."""
    assert names("portkey,direct:round_robin,direct") == [
        "portkey:loadbalance",
        "direct:round_robin",
        "direct:session",
    ]


def test_nothing_given_is_everything() -> None:
    """Or of everything its default."""
    assert len(names("")) == 2 + sum(len(peer.policies) for peer in PEERS.values())
    defaults = [f"{peer.name}:{peer.policies[0]}" for peer in PEERS.values()]
    assert names("", default_only=True) == ["direct:round_robin", *defaults]


@pytest.mark.parametrize(
    ("given", "message"), [("haproxy", "there are direct"), ("nginx:best", "least_conn")]
)
def test_what_there_is_not_is_told(given: str, message: str) -> None:
    """With what there is."""
    with pytest.raises(ValueError, match=message):
        names(given)


def test_the_order_is_another_one_each_time_and_the_same_for_a_seed() -> None:
    """No target is always the first or after the same one."""
    targets = targets_of("", PEERS)
    orders = [in_random_order(targets, repetition=index, seed=1) for index in range(3)]
    assert all(sorted(map(str, order)) == sorted(map(str, targets)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert in_random_order(targets, repetition=2, seed=1) == orders[2]
    assert in_random_order(targets, repetition=2, seed=2) != orders[2]
