"""Requests that end, or lose their place, at every step of the scheduler: nothing is left over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
import trio.testing

from balancer.admission import Standing
from balancer.dispatch import Dispatch
from balancer.errors import AttemptFailed, Overdue, PoolBusy, StreamCut
from balancer.hedge import HedgeSettings
from balancer.pool import PoolSettings
from tests.balancer.relays import GOOD, GOOD_BODY, JSON, Relay, Script, relay
from tests.balancer.scripted import (
    LAST_CHUNK,
    STREAM_HEAD,
    Act,
    NotingClient,
    ScriptedReplica,
    Step,
    answer,
    chunk,
    event,
    in_virtual_time,
)


class AtStep(trio.abc.Instrument):
    """Calls `act` just before the n-th step that any task takes."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self._left = step
        self._act = act

    @property
    def fired(self) -> bool:
        return self._left < 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._left == 0:
            self._act()
        self._left -= 1


@dataclass
class Exchange:
    """One of those that between them meet every wait of a request."""

    scripts: Sequence[Script]
    client: NotingClient = field(default_factory=NotingClient)
    fallback: Sequence[Sequence[Script]] = ()
    settings: PoolSettings = PoolSettings(retries=3)  # noqa: RUF009 - immutable
    capacity_bytes: int = 65_536
    rival_at: float | None = None
    """When a request of a higher tier comes."""
    body: bytes = GOOD_BODY
    """What its client has in the end, if that is asked."""


_SLOW: list[Step] = [STREAM_HEAD, 1.0, *[chunk(event("x" * 40))] * 6, LAST_CHUNK]
_IN_HALVES: list[Step] = [answer(JSON)[:60], 1.0, answer(JSON)[60:]]
_HALF_EVENT: list[Step] = [STREAM_HEAD, chunk(event("a")), 1.0, chunk(event("b")[:9]), Act.CLOSE]
_ROLE = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
_503 = answer(b"", status=503)
_HEDGED = PoolSettings(retries=3, hedge=HedgeSettings(after_s=0.5))
_LATE: list[Step] = [1.0, *GOOD]

# Made anew for each run: scripts and clients have a memory. The first script is for a request
# before the one that is cancelled, the second ends the connection kept from it.
_WARM: tuple[list[Step], list[Step]] = (GOOD, [Act.CLOSE])


def _warm(*scripts: Sequence[Step]) -> ScriptedReplica:
    return ScriptedReplica(*_WARM, *scripts)


EXCHANGES: dict[str, Callable[[], Exchange]] = {
    "stream": lambda: Exchange([_warm(GOOD)]),
    "plain sends": lambda: Exchange([_warm(GOOD)], NotingClient(fast=False)),
    "slow client": lambda: Exchange([_warm(_SLOW)], NotingClient(True, 100)),
    "answer in halves": lambda: Exchange([_warm(_IN_HALVES)]),
    "retries": lambda: Exchange([_warm([Act.RESET]), None, [_503], GOOD]),
    "same replica again": lambda: Exchange([_warm([Act.CLOSE], [Act.RESET], GOOD)]),
    "small buffers": lambda: Exchange([_warm(GOOD)], capacity_bytes=16),
    "cut": lambda: Exchange([_warm(_HALF_EVENT)]),
    "overdue": lambda: Exchange([_warm([Act.HANG])]),
    "held, then cut": lambda: Exchange([_warm([STREAM_HEAD, chunk(_ROLE), 0.5, Act.RESET]), GOOD]),
    "held too long": lambda: Exchange([_warm([STREAM_HEAD, chunk(_ROLE), 2.0, *GOOD[1:]])]),
    "fallback": lambda: Exchange([_warm([_503])], fallback=[[None], [GOOD]]),
    "fallback after a silence": lambda: Exchange([_warm([Act.HANG])], fallback=[[_LATE]]),
    "hedge, the second wins": lambda: Exchange([_warm([Act.HANG]), GOOD], settings=_HEDGED),
    "hedge, the first wins": lambda: Exchange([_warm([0.8, *GOOD]), [Act.HANG]], settings=_HEDGED),
    "hedge, a dead heat": lambda: Exchange([_warm(_LATE), [0.5, *GOOD]], settings=_HEDGED),
    "hedge, both fail": lambda: Exchange(
        [_warm([1.0, Act.RESET]), [0.5, Act.RESET], GOOD], settings=_HEDGED
    ),
    "put back": lambda: Exchange([_warm([Act.HANG], _LATE, GOOD)], rival_at=0.5),
    "hedge, put back": lambda: Exchange(
        [_warm([Act.HANG], _LATE, GOOD), ScriptedReplica([Act.HANG], GOOD)],
        settings=_HEDGED,
        rival_at=1.0,
    ),
}


@pytest.mark.parametrize("how", ["cancel()", "a scope around it"])
@pytest.mark.parametrize("queued", [False, True], ids=["", "queued"])
@pytest.mark.parametrize("name", EXCHANGES)
def test_cancelled_at_every_step(name: str, queued: bool, how: str) -> None:
    """At whichever step it happens: nothing stays leased, open or waiting."""

    def act(r: Relay, dispatch: Dispatch, scope: trio.CancelScope) -> None:
        scope.cancel() if how != "cancel()" else dispatch.cancel("client_gone")

    steps = _at_every_step(EXCHANGES[name], act, queued=queued)
    assert steps > 10


_HELD: list[Step] = [STREAM_HEAD, chunk(_ROLE), 0.5, *GOOD[1:]]

# In these every replica serves whoever comes again.
SERVED: dict[str, Callable[[], Exchange]] = {
    "stream": lambda: Exchange([_warm(GOOD)]),
    "late stream": lambda: Exchange([_warm(_LATE), _LATE]),
    "plain sends": lambda: Exchange([_warm(GOOD)], NotingClient(fast=False)),
    "answer in halves": lambda: Exchange([_warm(_IN_HALVES)], body=JSON),
    "small buffers": lambda: Exchange([_warm(GOOD)], capacity_bytes=16),
    "held": lambda: Exchange([_warm(_HELD)], body=_ROLE + GOOD_BODY),
    "fallback": lambda: Exchange([_warm([_503])], fallback=[[None], [GOOD]]),
    "hedge, the second wins": lambda: Exchange([_warm([3.0, *GOOD]), GOOD], settings=_HEDGED),
    "hedge, the first wins": lambda: Exchange(
        [_warm([0.8, *GOOD]), [2.0, *GOOD]], settings=_HEDGED
    ),
    "hedge, a dead heat": lambda: Exchange([_warm(_LATE), [0.5, *GOOD]], settings=_HEDGED),
    "a rival": lambda: Exchange([_warm(_LATE)], rival_at=0.5),
}


@pytest.mark.parametrize("reason", ["put_back", "replica_lost"])
@pytest.mark.parametrize("name", SERVED)
def test_taken_back_at_every_step(name: str, reason: str) -> None:
    """At whichever step it happens: the client has the answer it would have had, once."""

    def act(r: Relay, dispatch: Dispatch, scope: trio.CancelScope) -> None:
        leases = [lease for one in r.replicas for lease in one.unanswered]
        for lease in leases:
            lease.reclaim(reason)  # type: ignore[arg-type]

    steps = _at_every_step(SERVED[name], act, whole=True)
    assert steps > 10


def _at_every_step(
    make: Callable[[], Exchange],
    act: Callable[[Relay, Dispatch, trio.CancelScope], None],
    *,
    queued: bool = False,
    whole: bool = False,
) -> int:
    """How many steps there were."""
    step = 0
    while in_virtual_time(partial(_disturbed, step, make, act, queued=queued, whole=whole)):
        step += 1
    return step


async def _disturbed(
    step: int,
    make: Callable[[], Exchange],
    act: Callable[[Relay, Dispatch, trio.CancelScope], None],
    *,
    queued: bool,
    whole: bool,
) -> bool:
    """Whether the exchange took so many steps as to be disturbed."""
    case = make()
    async with relay(
        *case.scripts,
        fallback=case.fallback,
        settings=case.settings,
        max_in_flight=1,
        capacity_bytes=case.capacity_bytes,
    ) as r:
        await r.ask()
        standing = Standing("batch" if case.rival_at else "interactive", trio.current_time())
        dispatch, scope = r.dispatch(case.client, standing), trio.CancelScope()
        held = [await r.pool.lease() for _ in case.scripts] if queued else []
        instrument = AtStep(step, lambda: act(r, dispatch, scope))
        trio.lowlevel.add_instrument(instrument)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, dispatch, scope)
            if case.rival_at is not None:
                nursery.start_soon(_rival, r, case.rival_at)
            await trio.sleep(1 if queued else 0)
            for lease in held:
                lease.release()
        trio.lowlevel.remove_instrument(instrument)
        if whole:
            assert (case.client.body, case.client.ended) == (case.body, True)
    return instrument.fired


async def _run(dispatch: Dispatch, scope: trio.CancelScope) -> None:
    with scope, suppress(StreamCut, Overdue):
        await dispatch.run()


async def _rival(r: Relay, after_s: float) -> None:
    await trio.sleep(after_s)
    with suppress(AttemptFailed, PoolBusy, Overdue):
        await r.ask()
