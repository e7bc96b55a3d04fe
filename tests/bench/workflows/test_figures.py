"""Medians over repetitions, and ratios of ours to the others'."""

from __future__ import annotations

import pytest

from bench.workflows.figures import Measured, figures, ratios


def measured(contender: str, cpu_s: float, *, runs: int = 100, case: str = "chain-10") -> Measured:
    return Measured(
        contender=contender, case=case, concurrency=1, runs=runs, cpu_s=cpu_s, wall_s=2 * cpu_s
    )


def test_figures_are_medians_with_their_ends() -> None:
    """CPU per run, runs per second of the wall clock, runs per CPU second."""
    found = figures([measured("triolet", cpu_s) for cpu_s in (0.1, 0.2, 0.4)])
    figure = found["triolet", "chain-10", 1]
    assert tuple(figure.cpu_ms) == pytest.approx((2.0, 1.0, 4.0))
    assert figure.runs_per_s.median == pytest.approx(250)
    assert figure.runs_per_cpu_s.median == pytest.approx(500)


def test_ratios_say_how_many_times_the_others() -> None:
    """With an interval over the repetitions that holds the truth."""
    ours = [measured("triolet", cpu_s) for cpu_s in (0.09, 0.1, 0.11)]
    theirs = [measured("graphon", cpu_s) for cpu_s in (4.5, 5.0, 5.5)]
    [ratio] = ratios([*ours, *theirs])
    assert (ratio.than, ratio.recorded) == ("graphon", False)
    assert ratio.times == pytest.approx(50)
    assert ratio.interval is not None
    assert ratio.interval.holds(50)
    assert not ratio.interval.holds(30)


def test_one_repetition_has_no_interval() -> None:
    """Nothing is known of how it varies."""
    [ratio] = ratios([measured("triolet", 0.1), measured("raw", 0.05)])
    assert ratio.times == pytest.approx(0.5)
    assert ratio.interval is None


def test_recorded_figures_are_marked() -> None:
    """They stand in where the other one was not measured; cases of ours alone count."""
    [ratio] = ratios([measured("triolet", 0.1)], {"chain-10": 50.0, "chain-50": 1.0})
    assert (ratio.case, ratio.recorded) == ("chain-10", True)
    assert ratio.times == pytest.approx(50)
