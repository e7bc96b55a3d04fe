"""What can be made to go wrong with a simulated replica. The same seed gives the same faults."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import msgspec

__all__ = ["FaultChange", "Faults", "Slowness", "change_faults"]

ERROR_STATUSES: Final = (429, 500, 502, 503, 504)

_WARMUP_STAGES: Final = 10


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """The lasting ones. Raises ValueError for a value out of range."""

    slow: float = 1.0
    """Each step takes so many times as long; 0.01 to 1000."""
    foreign_load: float = 0.0
    """Share of the GPU that others use, 0 to 0.8: steps take 1 / (1 - share) times as long."""
    error_rate: float = 0.0
    """Share of requests that are answered with an error instead, 0 to 1."""
    error_status: int = 500
    """That error's status; one of `ERROR_STATUSES`."""
    warmup_s: float = 0.0
    """So long after each start steps are slower, by a factor that keeps changing; 0 or more."""
    warmup_slow: float = 5.0
    """The most that factor can be, at the beginning; 1 to 1000."""

    def __post_init__(self) -> None:
        for key, good, expected in (
            ("slow", 0.01 <= self.slow <= 1000, "a factor, 0.01 to 1000"),
            ("foreign_load", 0 <= self.foreign_load <= 0.8, "a share, 0 to 0.8"),
            ("error_rate", 0 <= self.error_rate <= 1, "a share, 0 to 1"),
            ("error_status", self.error_status in ERROR_STATUSES, f"one of {ERROR_STATUSES}"),
            ("warmup_s", 0 <= self.warmup_s <= 86_400, "seconds, 0 to 86400"),
            ("warmup_slow", 1 <= self.warmup_slow <= 1000, "a factor, 1 to 1000"),
        ):
            if not good:
                raise ValueError(f"fault {key} = {getattr(self, key)!r}: expected {expected}")


class FaultChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `POST /simulation/faults` takes: lasting faults to change, and what happens once."""

    slow: float | msgspec.UnsetType = msgspec.UNSET
    foreign_load: float | msgspec.UnsetType = msgspec.UNSET
    error_rate: float | msgspec.UnsetType = msgspec.UNSET
    error_status: int | msgspec.UnsetType = msgspec.UNSET
    warmup_s: float | msgspec.UnsetType = msgspec.UNSET
    warmup_slow: float | msgspec.UnsetType = msgspec.UNSET
    stall_s: float | None = None
    """No step begins for so long, from now."""
    crash_s: float | None = None
    """Everything is lost now, and the replica is down for so long."""

    def __post_init__(self) -> None:
        for key in ("stall_s", "crash_s"):
            seconds = getattr(self, key)
            if seconds is not None and not 0 <= seconds <= 86_400:
                raise ValueError(f"fault {key} = {seconds!r}: expected seconds, 0 to 86400")


def change_faults(faults: Faults, change: FaultChange) -> Faults:
    """`faults` with the lasting changes in `change`. Raises ValueError for a value out of range."""
    given: dict[str, Any] = {
        key: value
        for key in Faults.__struct_fields__
        if (value := getattr(change, key)) is not msgspec.UNSET
    }
    return msgspec.structs.replace(faults, **given)


class Slowness:
    """By what factor steps take longer than they should, as time passes since the start."""

    def __init__(self, seed: int) -> None:
        draw = Random(f"{seed}/warmup")
        self._draws = [draw.random() for _ in range(_WARMUP_STAGES)]

    def factor(self, faults: Faults, up_s: float) -> float:
        """`up_s` seconds after the start."""
        factor = faults.slow / (1 - faults.foreign_load)
        up_s = max(0.0, up_s)  # while it is down it has not started yet
        if up_s >= faults.warmup_s:
            return factor
        stage = int(up_s / faults.warmup_s * _WARMUP_STAGES)
        most = (faults.warmup_slow - 1) * (1 - stage / _WARMUP_STAGES)
        return factor * (1 + most * self._draws[stage])
