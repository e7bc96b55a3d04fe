"""What only a simulated replica has: faults that can be set while it runs, and its crash."""

from __future__ import annotations

from http import HTTPStatus
from random import Random
from typing import Any

import msgspec

from bench.replica.errors import RequestError, engine_down, simulated_error
from bench.replica.faults import FaultChange, change_faults
from bench.replica.simulated import SimulatedCore

__all__ = ["Simulation"]


class Simulation:
    """The faults of one replica on the simulated engine."""

    def __init__(self, core: SimulatedCore, seed: int) -> None:
        self.core = core
        self._draw = Random(f"{seed}/errors")

    def refuse(self) -> None:
        """Raises RequestError for a request that is to fail: the engine is down, or by error_rate.

        One draw for each request while there is an error rate, so that the same order of requests
        has the same failures.
        """
        self.refuse_while_down()
        faults = self.core.faults
        if faults.error_rate and self._draw.random() < faults.error_rate:
            raise simulated_error(HTTPStatus(faults.error_status))

    def refuse_while_down(self) -> None:
        """Raises RequestError (503) after a crash."""
        down_s = self.core.down_s
        if down_s:
            raise engine_down(down_s)

    def state(self) -> dict[str, Any]:
        """What `GET /simulation/faults` shows."""
        state: dict[str, Any] = msgspec.structs.asdict(self.core.faults)
        return {**state, "stalled_s": self.core.stalled_s, "down_s": self.core.down_s}

    def change(self, change: FaultChange) -> None:
        """Lasting faults and a stall, at once; not the crash. Raises RequestError (400)."""
        try:
            faults = change_faults(self.core.faults, change)
        except ValueError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error
        self.core.set_faults(faults)
        if change.stall_s is not None:
            self.core.stall(change.stall_s)
