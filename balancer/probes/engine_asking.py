"""How one engine is asked for its load: where it tells it is found out, and remembered."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec
import trio

from balancer.errors import AnswerInvalid, ConnectFailed
from balancer.probes.engine_metrics import Reading
from balancer.probes.engine_places import Place
from balancer.probes.engine_status import FACTS, Facts
from balancer.probes.kept import KeptGet
from balancer.readings import Gauges
from balancer.wire.fetch import FetchFailed

__all__ = ["EngineAsked", "Unread"]

log = logging.getLogger("triolet.gauges")

_AGAIN_S: Final = 60.0
"""When a second-best place is doubted, and facts are asked for that nobody answered with."""
_FACTS_BYTES: Final = 65_536
"""Longer JSON is not read."""
_READ_HERE_BYTES: Final = 65_536
"""A larger page of metrics is read in a thread."""
_BUSY_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that say nothing about whether the path exists."""


class Unread(Enum):
    """Why there is no reading."""

    UNREACHABLE = "nobody listens"
    SILENT = "no answer in time, or too busy for one"
    NOTHING = "an answer that tells nothing of its load"


class EngineAsked:
    """One replica's engine. `ask` it now and then, one at a time; `close` in the end."""

    def __init__(
        self, name: str, get: KeptGet, places: Sequence[Place], *, timeout_s: float
    ) -> None:
        """`name` is the replica's; `places` are tried in this order."""
        self._replica = name
        self._get = get
        self._places = places
        self._timeout_s = timeout_s
        self._engine = ""
        self._place: Place | None = None
        self._doubted_at = math.inf
        """When better places are tried again: one did not answer when this one was found."""
        self._facts = Facts()
        self._facts_at = 0.0
        self._told_nothing = False

    def forget_facts(self) -> None:
        """It was restarted, maybe with other settings."""
        self._facts, self._facts_at = Facts(), 0.0

    def close(self) -> None:
        self._get.close()

    async def ask(self) -> Reading | Unread:
        """One poll: the place that answered last time, else one after the other."""
        if self._place is not None and trio.current_time() < self._doubted_at:
            answer = await self._read(self._place)
            if answer is Unread.NOTHING:
                self._place = None
        else:
            answer = await self._look_for_place()
        if isinstance(answer, Unread):
            return answer
        self._engine = answer.engine
        return answer._replace(gauges=await self._with_facts(answer.gauges))

    async def _look_for_place(self) -> Reading | Unread:
        result = Unread.NOTHING
        for place in self._places:
            answer = await self._read(place)
            if isinstance(answer, Reading):
                self._found(place, answer.engine, doubted=result is Unread.SILENT)
                return answer
            if answer is Unread.UNREACHABLE:
                return answer
            if answer is Unread.SILENT:
                result = answer
        if result is Unread.NOTHING:
            self._found_nothing()
        return result

    def _found(self, place: Place, engine: str, *, doubted: bool) -> None:
        self._doubted_at = trio.current_time() + _AGAIN_S if doubted else math.inf
        if place is not self._place:
            where = f"{self._get.origin}{place.path}"
            log.info("replica %s: %s tells its load at %s", self._replica, engine, where)
        self._place = place
        self._told_nothing = False

    def _found_nothing(self) -> None:
        if not self._told_nothing:
            tried = ", ".join(f"{self._get.origin}{place.path}" for place in self._places)
            log.info("replica %s tells nothing of its load (tried %s)", self._replica, tried)
        self._place = None
        self._told_nothing = True

    async def _with_facts(self, gauges: Gauges) -> Gauges:
        """With what the engine says once and elsewhere, where the reading lacks it."""
        if self._engine not in FACTS or None not in (gauges.kv_tokens, gauges.max_running):
            return gauges
        if trio.current_time() >= self._facts_at:
            await self._ask_facts()
        kv_tokens, max_running = self._facts
        return msgspec.structs.replace(
            gauges,
            kv_tokens=gauges.kv_tokens or kv_tokens,
            max_running=gauges.max_running or max_running,
        )

    async def _ask_facts(self) -> None:
        path, read = FACTS[self._engine]
        body = await self._fetch(path)
        self._facts = Facts()
        if isinstance(body, bytes) and len(body) <= _FACTS_BYTES:
            self._facts = read(body) or Facts()
        unheard = body in (Unread.SILENT, Unread.UNREACHABLE)
        self._facts_at = trio.current_time() + _AGAIN_S if unheard else math.inf

    async def _read(self, place: Place) -> Reading | Unread:
        body = await self._fetch(place.path)
        if isinstance(body, Unread):
            return body
        now = trio.current_time()
        if len(body) <= (_READ_HERE_BYTES if place.is_page else place.most_bytes):
            return place.read(body, now, self._engine) or Unread.NOTHING
        if not place.is_page:
            return Unread.NOTHING
        reading = await trio.to_thread.run_sync(
            place.read, body, now, self._engine, abandon_on_cancel=True
        )
        return reading or Unread.NOTHING

    async def _fetch(self, path: str) -> bytes | Unread:
        try:
            status, body = await self._get.get(path, self._timeout_s)
        except ConnectFailed:
            return Unread.UNREACHABLE
        except AnswerInvalid:
            return Unread.NOTHING
        except FetchFailed:
            return Unread.SILENT
        if status == 200:
            return body
        return Unread.SILENT if status in _BUSY_STATUSES else Unread.NOTHING
