"""What is tried again, and after how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.errors import (
    AnswerInvalid,
    AnswerLost,
    BalancerError,
    ConnectFailed,
    ConnectionLost,
    Overdue,
    PoolBusy,
    ReplicaRefused,
    StreamCut,
)
from balancer.faults import Fault
from balancer.retry import Budget, BudgetSettings, backoff_s, falls_back, is_move, may_retry


@pytest.mark.parametrize("status", range(400, 600))
def test_statuses(status: int) -> None:
    """Only what says "not here, not now" is tried elsewhere."""
    assert may_retry(ReplicaRefused("r", status, [], b"")) is (status in (429, 502, 503, 504))


@pytest.mark.parametrize("failure", [ConnectFailed, AnswerLost, AnswerInvalid])
def test_broken_connections(failure: type[ConnectFailed | AnswerLost | AnswerInvalid]) -> None:
    """What never answered properly may do so elsewhere."""
    assert may_retry(failure("r", "why"))


def test_backoff() -> None:
    """None towards another replica; from 0.1 s, doubled up to 2 s, towards the same."""
    assert [backoff_s(n, same_replica=False) for n in range(1, 5)] == [0, 0, 0, 0]
    waits = [backoff_s(n, same_replica=True) for n in range(1, 9)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2])


TOO_LONG = b'{"error":{"code":"context_length_exceeded"}}'


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (ConnectFailed("r", "refused"), Fault.UNAVAILABLE),
        (AnswerLost("r", "reset"), Fault.UNAVAILABLE),
        (AnswerInvalid("r", "no HTTP"), Fault.UNAVAILABLE),
        (ReplicaRefused("r", 500, [], b""), Fault.UNAVAILABLE),
        (ReplicaRefused("r", 502, [], b""), Fault.UNAVAILABLE),
        (Overdue("first_byte", 120), Fault.UNAVAILABLE),
        (ReplicaRefused("r", 429, [], b""), Fault.OVERLOADED),
        (ReplicaRefused("r", 503, [], b""), Fault.OVERLOADED),
        (PoolBusy("full", 1), Fault.OVERLOADED),
        (ReplicaRefused("r", 400, [], TOO_LONG), Fault.CONTEXT),
        (ReplicaRefused("r", 400, [], b""), None),
        (ReplicaRefused("r", 404, [], b""), None),
        (Overdue("total", 600), None),
        (StreamCut("r", "reset"), None),
        (ConnectionLost("client"), None),
    ],
)
def test_falls_back(failure: BalancerError, cause: Fault | None) -> None:
    """By default for all three causes, else for those alone that the pool names."""
    assert falls_back(failure) is (cause is not None)
    for only in Fault:
        assert falls_back(failure, {only}) is (only is cause or _is_told(failure, only))


def _is_told(failure: BalancerError, only: Fault) -> bool:
    """Causes that nobody can name in a configuration, but that a set may hold."""
    caller = isinstance(failure, ReplicaRefused) and failure.status in (400, 404)
    if caller and failure.body != TOO_LONG:  # type: ignore[attr-defined]
        return only is Fault.CALLER
    return (
        only is Fault.NOBODY
        and isinstance(failure, (Overdue, ConnectionLost))
        and (not isinstance(failure, Overdue) or failure.phase == "total")
    )


def test_moves() -> None:
    """What was lost with a replica costs no budget; what one refused does."""
    assert is_move(ConnectFailed("r", "refused"))
    assert is_move(AnswerLost("r", "reset"))
    assert not is_move(AnswerInvalid("r", "no HTTP"))
    assert not is_move(ReplicaRefused("r", 503, [], b""))


def test_budget() -> None:
    """A share of the requests, and so many each second; both of the last seconds only."""
    budget = Budget(BudgetSettings(share=0.2, per_s=1.0, window_s=10.0))
    assert sum(budget.take(0) for _ in range(50)) == 10
    for n in range(100):
        budget.requested(20 + n / 100)
    assert sum(budget.take(21) for _ in range(50)) == 30
    assert not budget.take(25)
    assert budget.take(40)


def test_no_budget() -> None:
    """With neither share nor minimum nothing is tried twice."""
    budget = Budget(BudgetSettings(share=0.0, per_s=0.0))
    budget.requested(0)
    assert not budget.take(0)


@given(
    st.floats(0, 1),
    st.floats(0, 5),
    st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=300),
)
def test_budget_bounds_the_load(
    share: float, per_s: float, events: list[tuple[float, bool]]
) -> None:
    """In any window the extra tries are no more than what was promised of the requests in two."""
    budget, now = Budget(BudgetSettings(share, per_s, 10.0)), 0.0
    requests, extra = list[float](), list[float]()
    for pause_s, retries in events:
        now += pause_s
        if retries:
            if budget.take(now):
                extra.append(now)
        else:
            budget.requested(now)
            requests.append(now)
        window = sum(now - at <= 9 for at in extra)
        assert window <= share * sum(now - at <= 19 for at in requests) + per_s * 10 + 1e-6
