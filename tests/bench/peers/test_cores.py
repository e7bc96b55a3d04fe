"""Who runs on which core."""

from __future__ import annotations

import pytest

from bench.load.result import ClientFacts
from bench.peers.cores import Cores, parse_cores, share_out
from bench.peers.usage import Used, load_side_share, load_side_warnings


def cores(gateway: set[int], client: set[int], *replicas: set[int]) -> Cores:
    return Cores(frozenset(gateway), frozenset(client), tuple(map(frozenset, replicas)))


def test_the_gateway_is_alone_as_far_as_there_are_cores() -> None:
    """One core is shared by all; from three on everybody has their own."""
    assert share_out({0}) == cores({0}, {0}, {0})
    assert share_out({0, 1}) == cores({1}, {0}, {0})
    assert share_out({0, 1, 2, 3}) == cores({3}, {0}, {1}, {2})
    assert share_out({0}).notes()
    assert not share_out({0, 1}).notes()


def test_the_gateway_gets_the_cores_that_were_given() -> None:
    """The others are for the rest; a core that is not there is told."""
    assert share_out({0, 1, 2, 3}, [0, 1]) == cores({0, 1}, {2}, {3})
    assert share_out({0, 1}, [0, 1]) == cores({0, 1}, {0}, {1})
    assert share_out({0, 1}, [0, 1]).notes()
    with pytest.raises(ValueError, match="core 7"):
        share_out({0, 1}, [7])


def test_cores_are_read_from_a_list() -> None:
    """Or named as what they are not."""
    assert parse_cores("2, 3") == [2, 3]
    assert parse_cores("") == []
    with pytest.raises(ValueError, match="'a' is not a list"):
        parse_cores("a")


def test_the_load_side_is_measured_by_its_own_cores() -> None:
    """Together where they share one, the busier one where they do not."""
    client, used = ClientFacts(cpu_s=2.0, wall_s=10.0), Used(1.0, 6.0)
    assert load_side_share(client, used, share_out({0, 1})) == pytest.approx(0.8)
    assert load_side_share(client, used, share_out({0, 1, 2, 3})) == pytest.approx(0.3)
    assert not load_side_warnings(0.8)
    assert "90%" in load_side_warnings(0.9)[0]
