"""What a policy may be told of the replicas before the first request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import msgspec

__all__ = ["Engine", "Fleet"]


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The engine behind a replica. Raises `ValueError` if a number is not above 0."""

    kv_tokens: int
    """What its KV cache holds."""
    prefill_tokens_per_s: float
    """Prompt tokens it reads per second while it does nothing else."""
    max_running: int
    """Sequences in one batch at most."""
    decode_s_per_stream: float = 0.00042
    """How much longer each decode step takes for each stream more, in seconds: the 0.42 ms of the
    simulation with which `expected_cost` was designed."""

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} is {getattr(self, field)}, must be more than 0")


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of a simulation, as a policy may know them."""

    replicas: int
    """How many, 1 or more."""
    engine: Engine
    """What is behind each of them, unless `engines` says otherwise."""
    clock: Callable[[], float]
    """Now, in seconds from any fixed time on; never goes back."""
    seed: int = 0
    engines: Mapping[str, Engine] = msgspec.field(default_factory=dict)
    """By replica name: those of a mixed fleet that differ."""

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas is {self.replicas}, must be 1 or more")

    def of(self, replica: str) -> Engine:
        """The engine behind the replica of that name."""
        return self.engines.get(replica, self.engine)

    def kv_tokens(self, replica: str) -> int:
        """What the KV cache of the replica of that name holds."""
        return self.of(replica).kv_tokens

    def random(self) -> Random:
        """A source of chance of its own for each who asks, the same for the same seed."""
        return Random(self.seed)
