"""What a policy may know of a replica."""

from __future__ import annotations

from typing import Protocol, TypeVar

__all__ = ["Loaded", "R"]


class Loaded(Protocol):
    """A replica as policies see it."""

    @property
    def name(self) -> str:
        """Its address; unique in a pool."""

    @property
    def in_flight(self) -> int:
        """Requests leased to it now and not yet settled."""


R = TypeVar("R", bound=Loaded)
