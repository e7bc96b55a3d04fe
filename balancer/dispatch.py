"""One request on its way: lease, try, try again, fall back, relay, settle.

Until the first event that carries something is here the client has seen nothing, so any failure
can be repaired: by another replica, or by the next pool of the request's fallback chain. From then
on the answer is the client's: it is relayed as it comes, and a failure is raised for the caller to
tell the client in-band.

Each try has a cancel scope. It is cancelled by a limit on time, by the caller (`Dispatch.cancel`),
or by the pool, which takes a place back (`Lease.on_reclaim`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import msgspec
import trio

from balancer.admission import Standing
from balancer.attempt import HELD_BYTES, PutBack
from balancer.errors import AttemptFailed, BalancerError, Overdue, PoolBusy
from balancer.faults import Fault, fault_of
from balancer.policies import UNKNOWN, Ask
from balancer.pool import Pool
from balancer.relaying import Client, Relaying
from balancer.request import Request
from balancer.retry import falls_back
from balancer.trace import Trace
from balancer.turn import Turn

__all__ = ["HELD_BYTES", "CancelReason", "Client", "Dispatch", "Request", "Trace"]

CancelReason = Literal["client_gone", "shutdown"]

_DOWN_RETRY_S: Final = 5.0
"""When to ask again for a model none of whose replicas is up: by then probes may have found one."""


class Dispatch:
    """Serves one request from the first of `pools` that can. `run` once; `cancel` at any time, from
    anywhere.

    `pools` is its fallback chain: at least one, none twice. `requests` makes what goes to a pool's
    replicas, where the model may have another name; called when that pool's turn has come. `ask`
    is what policies may know of the request, `standing` its place in line (by default that of the
    first tier, without a deadline). `now` is when it came.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        requests: Callable[[Pool], Awaitable[Request]],
        client: Client,
        *,
        ask: Ask = UNKNOWN,
        standing: Standing | None = None,
        now: float,
    ) -> None:
        first = pools[0]
        self._pools = pools
        self._place = 0
        self._requests = requests
        self._client = client
        self._ask = ask
        self._total_s = first.timeouts.total_s
        self._total_at = now + self._total_s
        self._failures: list[BalancerError] = []
        self.cancel_reason: CancelReason | None = None
        self.trace = Trace(now, first.model)
        self._scope = trio.CancelScope(
            deadline=min(self._total_at, now + first.timeouts.first_byte_s)
        )
        self._turn = self._turn_at(0, standing or Standing(first.tiers[0].name, now))

    def _turn_at(self, place: int, standing: Standing) -> Turn:
        return Turn(
            self._pools[place],
            self._requests,
            self._ask,
            standing,
            self.trace,
            total_s=self._total_s,
            total_at=self._total_at,
            another=place + 1 < len(self._pools),
        )

    @property
    def pool(self) -> Pool:
        """The one that answers, or was asked last."""
        return self._turn.pool

    def cancel(self, reason: CancelReason) -> None:
        """End it: the connection to the replica is closed at once, which stops its work."""
        if self.cancel_reason is None:
            self.cancel_reason = reason
            self._scope.cancel(reason)

    async def run(self) -> None:
        """Serve the request to its end.

        Raises `AttemptFailed` (no replica could serve it), `PoolBusy`, `Overdue`, `StreamCut`,
        or `ConnectionLost` when the client is gone; returns early, with `cancel_reason` set,
        when cancelled. `trace.committed` tells whether the client has a head already.
        """
        self._begin_turn()
        while (failure := await self._try()) is not None:
            self._go_on(failure)
            self._scope = trio.CancelScope(deadline=self._total_at)

    async def _try(self) -> BalancerError | None:
        """Why it needs another try. None if it is over: served, or cancelled by the caller."""
        scope = self._scope
        failure: BalancerError | None = None
        try:
            with scope, await self._turn.answer(scope) as attempt:
                await Relaying(attempt, self._client, self.trace).run()
        except (AttemptFailed, PoolBusy, Overdue, PutBack) as exc:
            failure = exc
        if self.cancel_reason is not None:
            return None
        return self._turn.why_cancelled() if scope.cancelled_caught else failure

    def _go_on(self, failure: BalancerError) -> None:
        """Make ready for the next try. If there is to be none, raises what the client is told."""
        trace = self.trace
        if isinstance(failure, PutBack):
            trace.attempts -= 1
            trace.put_backs += 1
            return
        if isinstance(failure, AttemptFailed):
            trace.failures.append(failure.kind)
        if trace.committed:
            raise failure
        if self._turn.goes_on(failure):
            return
        if not self._falls_back(failure):
            raise self._worth_telling(failure)
        if isinstance(failure, Overdue):
            trace.failures.append(failure.kind)
        self._fall_back(failure)
        self._begin_turn()

    # The chain

    def _begin_turn(self) -> None:
        """Begin the turn; go past pools in which nobody could serve it."""
        while self._turn.is_pointless:
            model = self._turn.pool.model
            self._fall_back(PoolBusy(f"no replica of model {model!r} is up", _DOWN_RETRY_S))
        self._turn.begin()

    def _falls_back(self, failure: BalancerError) -> bool:
        if self._place + 1 == len(self._pools):
            return False
        deadline = self._turn.standing.deadline
        if deadline is not None and trio.current_time() >= deadline:
            return False
        return falls_back(failure, self._turn.pool.settings.fallback_on)

    def _fall_back(self, failure: BalancerError) -> None:
        turn = self._turn
        self._failures.append(failure)
        self.trace.fell_back_from.append(turn.pool.model)
        self._place += 1
        # What it had in one line counts for nothing in another.
        standing = msgspec.structs.replace(turn.standing, put_backs=0, placed=False)
        self._turn = self._turn_at(self._place, standing)

    def _worth_telling(self, last: BalancerError) -> BalancerError:
        """Of all pools' failures the first that may pass: the model asked for comes first, and who
        hears that a prompt is too long for it does not try again."""
        if fault_of(last) is Fault.NOBODY:
            return last
        for failure in self._failures:
            if fault_of(failure) not in (Fault.CONTEXT, Fault.CALLER):
                return failure
        return last
