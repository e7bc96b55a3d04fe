"""What a router has in flight, by its own bookkeeping.

Own counts are never stale and never missing. Of what happens in the engine they know two moments:
the first event (the prompt is read) and the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from balancer.policies import Ask

__all__ = ["IDLE", "Charge", "Ledger", "Load"]


class Charge(msgspec.Struct, eq=False):
    """What one request was booked with, to be taken back exactly."""

    ask: Ask
    """Kept so that its identity stays its own while it is a key."""
    uncached_tokens: int
    blocks: Sequence[int]
    waiting: bool = True
    """No event of it has come yet."""


class Load(msgspec.Struct, eq=False):
    """What one replica has in flight."""

    requests: int = 0
    waiting: int = 0
    """Requests without a first event: queued in the engine, or being read."""
    waiting_tokens: int = 0
    """Prompt tokens of those that the replica does not hold and has yet to read."""
    held: dict[int, int] = msgspec.field(default_factory=dict)
    """For each block of the prompts in flight: how many of them have it."""

    @property
    def kv_blocks(self) -> int:
        """Blocks of KV cache in use: what prompts share counts once, and each request has one of
        its own for the rest of its prompt and what it generates."""
        return len(self.held) + self.requests

    def leading_blocks(self, blocks: Sequence[int]) -> int:
        """How many of `blocks`, from the first on, prompts in flight hold already."""
        low, high = 0, len(blocks)  # chained: whoever holds one holds those before it
        while low < high:
            middle = (low + high) // 2
            if blocks[middle] in self.held:
                low = middle + 1
            else:
                high = middle
        return low


IDLE: Final = Load()
"""The load of a replica that has nothing in flight. Not to be written to."""


class Ledger:
    """Loads by replica, and the charge behind each request.

    The same request may be out more than once, one after the other or at once (retries, hedges),
    and requests of which nothing is known are all the same object: so charges are kept per replica
    and request as a list. An event is taken to be that of the first it can belong to, so that the
    answered ones always come first.
    """

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        self._charges: dict[tuple[str, int], list[Charge]] = {}

    @property
    def loads(self) -> Mapping[str, Load]:
        """By name, those that have something in flight. A live view."""
        return self._loads

    def open(
        self, replica: str, ask: Ask, uncached_tokens: int, blocks: Sequence[int] = ()
    ) -> None:
        """A request goes to `replica`, which has to read `uncached_tokens` of its prompt."""
        load = self._loads.get(replica)
        if load is None:
            load = self._loads[replica] = Load()
        load.requests += 1
        load.waiting += 1
        load.waiting_tokens += uncached_tokens
        held = load.held
        for block in blocks:
            held[block] = held.get(block, 0) + 1
        charge = Charge(ask, uncached_tokens, blocks)
        self._charges.setdefault((replica, id(ask)), []).append(charge)

    def answered(self, replica: str, ask: Ask) -> Charge:
        """Its prompt is read. Raises `KeyError` if no such request is open."""
        charges = self._charges[replica, id(ask)]
        charge = next((charge for charge in charges if charge.waiting), charges[0])
        self._read(self._loads[replica], charge)
        return charge

    def released(self, replica: str, ask: Ask) -> Charge:
        """It is over. Of several alike, one that was answered, if any. Raises `KeyError` if no
        such request is open."""
        key = replica, id(ask)
        charges = self._charges[key]
        charge = charges.pop(0)
        if not charges:
            del self._charges[key]
        self._take_back(replica, charge)
        return charge

    def _take_back(self, replica: str, charge: Charge) -> None:
        load = self._loads[replica]
        self._read(load, charge)
        load.requests -= 1
        held = load.held
        for block in charge.blocks:
            count = held[block]
            if count == 1:
                del held[block]
            else:
                held[block] = count - 1
        if load.requests == 0:
            del self._loads[replica]

    @staticmethod
    def _read(load: Load, charge: Charge) -> None:
        if charge.waiting:
            charge.waiting = False
            load.waiting -= 1
            load.waiting_tokens -= charge.uncached_tokens
