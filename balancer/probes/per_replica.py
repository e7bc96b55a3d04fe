"""One task for each replica of a changing set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import NamedTuple

import trio

from balancer.probes.steady import keep_going
from balancer.replica import Replica

__all__ = ["TaskPerReplica"]


class _Task(NamedTuple):
    scope: trio.CancelScope
    settings: object


class TaskPerReplica:
    """Runs `work` for each replica. `run` in a nursery, `watch` whenever the set changes.

    A task that fails unexpectedly is started again; so is one whose `settings_of` its replica are
    others than when it was started: it may have taken them then.
    """

    def __init__(
        self,
        what: str,
        work: Callable[[Replica], Awaitable[object]],
        settings_of: Callable[[Replica], object] = lambda _: None,
    ) -> None:
        """`what` names the work in the log, before "replica NAME"."""
        self._what = what
        self._work = work
        self._settings_of = settings_of
        self._nursery: trio.Nursery | None = None
        self._tasks: dict[Replica, _Task] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    async def run(
        self,
        replicas: Iterable[Replica],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self.watch(replicas)
            task_status.started()
            await trio.sleep_forever()

    def watch(self, replicas: Iterable[Replica]) -> None:
        """Work for these from now on, and for no others. Does nothing before `run`."""
        if self._nursery is None:
            return
        wanted = {replica: self._settings_of(replica) for replica in replicas}
        for replica, (scope, settings) in tuple(self._tasks.items()):
            if replica not in wanted or wanted[replica] != settings:
                scope.cancel("no longer in any pool, or with other settings")
                del self._tasks[replica]
        for replica, settings in wanted.items():
            if replica not in self._tasks:
                task = self._tasks[replica] = _Task(trio.CancelScope(), settings)
                self._nursery.start_soon(self._run, replica, task.scope)

    async def _run(self, replica: Replica, scope: trio.CancelScope) -> None:
        with scope:
            await keep_going(f"{self._what} replica {replica.name}", partial(self._work, replica))
