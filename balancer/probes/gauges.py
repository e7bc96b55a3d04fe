"""Reads what engines say of their load: one task for each replica asks every 2 s or so."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import trio

from balancer.probes.engine_asking import EngineAsked, Unread
from balancer.probes.engine_metrics import Reading, Starts
from balancer.probes.engine_places import PAGE, PLACES
from balancer.probes.kept import KeptGet
from balancer.probes.per_replica import TaskPerReplica
from balancer.readings import Gauges
from balancer.replica import Replica
from balancer.wire.connect import Dialer, Origin

__all__ = ["GaugeProbes"]

log = logging.getLogger("triolet.gauges")

_RARELY_S: Final = 60.0
"""The longest that an engine which tells nothing is left alone."""
_POLLS_PER_S: Final = 200.0
"""Of all replicas together, at most: a poll costs about 0.5 ms of CPU, most of it the kernel's."""


_SEVERAL: Final = (
    "replica %s: several processes answer at its URL in turn, so their metrics do not tell when "
    "one is started again; list each of them as a replica of its own"
)


def _ignore_reading(_: Replica, __: Gauges, ___: int) -> None:
    """For those who look at `replica.gauges` when they need them."""


class GaugeProbes:
    """Keeps `replica.gauges` fresh for a changing set of replicas.

    A replica that does not answer keeps its last snapshot, whose age tells; none is ever invented.
    One that a health probe found down is not asked.

    An engine that was started anew is noticed, and `replica.restarted` told: its cache is empty.
    `on_read(replica, gauges, own)` is called with each new snapshot; `own` is the most that we had
    in flight there while it was taken. It may not wait.
    `pages` says (by a replica's name) where its metrics are, if not under its own URL: Triton has
    them on a port of their own. The whole path is the base of the `Origin`.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        poll_s: float = 2.0,
        timeout_s: float = 0.5,
        on_read: Callable[[Replica, Gauges, int], object] = _ignore_reading,
        pages: Mapping[str, Origin] | None = None,
    ) -> None:
        self._dialer = dialer
        self._least_poll_s = poll_s
        self._timeout_s = timeout_s
        self._on_read = on_read
        self._pages = {} if pages is None else pages
        self._tasks = TaskPerReplica("reading the load of", self._keep_asking, self._settings)

    async def run(
        self,
        replicas: Iterable[Replica],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Ask until cancelled."""
        await self._tasks.run(replicas, task_status=task_status)

    @property
    def poll_s(self) -> float:
        """How often each is asked, now: as wanted, or less often the more there are
        (with the default, above 400)."""
        return max(self._least_poll_s, len(self._tasks) / _POLLS_PER_S)

    def watch(self, replicas: Iterable[Replica]) -> None:
        """Ask these from now on, and no others; where and with what they are asked as it is now."""
        self._tasks.watch(replicas)

    async def _keep_asking(self, replica: Replica) -> None:
        engine, starts = self._engine(replica), Starts()
        pause_s = self.poll_s
        try:
            # Many replicas, and many processes, must not be asked in step.
            await trio.sleep(self.poll_s * random.random())
            while True:
                down = replica.probed_up is False
                if not down and await self._ask(replica, engine, starts) is Unread.NOTHING:
                    pause_s = max(self.poll_s, min(2 * pause_s, _RARELY_S))
                else:
                    pause_s = self.poll_s
                await trio.sleep(pause_s * random.uniform(0.8, 1.2))
        finally:
            engine.close()

    def _settings(self, replica: Replica) -> object:
        return self._pages.get(replica.name), tuple(replica.headers.items())

    def _engine(self, replica: Replica) -> EngineAsked:
        page = self._pages.get(replica.name)
        origin = page or replica.origin
        if not origin.base and page is not None:
            origin = origin._replace(base="/metrics")
        headers = list(replica.headers.items()) if _is_for(replica, origin) else []
        get = KeptGet(self._dialer, origin, headers)
        places = PLACES if page is None else PAGE
        return EngineAsked(replica.name, get, places, timeout_s=self._timeout_s)

    async def _ask(self, replica: Replica, engine: EngineAsked, starts: Starts) -> Reading | Unread:
        own = replica.in_flight
        answer = await engine.ask()
        if isinstance(answer, Reading):
            before, after = replica.gauges, answer.gauges
            replica.gauges = after
            judged = "same" if before is None else starts.judge(before, after)
            if judged == "restarted":
                log.warning("replica %s was restarted: its cache is empty", replica.name)
                engine.forget_facts()
                replica.restarted()
            elif judged == "several":
                log.warning(_SEVERAL, replica.name)
            self._on_read(replica, after, max(own, replica.in_flight))
        return answer


def _is_for(replica: Replica, origin: Origin) -> bool:
    """Whether its key may be sent there: to the machine it is for, and not in clear if it was not
    meant to be."""
    own = replica.origin
    return origin.host == own.host and origin.scheme in (own.scheme, "https")
