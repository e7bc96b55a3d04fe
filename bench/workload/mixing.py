"""Workloads made of workloads: repeated, laid over one another, in part, or stretched."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice

import msgspec

from bench.workload.model import Replayable, Segment, Session, Workload

__all__ = ["only_tier", "overlaid", "repeated", "stretched"]


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


def only_tier(workload: Workload, tier: str) -> Workload:
    """The sessions of that tier alone, when they came."""

    def begin() -> Iterator[Session]:
        return (session for session in workload.sessions if session.tier == tier)

    return msgspec.structs.replace(workload, sessions=Replayable(begin))


def stretched(workload: Workload, factor: float) -> Workload:
    """The same with every text `factor` (above 0) times as long, prompts and answers."""

    def longer(segment: Segment) -> Segment:
        return segment._replace(tokens=_times(segment.tokens, factor))

    def begin() -> Iterator[Session]:
        for session in workload.sessions:
            turns = [
                msgspec.structs.replace(
                    turn,
                    prompt=tuple(map(longer, turn.prompt)),
                    output_tokens=_times(turn.output_tokens, factor),
                )
                for turn in session.turns
            ]
            # Texts that were recorded are of another length now.
            yield msgspec.structs.replace(session, turns=turns, texts={})

    return msgspec.structs.replace(workload, sessions=Replayable(begin))


def _times(tokens: int, factor: float) -> int:
    return max(1, round(tokens * factor))


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
