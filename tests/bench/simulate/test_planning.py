"""What is played for what was asked, and what is compared with what."""

from __future__ import annotations

from typing import Any

import pytest

from bench.simulate.cell import LIMITS
from bench.simulate.planning import Asked, cells_of, scenes_of
from bench.simulate.weights import STATIC_WEIGHTS


def asked(**more: Any) -> Asked:
    return Asked(**{"workloads": ("agent",), "policies": ("random",), "seeds": (1, 2), **more})


def test_one_scene_for_each_workload() -> None:
    """With its own fleet unless one is given; one cell for each policy and seed."""
    agent, mixed = scenes_of(asked(workloads=("agent", "mixed-fleet")))
    assert (agent.title, agent.fleet) == ("agent", ("h100-llama-8b",) * 4)
    assert len(set(mixed.fleet)) == 3
    cells = list(cells_of(asked(policies=("random", *LIMITS)), agent))
    assert [(cell.policy, cell.options.seed) for cell in cells] == [
        (policy, seed) for policy in ("random", *LIMITS) for seed in (1, 2)
    ]


def test_disturbed_fleet_is_compared_with_two_others() -> None:
    """With the same one in order, and with the replicas alone that are, under the same traffic."""
    wanted = asked(slow=("sim-1:2",), foreign=("sim-3:0.5",), policies=("random", *LIMITS))
    scene, undisturbed, without = scenes_of(wanted)
    assert scene.conditions.disturbed == {1, 3}
    assert undisturbed.conditions.disturbed == without.conditions.disturbed == set()
    assert (len(undisturbed.fleet), len(without.fleet)) == (4, 2)
    assert without.title == "agent, without sim-1 and sim-3"
    assert undisturbed.like == without.like == scene.title
    [first, second] = cells_of(wanted, without)  # limits are the same whatever goes wrong
    assert first.options.replicas == second.options.replicas == 4


def test_a_fleet_of_one_cannot_do_without_it() -> None:
    """There is nothing left to compare with but the fleet in order."""
    wanted = asked(fleet="h100-llama-8b:1", slow=("sim-0:2",))
    assert [scene.differs for scene in scenes_of(wanted)] == ["", "undisturbed"]


def test_tier_alone() -> None:
    """The same traffic without the others."""
    scene, alone = scenes_of(asked(workloads=("mixed-tiers",), alone="batch"))
    assert (scene.tier, alone.tier, alone.like) == (None, "batch", scene.title)
    assert {cell.tier for cell in cells_of(asked(), alone)} == {"batch"}


def test_hold_out_plays_variants_instead() -> None:
    """Each is a scene of its own, with its rate, lengths and fleet in the cells."""
    wanted = asked(hold_out=True)
    scenes = scenes_of(wanted)
    assert "agent" not in {scene.title for scene in scenes}
    by_title = {scene.title: next(cells_of(wanted, scene)) for scene in scenes}
    assert by_title["agent, rate x 0.7"].options.pace == 0.7
    assert by_title["agent, lengths x 1.6"].lengths == 1.6
    assert len(by_title["agent, 16 replicas"].fleet) == 16
    assert by_title["agent, 16 replicas"].options.replicas == 16


def test_static_weights_are_policies_more() -> None:
    """One for each weighting."""
    wanted = asked(fleet="h100-llama-8b:1,l40s-llama-8b:1", static_weights=True)
    policies = {cell.policy for cell in cells_of(wanted, scenes_of(wanted)[0])}
    assert sum(policy.startswith(STATIC_WEIGHTS) for policy in policies) > 5


@pytest.mark.parametrize("more", [{"slow": ("sim-9:2",)}, {"fleet": "no:1"}, {"foreign": ("x",)}])
def test_what_cannot_be_is_named(more: dict[str, object]) -> None:
    """Before anything is played."""
    with pytest.raises(ValueError, match=r"sim-9|no|x"):
        scenes_of(asked(**more))
