"""Whether replicas are up: one task for each asks for its model list now and then."""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Iterable

import trio

from balancer.errors import Overdue
from balancer.probes.models import read_models
from balancer.probes.per_replica import TaskPerReplica
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from balancer.wire.fetch import FetchFailed, fetch

__all__ = ["HealthProbes"]

log = logging.getLogger("triolet.health")

_RETRY_S = 0.5
"""How soon a replica that is down is asked again; doubled up to the interval."""


class HealthProbes:
    """Probes a changing set of replicas. `run` in a nursery, `watch` whenever the set changes.

    Any answer below 500 counts as up (an engine that wants a key answers 401); while it loads a
    model an engine answers 503, and counts as down. No answer in time counts when
    it comes three times in a row, with no request answered between.
    """

    def __init__(self, dialer: Dialer, *, interval_s: float = 5.0, timeout_s: float = 2.0) -> None:
        self._dialer = dialer
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._tasks = TaskPerReplica("the health probe of", self._keep_probing)

    async def run(
        self,
        replicas: Iterable[Replica],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Probe until cancelled."""
        await self._tasks.run(replicas, task_status=task_status)

    def watch(self, replicas: Iterable[Replica]) -> None:
        """Probe these from now on, and no others."""
        self._tasks.watch(replicas)

    async def _keep_probing(self, replica: Replica) -> None:
        retry_s = _RETRY_S
        up = replica.probed_up
        while True:
            if up is None:
                pause_s = 0.0
            elif up:
                pause_s, retry_s = self._interval_s, _RETRY_S
            else:
                pause_s = min(retry_s, self._interval_s)
                retry_s = 2 * pause_s
            # Jitter: many replicas and many processes must not ask in step.
            await trio.sleep(pause_s * random.uniform(0.8, 1.2))
            up = await self._probe(replica)

    async def _probe(self, replica: Replica) -> bool:
        was_up = replica.probed_up
        try:
            status, body = await fetch(
                self._dialer,
                replica.origin,
                "/v1/models",
                limit_s=self._timeout_s,
                headers=list(replica.headers.items()),
            )
            up, why, refused, silent = status < 500, f"answered {status}", False, False
            models = read_models(body) if status == 200 else None
            if models:
                replica.lists({model.id: model.context_tokens for model in models})
        except FetchFailed as exc:
            up, why = False, getattr(exc, "why", str(exc))
            cause = exc.__cause__
            refused = isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED
            silent = isinstance(exc, Overdue)
        replica.probed(up, trio.current_time(), refused=refused, silent=silent)
        if replica.probed_up != was_up and not (up and was_up is None):
            log.log(logging.INFO if up else logging.WARNING, "%s", _change(replica, up, why))
        return up


def _change(replica: Replica, up: bool, why: str) -> str:
    return f"replica {replica.name} is {'up again' if up else 'down'}: {why}"
