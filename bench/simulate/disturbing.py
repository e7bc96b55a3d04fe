"""Foreign jobs on the GPUs of replicas, while a workload is played."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from bench.engine import Clockwork
from bench.simulate.conditions import Disturbance
from bench.simulate.probing import Machine

__all__ = ["FOREIGN_OFF_S", "FOREIGN_ON_S", "disturb"]

FOREIGN_ON_S: Final = 20.0
FOREIGN_OFF_S: Final = 20.0
"""A foreign job comes and goes: long enough to be noticed, too short to be learned once for all."""

_FIRST_S: Final = 5.0 + 0.0123
"""No whole second, so that it never falls together with a request: Trio runs the tasks of one
moment in any order."""


async def disturb(
    foreign: Sequence[Disturbance], machines: Sequence[Machine], clockwork: Clockwork
) -> None:
    """Have foreign jobs come and go, all at the same times, until cancelled."""
    if not foreign:
        return
    await trio.sleep(_FIRST_S)
    while True:
        for there, pause_s in ((True, FOREIGN_ON_S), (False, FOREIGN_OFF_S)):
            for job in foreign:
                machine = machines[job.replica]
                machine.foreign = job.amount if there else 0.0
                machine.set_pace(trio.current_time())
                clockwork.engine_changed(machine.engine)
            await trio.sleep(pause_s)
