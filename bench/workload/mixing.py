"""Workloads made of workloads: repeated one after the other, or laid over one another."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice

import msgspec

from bench.workload.model import Replayable, Session, Workload

__all__ = ["overlaid", "repeated"]


def repeated(workload: Workload, sessions: int) -> Workload:
    """`workload` from its beginning again and again until there are `sessions` of them.

    The prompts are the same each time, so that a second pass finds them in a cache, as AIPerf does
    when there are fewer entries than requests. Session numbers go on; for closed loops only, since
    due times do not.
    """

    def begin() -> Iterator[Session]:
        again = chain.from_iterable(_passes(workload))
        for number, session in enumerate(islice(again, sessions)):
            yield msgspec.structs.replace(session, id=number)

    return msgspec.structs.replace(workload, sessions=Replayable(begin))


def overlaid(name: str, workloads: Sequence[Workload], about: str = "") -> Workload:
    """Open-loop workloads at the same time, in the order of their due times.

    Sessions are numbered anew, and so are fan-out groups, so that those of two workloads stay
    apart. For `overlaid` all sessions need a due time.
    """

    def begin() -> Iterator[Session]:
        streams = [_due(workload, place) for place, workload in enumerate(workloads)]
        for number, (_, place, _, session) in enumerate(heapq.merge(*streams)):
            group = session.group * len(workloads) + place if session.group else 0
            yield msgspec.structs.replace(session, id=number, group=group)

    return Workload(name=name, sessions=Replayable(begin), about=about)


def _passes(workload: Workload) -> Iterator[Iterator[Session]]:
    for _ in count():
        sessions = iter(workload.sessions)
        first = next(sessions, None)
        if first is None:
            return
        yield chain([first], sessions)


def _due(workload: Workload, place: int) -> Iterator[tuple[float, int, int, Session]]:
    for number, session in enumerate(workload.sessions):
        due_s = session.turns[0].due_s
        if due_s is None:
            raise ValueError(f"{workload.name}: session {session.id} has no due time")
        yield due_s, place, number, session
