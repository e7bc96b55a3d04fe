"""The sessions of a workload, one fan-out after the other, as often round as is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, groupby
from typing import NamedTuple

from bench.workload.model import Session, Workload

__all__ = ["Numbered", "Supply"]


class Numbered(NamedTuple):
    """A session and the number under which its records are kept: no two of a phase have one."""

    number: int
    session: Session


class Supply:
    """Hands out sessions in the workload's order; branches of one fan-out together.

    Raises ValueError for a workload without sessions, when the first is asked for.
    """

    def __init__(self, workload: Workload, *, repeat: bool, sessions: int | None = None) -> None:
        self._name = workload.name
        self._left = sessions
        self._numbers = count()
        self.rounds = 0
        """How often the workload was begun: after the first time its prompts repeat."""
        self.round_from = 0
        """The number of the first session of the round that was begun last."""
        self.started = 0
        """How many sessions were handed out."""
        self._batches = self._rounds(workload) if repeat else self._round(workload)

    def next(self) -> list[Numbered] | None:
        """What begins next: one session or the branches of a fan-out; None if there is no more."""
        if self._left is not None and self.started >= self._left:
            return None
        batch = next(self._batches, None)
        if batch is None:
            return None
        if self._left is not None:
            batch = batch[: self._left - self.started]
        self.started += len(batch)
        return [Numbered(next(self._numbers), session) for session in batch]

    def _rounds(self, workload: Workload) -> Iterator[list[Session]]:
        return chain.from_iterable(self._round(workload) for _ in count())

    def _round(self, workload: Workload) -> Iterator[list[Session]]:
        empty = True
        self.rounds += 1
        self.round_from = self.started
        for _, members in groupby(enumerate(workload.sessions), _belongs_to):
            empty = False
            yield [session for _, session in members]
        if empty:
            raise ValueError(f"workload {self._name!r} has no sessions")


def _belongs_to(numbered: tuple[int, Session]) -> tuple[int, int]:
    index, session = numbered
    return (session.group, 0) if session.group else (0, index)
