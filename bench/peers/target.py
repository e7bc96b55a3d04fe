"""What is compared: a gateway at one of its policies, or the replicas themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from bench.peers.gateway import Gateway

__all__ = ["DIRECT", "Target", "in_random_order", "targets_of"]

DIRECT: Final = "direct"
_DIRECT_POLICIES: Final = ("round_robin", "session")
"""The client goes through the replicas in turn; or stays at one for a session."""


class Target(NamedTuple):
    """One line of the table."""

    gateway: Gateway | None
    """None: the client goes to the replicas itself."""
    policy: str

    @property
    def name(self) -> str:
        """Of the gateway."""
        return DIRECT if self.gateway is None else self.gateway.name

    def __str__(self) -> str:
        return f"{self.name}:{self.policy}"


def targets_of(
    given: str, gateways: Mapping[str, Gateway], *, default_only: bool = False
) -> list[Target]:
    """Targets out of `NAME` and `NAME:POLICY`, separated by commas; empty is everything.

    A name alone stands for all its policies, or with `default_only` for its first.
    Raises ValueError for a name or a policy that there is not.
    """
    words = [word.strip() for word in given.split(",") if word.strip()]
    found: dict[Target, None] = {}
    for word in words or [DIRECT, *gateways]:
        found.update(dict.fromkeys(_targets(word, gateways, default_only=default_only)))
    return list(found)


def _targets(word: str, gateways: Mapping[str, Gateway], *, default_only: bool) -> list[Target]:
    name, colon, policy = word.partition(":")
    if name != DIRECT and name not in gateways:
        known = ", ".join((DIRECT, *gateways))
        raise ValueError(f"no target {name!r}; there are {known}")
    gateway = gateways.get(name)
    policies = _DIRECT_POLICIES if gateway is None else gateway.policies
    if not colon:
        return [Target(gateway, one) for one in (policies[:1] if default_only else policies)]
    if policy not in policies:
        raise ValueError(f"{name} has no policy {policy!r} here; there are {', '.join(policies)}")
    return [Target(gateway, policy)]


def in_random_order(targets: Sequence[Target], *, repetition: int, seed: int) -> list[Target]:
    """The order of one repetition, another one each time: what changes slowly on the machine then
    falls on all alike."""
    order = list(targets)
    Random(f"peers/{seed}/{repetition}").shuffle(order)
    return order
