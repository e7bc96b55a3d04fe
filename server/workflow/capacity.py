"""How many nodes of a tier and kind of work run at once, over all runs; fair between apps.

Each pair of a tier and a kind of work has slots of its own, so that what hangs in one leaves the
others free. Within a pair no app holds more than its share, and the last eighth is kept for apps
that hold none: apps whose nodes hang, however many slots they may have, shut nobody out. Apps that
wait are served in turn, those that hold none before the others; the runs of one app first come,
first served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import trio

from server.workflow.node import Work

__all__ = ["Capacity", "Load"]

_DEFAULT_SLOTS: Final = 256
"""Of a pair that nobody gave a number of slots."""

_KEPT: Final = 8
"""One slot in so many is kept for apps that hold none ..."""

_KEPT_FROM: Final = 3
"""... and one at least where there are so many: of two the share leaves one free as it is."""


class Load(msgspec.Struct, frozen=True):
    """Of one tier and kind of work, for metrics."""

    slots: int
    used: int
    waiting: int


class Capacity:
    """Slots by tier and kind of work. All but waiting is synchronous."""

    def __init__(
        self,
        slots: Mapping[tuple[str, Work], int] | None = None,
        *,
        share: float = 0.5,
        default: int = _DEFAULT_SLOTS,
    ) -> None:
        """`share` of the slots of a pair is what one app holds at most (at least one slot). Of
        three slots and more, one in eight (at least one) is kept for apps that hold none."""
        self._default = default
        self._share = share
        self._slots: dict[tuple[str, Work], _Slots] = {
            pair: _Slots(count, share) for pair, count in (slots or {}).items()
        }

    async def acquire(self, tier: str, work: Work, app: str) -> None:
        """Wait for a slot; `release` gives it back. Always a checkpoint. A cancelled wait holds
        nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        slots = self._of(tier, work)
        if slots.take(app):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        await slots.wait(app)

    def release(self, tier: str, work: Work, app: str) -> None:
        """Give a slot back. Synchronous; the next one in turn has it at once."""
        self._of(tier, work).release(app)

    def load(self) -> dict[tuple[str, Work], Load]:
        """Of each pair that was used or was given a number of slots."""
        return {
            pair: Load(slots.count, slots.used, slots.waiting)
            for pair, slots in self._slots.items()
        }

    def _of(self, tier: str, work: Work) -> _Slots:
        found = self._slots.get((tier, work))
        if found is None:
            found = self._slots[tier, work] = _Slots(self._default, self._share)
        return found


class _Slots:
    """Of one tier and kind of work.

    Invariants: apps that wait and hold none are in `_fresh`, those that hold some, but less than
    their share, are in `_turn`, each once. `_fresh` is empty while a slot is free, `_turn` is while
    more are free than are kept. A slot is charged to who gets it when they are woken, not when they
    run: a cancellation in between finds them in their block, and they give it back.
    """

    __slots__ = ("_free", "_fresh", "_held", "_kept", "_most", "_queues", "_turn", "count")

    def __init__(self, count: int, share: float) -> None:
        if count < 1 or not 0 < share <= 1:
            raise ValueError(f"{count} slots of which an app may hold {share} make no sense")
        self.count = count
        self._free = count
        self._most = max(1, int(count * share))
        self._kept = max(1, count // _KEPT) if count >= _KEPT_FROM else 0
        self._held: dict[str, int] = {}
        self._queues: dict[str, dict[trio.lowlevel.Task, None]] = {}
        self._fresh: dict[str, None] = {}
        self._turn: dict[str, None] = {}

    @property
    def used(self) -> int:
        return self.count - self._free

    @property
    def waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def take(self, app: str) -> bool:
        """Take a free slot, if the app may have one."""
        held = self._held.get(app, 0)
        if self._free <= (self._kept if held else 0) or held >= self._most:
            return False
        self._held[app] = held + 1
        self._free -= 1
        return True

    async def wait(self, app: str) -> None:
        task = trio.lowlevel.current_task()
        queue = self._queues.setdefault(app, {})
        queue[task] = None
        if len(queue) == 1:
            self._line_up(app)

        def abort(_: object) -> trio.lowlevel.Abort:
            del queue[task]
            if not queue:
                del self._queues[app]
                self._fresh.pop(app, None)
                self._turn.pop(app, None)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _line_up(self, app: str) -> None:
        """This app waits: put it at the end of its line, if it may have a slot."""
        held = self._held.get(app, 0)
        if not held:
            self._turn.pop(app, None)
            self._fresh[app] = None
        elif held < self._most:
            self._turn.setdefault(app)

    def release(self, app: str) -> None:
        held = self._held[app] - 1
        if held:
            self._held[app] = held
        else:
            del self._held[app]
        self._free += 1
        if app in self._queues:
            self._line_up(app)
        while self._free and self._fresh:
            self._serve(self._fresh)
        while self._free > self._kept and self._turn:
            self._serve(self._turn)

    def _serve(self, line: dict[str, None]) -> None:
        """Give a slot to the first of the first app, and put the app at the end of its line."""
        app = next(iter(line))
        del line[app]
        queue = self._queues[app]
        task = next(iter(queue))
        del queue[task]
        self._held[app] = self._held.get(app, 0) + 1
        self._free -= 1
        if queue:
            self._line_up(app)
        else:
            del self._queues[app]
        trio.lowlevel.reschedule(task)
