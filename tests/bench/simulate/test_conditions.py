"""Conditions out of range are named before anything is played."""

from __future__ import annotations

import pytest

from bench.simulate.conditions import Conditions, Disturbance, parse_disturbance


def test_disturbance_is_a_replica_and_a_number() -> None:
    """`sim-1:0.5`, and nothing else."""
    assert parse_disturbance("sim-1:0.5", 2) == Disturbance(1, 0.5)


@pytest.mark.parametrize("text", ["sim-4:2", "sim-0", "sim-0:", "0:x", "sim--1:2", "", "a:b:c"])
def test_other_texts_are_named(text: str) -> None:
    """With what would be right."""
    with pytest.raises(ValueError, match="sim-0"):
        parse_disturbance(text, 4)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Conditions(prior_error=0),
        lambda: Conditions(prior_error=float("nan")),
        lambda: Conditions(slow=(Disturbance(0, 0.5),)),
        lambda: Conditions(slow=(Disturbance(0, float("inf")),)),
        lambda: Conditions(foreign=(Disturbance(0, 1.0),)),
        lambda: Conditions(foreign=(Disturbance(0, 0.0),)),
    ],
)
def test_what_cannot_be_is_refused(made: object) -> None:
    """A replica is not made faster, nor a GPU taken completely."""
    assert callable(made)
    with pytest.raises(ValueError, match="must be"):
        made()


def test_disturbed_are_those_with_something_wrong() -> None:
    """Each once."""
    conditions = Conditions(
        slow=(Disturbance(2, 2.0),), foreign=(Disturbance(2, 0.5), Disturbance(0, 0.5))
    )
    assert conditions.disturbed == {0, 2}
