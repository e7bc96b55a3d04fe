"""A replica's load and whether it is worth trying."""

from __future__ import annotations

import pytest

from balancer.replica import Replica, ReplicaStatistics
from balancer.wire.connect import Dialer


@pytest.fixture
def replica() -> Replica:
    return Replica("http://127.0.0.1:8001/v1", Dialer(), max_in_flight=2)


async def test_lease_and_room(replica: Replica) -> None:
    """Room is what `max_in_flight` leaves; every end of a lease is told once."""
    told = []
    replica.on_room.append(lambda: told.append(replica.in_flight))
    first, second = replica.lease(), replica.lease()
    assert (replica.has_room, replica.in_flight, told) == (False, 2, [])
    first.release()
    first.release()
    assert (replica.has_room, replica.in_flight, told) == (True, 1, [1])
    second.release()
    assert told == [1, 0]


async def test_no_limit() -> None:
    """Without `max_in_flight` there is always room."""
    replica = Replica("http://h", Dialer())
    for _ in range(1000):
        replica.lease()
    assert replica.has_room


async def test_a_listener_may_leave_while_told(replica: Replica) -> None:
    """A pool that lets go in the midst of it does not make another miss its turn."""
    told = []

    def once() -> None:
        told.append("once")
        replica.on_room.remove(once)

    replica.on_room += [once, lambda: told.append("always")]
    for _ in range(2):
        replica.lease().release()
    assert told == ["once", "always", "always"]


async def test_rests_longer_each_time(replica: Replica) -> None:
    """0.25 s after the first refusal, doubled each time, 5 s at most; an answer ends it."""
    now, rests = 100.0, []
    for _ in range(7):
        replica.unreachable(now)
        assert not replica.up(now)
        rests.append(replica.rest_until - now)
        now = replica.rest_until
        assert replica.up(now)
    assert rests == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5])
    replica.unreachable(now)
    replica.reached()
    assert replica.up(now)
    replica.unreachable(now)
    assert replica.rest_until - now == pytest.approx(0.25)


async def test_probes(replica: Replica) -> None:
    """Unprobed counts as up; a good probe also ends a rest, a bad one outlasts it."""
    told = []
    replica.on_room.append(lambda: told.append(replica.up(0)))
    assert (replica.up(0), replica.probed_up) == (True, None)
    replica.probed(True)
    replica.unreachable(0)
    replica.probed(True)
    assert replica.up(0)
    replica.probed(False)
    assert (replica.up(99), replica.probed_up) == (False, False)
    replica.reached()
    assert not replica.up(99)
    replica.probed(True)
    assert told == [True, True]


async def test_statistics_and_name(replica: Replica) -> None:
    """The name is the address without `/v1`; the snapshot says what happened."""
    replica.lease()
    replica.failures += 1
    assert replica.statistics(0) == ReplicaStatistics("http://127.0.0.1:8001", True, 1, 0, 1, 1)
