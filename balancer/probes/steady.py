"""A task of ours that meets an error nobody foresaw is started again: what is asked is not trusted,
and no answer may end the process that carries everybody's streams."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

__all__ = ["keep_going"]

log = logging.getLogger("triolet.probes")

_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 60.0
"""Doubled up to here. What worked for so long begins with the shortest again."""


async def keep_going(what: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run `work` until it returns or is cancelled; after any other error log it and start again.

    `what` names it in the log.
    """
    pause_s = _PAUSE_S
    while True:
        began = trio.current_time()
        try:
            await work()
            return
        except Exception:
            log.exception("%s failed unexpectedly; it is started again", what)
        if trio.current_time() - began > _PAUSE_MAX_S:
            pause_s = _PAUSE_S
        await trio.sleep(pause_s * random.uniform(0.8, 1.2))
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)
