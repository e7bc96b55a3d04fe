"""Which cells are played for what was asked, and which of them are compared with which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bench.simulate.cell import LIMITS, Cell, parse_fleet, weightings
from bench.simulate.conditions import Conditions, parse_disturbance
from bench.simulate.hold_out import Variant, variants_of
from bench.workload.named import ABOUT, WorkloadOptions

__all__ = ["USUAL_FLEET", "Asked", "Scene", "cells_of", "scenes_of"]

USUAL_FLEET: Final = "h100-llama-8b:4"
_FLEETS: Final = {"mixed-fleet": "h100-llama-8b:2,a100-llama-8b:1,l40s-llama-8b:1"}
"""Of workloads that are about their fleet."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    workloads: Sequence[str]
    policies: Sequence[str]
    """Limits among them."""
    seeds: Sequence[int]
    fleet: str | None = None
    scale: float = 1.0
    rate: float | None = None
    max_in_flight: int | None = None
    conditions: Conditions = Conditions()
    """Without disturbances, which depend on the fleet."""
    slow: Sequence[str] = ()
    foreign: Sequence[str] = ()
    hold_out: bool = False
    static_weights: bool = False
    alone: str | None = None
    """A tier that is to be played without the others too."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One table: a workload on a fleet under conditions."""

    title: str
    workload: str
    fleet: tuple[str, ...]
    traffic_for: int
    """Replicas for which the workload is sized."""
    conditions: Conditions
    variant: Variant = Variant("")
    tier: str | None = None
    like: str = ""
    """The title of the scene that is compared with this one; empty: this is no comparison."""
    differs: str = ""
    """How this one differs from it."""

    @property
    def about(self) -> str:
        """What the workload stands for."""
        return ABOUT[self.workload]


def scenes_of(asked: Asked) -> list[Scene]:
    """In the order in which they are shown. Raises ValueError for a fleet or a disturbance that
    cannot be."""
    return [scene for workload in asked.workloads for scene in _of_workload(asked, workload)]


def cells_of(asked: Asked, scene: Scene) -> Iterator[Cell]:
    """One for each policy and seed; those of one policy together. Raises ValueError for a scale or
    rate that cannot be."""
    variant = scene.variant
    # What no policy can beat is the same whatever goes wrong, and says nothing of single tiers.
    skipped = LIMITS if scene.like else ()
    weighted = weightings(scene.fleet) if asked.static_weights else []
    for policy in (*(each for each in asked.policies if each not in skipped), *weighted):
        for seed in asked.seeds:
            options = WorkloadOptions(
                replicas=scene.traffic_for,
                scale=asked.scale * variant.scale,
                rate=asked.rate,
                pace=variant.pace,
                seed=seed,
            )
            yield Cell(
                workload=scene.workload,
                policy=policy,
                fleet=scene.fleet,
                options=options,
                max_in_flight=asked.max_in_flight,
                conditions=scene.conditions,
                title=scene.title,
                tier=scene.tier,
                lengths=variant.lengths,
            )


def _of_workload(asked: Asked, workload: str) -> Iterator[Scene]:
    for variant in variants_of(workload) if asked.hold_out else (Variant(""),):
        scene = _scene(asked, workload, variant)
        yield scene
        yield from _without_disturbance(scene)
        if asked.alone is not None:
            yield msgspec.structs.replace(
                scene,
                title=f"{scene.title}, {asked.alone} alone",
                tier=asked.alone,
                like=scene.title,
                differs=f"{asked.alone} alone",
            )


def _scene(asked: Asked, workload: str, variant: Variant) -> Scene:
    own = asked.fleet or _FLEETS.get(workload, USUAL_FLEET)
    fleet = parse_fleet(variant.fleet or own)
    conditions = msgspec.structs.replace(
        asked.conditions,
        slow=tuple(parse_disturbance(each, len(fleet)) for each in asked.slow),
        foreign=tuple(parse_disturbance(each, len(fleet)) for each in asked.foreign),
    )
    return Scene(
        title=f"{workload}, {variant.name}" if variant.name else workload,
        workload=workload,
        fleet=fleet,
        traffic_for=len(fleet),
        conditions=conditions,
        variant=variant,
    )


def _without_disturbance(scene: Scene) -> Iterator[Scene]:
    """The same with all replicas in order, and the same traffic on those alone that are."""
    disturbed = scene.conditions.disturbed
    if not disturbed:
        return
    undisturbed = msgspec.structs.replace(
        scene,
        title=f"{scene.title}, undisturbed",
        conditions=msgspec.structs.replace(scene.conditions, slow=(), foreign=()),
        like=scene.title,
        differs="undisturbed",
    )
    yield undisturbed
    others = tuple(one for number, one in enumerate(scene.fleet) if number not in disturbed)
    if others:
        names = " and ".join(f"sim-{number}" for number in sorted(disturbed))
        yield msgspec.structs.replace(
            undisturbed,
            title=f"{scene.title}, without {names}",
            fleet=others,
            differs=f"without {names}",
        )
