"""Which session comes next: order, rounds, limits, fan-outs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from bench.load.supply import Numbered, Supply
from bench.workload.model import Session, Workload
from tests.bench.load.rig import session, workload


def batches(supply: Supply, at_most: int = 50) -> Iterator[list[Numbered]]:
    for _ in range(at_most):
        batch = supply.next()
        if batch is None:
            return
        yield batch


def test_once_through() -> None:
    """Without repetition each session comes once."""
    supply = Supply(workload(3), repeat=False)
    assert [one.session.id for (one,) in batches(supply)] == [0, 1, 2]
    assert (supply.rounds, supply.started) == (1, 3)


def test_round_and_round() -> None:
    """Repeated sessions have numbers of their own."""
    supply = Supply(workload(2), repeat=True, sessions=5)
    found = [one for (one,) in batches(supply)]
    assert [one.session.id for one in found] == [0, 1, 0, 1, 0]
    assert [one.number for one in found] == [0, 1, 2, 3, 4]
    assert supply.rounds == 3


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 15))
def test_fan_outs_stay_together(groups: list[int], limit: int) -> None:
    """Neighbours of one group are one batch, others come alone; the limit counts sessions."""
    sessions = [
        Session(id=number, turns=session(number).turns, group=group)
        for number, group in enumerate(groups)
    ]
    supply = Supply(Workload(name="w", sessions=sessions), repeat=False, sessions=limit)
    found = list(batches(supply))
    flat = [one.session.id for batch in found for one in batch]
    assert flat == list(range(min(limit, len(groups))))
    for batch in found:
        assert len({one.session.group for one in batch}) == 1
        assert len(batch) == 1 or batch[0].session.group
    begins = [batch[0].session.id for batch in found]
    for begin, batch in zip(begins, found, strict=True):
        group = groups[begin]
        run = len(list(takewhile(group.__eq__, groups[begin:])))
        assert not group or len(batch) == min(run, limit - begin)
