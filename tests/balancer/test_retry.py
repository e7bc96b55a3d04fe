"""What is tried again, and after how long."""

from __future__ import annotations

import pytest

from balancer.errors import AnswerInvalid, AnswerLost, ConnectFailed, ReplicaRefused
from balancer.retry import backoff_s, may_retry


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
