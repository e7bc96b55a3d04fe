"""Whatever replicas do, in whatever order: one whole answer, or one failure, and nothing left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.dispatch import CancelReason
from balancer.errors import AttemptFailed, Overdue, PoolBusy, StreamCut
from balancer.hedge import HedgeSettings
from balancer.pool import PoolSettings
from tests.balancer.relays import GOOD, GOOD_BODY, JSON, Script, relay
from tests.balancer.scripted import (
    STREAM_HEAD,
    Act,
    NotingClient,
    Step,
    answer,
    chunk,
    event,
    in_virtual_time,
    stream,
)

ROLE = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
ERROR = b'data: {"error":{"code":503}}\n\n'

DEEDS: dict[str, Sequence[Step] | None] = {
    "refuses": None,
    "resets": [Act.RESET],
    "head, then reset": [STREAM_HEAD, Act.RESET],
    "503": [answer(b"", status=503)],
    "422": [answer(b"{}", status=422)],
    "error event": stream(ERROR),
    "role, then error event": stream(ROLE, ERROR),
    "error under a 200": [answer(b'{"error":{"code":502}}')],
    "role, then reset": [STREAM_HEAD, chunk(ROLE), Act.RESET],
    "hangs": [Act.HANG],
    "first event, then reset": [STREAM_HEAD, chunk(event("a")), Act.RESET],
    "stream": GOOD,
    "late payload": [STREAM_HEAD, chunk(ROLE), 2.0, *GOOD[1:]],
    "whole": [answer(JSON)],
    "half an answer": [answer(JSON)[:-9], Act.CLOSE],
}
WHOLE = {GOOD_BODY, ROLE + GOOD_BODY, JSON}
BEGINNINGS = {b"", ROLE, event("a")}

deeds = st.sampled_from(sorted(DEEDS))
delays = st.sampled_from([0.0, 0.3, 1.0, 3.0])
replicas = st.lists(st.tuples(deeds, delays), min_size=1, max_size=3)


def script(deed: str, delay_s: float) -> Script:
    steps = DEEDS[deed]
    return None if steps is None else [delay_s, *steps]


@settings(max_examples=300, deadline=None)
@given(
    pools=st.lists(replicas, min_size=1, max_size=3),
    retries=st.integers(0, 2),
    hedged=st.booleans(),
    hold_s=st.sampled_from([0.0, 1.0]),
    fast=st.booleans(),
    leaves_at=st.none() | st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.5]),
)
def test_one_whole_answer_or_one_failure(
    pools: list[list[tuple[str, float]]],
    retries: int,
    hedged: bool,
    hold_s: float,
    fast: bool,
    leaves_at: float | None,
) -> None:
    """Streams and whole answers, connections and errors, retries, fallbacks and hedges."""
    chosen = PoolSettings(
        retries=retries,
        hold_s=hold_s,
        hedge=HedgeSettings(after_s=0.5) if hedged else None,
    )

    async def run() -> None:
        first, *others = [[script(*one) for one in pool] for pool in pools]
        async with relay(*first, fallback=others, settings=chosen, max_in_flight=1) as r:
            client = NotingClient(fast=fast)
            dispatch = r.dispatch(client)
            failure: Exception | None = None
            async with trio.open_nursery() as nursery:
                if leaves_at is not None:
                    nursery.start_soon(_cancel_at, leaves_at, dispatch.cancel)
                try:
                    await dispatch.run()
                except (AttemptFailed, PoolBusy, Overdue, StreamCut) as exc:
                    failure = exc
                nursery.cancel_scope.cancel()
            trace = dispatch.trace
            if failure is None and dispatch.cancel_reason is None:
                assert client.ended
                assert client.body in WHOLE
                assert trace.replica is not None
                assert trace.leases[-1].replica.name == trace.replica
                assert trace.first_at is not None
            elif not client.ended:
                assert client.body in BEGINNINGS
            assert trace.committed is (client.head is not None)
            sent = sum(sum(r.served(place)) for place in range(len(pools)))
            assert sent <= (retries + 1) * len(pools) * (2 if hedged else 1)
            assert len(trace.failures) <= trace.attempts

    in_virtual_time(run)


async def _cancel_at(at: float, cancel: Callable[[CancelReason], None]) -> None:
    await trio.sleep(at)
    cancel("client_gone")
