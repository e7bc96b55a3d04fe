"""One task for each replica of a changing set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from balancer.replica import Replica

__all__ = ["TaskPerReplica"]


class TaskPerReplica:
    """Runs `work` for each replica. `run` in a nursery, `watch` whenever the set changes."""

    def __init__(self, work: Callable[[Replica], Awaitable[object]]) -> None:
        self._work = work
        self._nursery: trio.Nursery | None = None
        self._watched: dict[Replica, trio.CancelScope] = {}

    def __len__(self) -> int:
        return len(self._watched)

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
        wanted = dict.fromkeys(replicas)
        for replica in [known for known in self._watched if known not in wanted]:
            self._watched.pop(replica).cancel("no longer in any pool")
        for replica in wanted:
            if replica not in self._watched and self._nursery is not None:
                scope = self._watched[replica] = trio.CancelScope()
                self._nursery.start_soon(self._run, replica, scope)

    async def _run(self, replica: Replica, scope: trio.CancelScope) -> None:
        with scope:
            await self._work(replica)
