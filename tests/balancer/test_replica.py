"""A replica's load, its state, and what it tells whom."""

from __future__ import annotations

import errno
from collections.abc import Sequence, Set

import pytest

from balancer.breaker import BreakerSettings
from balancer.errors import AnswerLost, BalancerError, ConnectFailed, Overdue, ReplicaRefused
from balancer.outliers import Fitness
from balancer.policies import Outcome
from balancer.ramp import RampSettings
from balancer.readings import Gauges, GpuReading
from balancer.replica import UNBOUNDED, Listener, Replica, ReplicaSettings
from balancer.wire.connect import Dialer

NAME = "http://127.0.0.1:8001"


def replica_(limit: int | None = 2, *, step_s: float = 5.0) -> Replica:
    settings = ReplicaSettings(BreakerSettings(), RampSettings(step_s))
    return Replica(
        f"{NAME}/v1", Dialer(), max_in_flight=limit, settings=settings, chance=lambda: 0.5
    )


@pytest.fixture
def replica() -> Replica:
    return replica_()


def refused() -> ConnectFailed:
    failure = ConnectFailed(NAME, "refused")
    failure.__cause__ = OSError(errno.ECONNREFUSED, "refused")
    return failure


class Told(Listener):
    """Notes what it is told."""

    def __init__(self, replica: Replica) -> None:
        self.rooms = 0
        self.changes = 0
        self.restarts: list[str] = []
        self.models: list[tuple[Set[str], Set[str]]] = []
        self.capacities: list[int] = []
        replica.listeners.append(self)

    def on_room(self) -> None:
        self.rooms += 1

    def on_change(self) -> None:
        self.changes += 1

    def on_restart(self, replica: str) -> None:
        self.restarts.append(replica)

    def on_models(self, replica: str, before: Set[str], after: Set[str]) -> None:
        self.models.append((before, after))

    def on_capacity(self, replica: str, tokens: int) -> None:
        self.capacities.append(tokens)


class Sent:
    """A request that was sent there, and gives no place back."""

    def __init__(self, replica: Replica) -> None:
        self.reclaimed = 0
        replica.unanswered[self] = None

    def reclaim(self, reason: str) -> bool:
        self.reclaimed += 1
        return False


def fails(replica: Replica, now: float, failure: BalancerError | None = None) -> bool:
    era = replica.breaker.begin(now)
    return replica.failed(failure or refused(), era, now)


def answers(replica: Replica, now: float) -> None:
    era = replica.breaker.begin(now)
    charge = replica.open(10, (), now)
    replica.answered(charge, era, now)
    replica.closed(charge, Outcome(True), now)


def test_room_is_what_the_limit_leaves(replica: Replica) -> None:
    """And without a limit there always is some."""
    replica.refresh(0)
    first, second = replica.open(1, (), 0), replica.open(1, (), 0)
    assert (replica.has_room, replica.in_flight) == (False, 2)
    replica.closed(first, Outcome(), 1)
    assert (replica.has_room, replica.in_flight) == (True, 1)
    replica.max_in_flight = None
    replica.refresh(2)
    assert replica.room == UNBOUNDED
    replica.closed(second, Outcome(), 3)


def test_who_takes_room_comes_last_from_then_on(replica: Replica) -> None:
    """Who is told and takes none keeps its turn; one that lets go in the midst of it costs nobody
    else a turn."""
    told: list[str] = []

    class Named(Told):
        def __init__(self, name: str, takes: Sequence[bool]) -> None:
            super().__init__(replica)
            self.name, self.takes = name, list(takes)

        def on_room(self) -> None:
            told.append(self.name)
            if self.takes.pop(0):
                replica.open(1, (), 0)
            if not self.takes:
                replica.listeners.remove(self)

    Named("once", [True])
    Named("one", [False, True, False, False])
    Named("other", [False, False, False, False])
    for _ in range(4):
        replica.tell_room()
    assert told == ["once", *["one", "other"] * 2, *["other", "one"] * 2]


def test_rests_after_a_refusal_and_longer_each_time(replica: Replica) -> None:
    """Half a second after the first, doubled up to half a minute; then one trial at a time."""
    now, rests = 100.0, []
    for _ in range(8):
        assert fails(replica, now)
        assert (replica.up(now), replica.refresh(now)) == (False, Fitness.DEAD)
        rests.append(replica.changes_at(now) - now)
        now += rests[-1]
        assert (replica.up(now), replica.refresh(now)) == (True, Fitness.FIT)
    assert rests == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30])


def test_a_trial_at_a_time(replica: Replica) -> None:
    """Half open it takes one request; another when that is over; two answers close it."""
    fails(replica, 0)
    assert replica.refresh(1) is Fitness.FIT
    era = replica.breaker.begin(1)
    assert (replica.refresh(1), replica.state(1)) == (Fitness.DOUBTFUL, "trial")
    replica.abandoned(era)
    assert replica.refresh(1) is Fitness.FIT
    answers(replica, 2)
    assert (replica.refresh(2), replica.state(2)) == (Fitness.FIT, "trial")
    answers(replica, 3)
    assert replica.state(3) == "up"


def test_a_replica_that_was_tried_out_starts_slowly() -> None:
    """One request at once, then two, as it answers; another slow start after the next failure."""
    replica = replica_(None)
    replica.refresh(0)
    assert replica.room == UNBOUNDED
    fails(replica, 0)
    answers(replica, 1)
    answers(replica, 2)
    replica.refresh(2)
    assert replica.room == 1
    answers(replica, 8)
    replica.refresh(8)
    assert replica.room == 2
    assert replica.full_room == UNBOUNDED


def test_overload_pauses_it_and_is_no_failure(replica: Replica) -> None:
    """A 503 with Retry-After: no room for so long, the breaker stays closed."""
    refusal = ReplicaRefused(NAME, 503, [(b"retry-after", b"3")], b"")
    assert not fails(replica, 10, refusal)
    assert (replica.refresh(10), replica.room, replica.state(10)) == (Fitness.FIT, 0, "paused")
    assert replica.changes_at(10) == 13
    replica.refresh(13)
    assert (replica.room, replica.state(13), replica.failures) == (2, "up", 0)


@pytest.mark.parametrize(
    ("failure", "blamed"),
    [
        (ReplicaRefused(NAME, 400, [], b""), False),
        (ReplicaRefused(NAME, 500, [], b""), True),
        (AnswerLost(NAME, "reset"), True),
        (Overdue("first_byte", 9), True),
        (Overdue("total", 9), False),
    ],
)
def test_whose_fault_it_is(replica: Replica, failure: BalancerError, blamed: bool) -> None:
    """The caller's mistakes and the limit on everything are not the replica's failures."""
    for _ in range(5):
        assert fails(replica, 1, failure) is blamed
    assert replica.failures == (5 if blamed else 0)
    assert replica.state(1) == ("resting" if blamed else "up")


def test_probes(replica: Replica) -> None:
    """Unprobed counts as up; a good probe ends a rest for want of a listener, a bad one lasts."""
    told = Told(replica)
    assert (replica.up(0), replica.probed_up) == (True, None)
    replica.probed(True, 0)
    fails(replica, 0)
    rooms = told.rooms
    replica.probed(True, 0)
    assert (replica.up(0), told.rooms) == (True, rooms + 1)
    replica.probed(False, 0)
    assert (replica.up(99), replica.probed_up, replica.state(99)) == (False, False, "down")
    answers(replica, 99)
    assert not replica.up(99)
    rooms = told.rooms
    replica.probed(True, 99)
    replica.probed(True, 100)
    assert (replica.up(100), told.rooms) == (True, rooms + 1)


@pytest.mark.parametrize(
    ("down_s", "refusing", "told"),
    [(5.0, True, True), (5.0, False, False), (61.0, False, True)],
)
def test_its_cache_is_gone_after_a_restart_or_a_long_absence(
    replica: Replica, down_s: float, refusing: bool, told: bool
) -> None:
    """Nobody listening means that the server was started again; silence only after a minute."""
    listener = Told(replica)
    replica.probed(True, 0)
    replica.probed(False, 1, refused=refusing)
    replica.probed(False, 2)
    assert listener.restarts == []
    replica.probed(True, 1 + down_s)
    assert listener.restarts == ([NAME] if told else [])


def test_other_models_mean_another_cache(replica: Replica) -> None:
    """The first list is no news, the same again neither."""
    told = Told(replica)
    replica.lists(["a", "b"])
    replica.lists(["b", "a"])
    assert told.models == []
    replica.lists(["a"])
    assert told.models == [({"a", "b"}, {"a"})]


def test_what_was_sent_is_lost_with_the_replica(replica: Replica) -> None:
    """Nobody listens, or three probes in a row fail; told once for each absence."""
    sent = Sent(replica)
    replica.probed(False, 0, refused=True)
    replica.probed(False, 1, refused=True)
    assert sent.reclaimed == 1
    replica.probed(True, 2)
    for now in (3, 4):
        replica.probed(False, now)
    assert sent.reclaimed == 1
    replica.probed(False, 5)
    replica.probed(False, 6)
    assert sent.reclaimed == 2


def test_a_gpu_at_fault(replica: Replica) -> None:
    """Takes the replica out, and what was sent there with it, until a reading is sound."""
    sent = Sent(replica)
    replica.gpu = GpuReading(at=0, fault="GPU is lost")
    assert (replica.refresh(0), replica.state(0)) == (Fitness.DEAD, "faulty")
    replica.gpu = GpuReading(at=1, fault="GPU is lost")
    assert sent.reclaimed == 1
    replica.gpu = GpuReading(at=2)
    assert replica.refresh(2) is Fitness.FIT


def test_its_cache_is_as_large_as_it_says(replica: Replica) -> None:
    """Told when it becomes known, and when it changes."""
    told = Told(replica)
    for at, tokens in enumerate((None, 1000, 1000, 2000)):
        replica.gauges = Gauges(at=at, kv_tokens=tokens)
    assert told.capacities == [1000, 2000]


def test_draining_is_a_state(replica: Replica) -> None:
    """And ends as it began."""
    told = Told(replica)
    replica.drain()
    assert (replica.state(0), told.changes) == ("draining", 1)
    replica.drain(False)
    assert (replica.state(0), told.changes, told.rooms) == ("up", 2, 1)


def test_statistics(replica: Replica) -> None:
    """The name is the address without `/v1`; the snapshot says what happened."""
    replica.open(40, (), 0)
    answers(replica, 1)
    charge = replica.open(9, (), 1)
    replica.closed(charge, Outcome(True, 0.1, 0.01, 50, 30, 7), 2)
    fails(replica, 3, AnswerLost(NAME, "reset"))
    found = replica.statistics(3)
    assert (found.name, found.state, found.up, found.in_flight) == (NAME, "up", True, 1)
    assert (found.unread, found.unread_tokens, found.requests, found.failures) == (1, 40, 3, 1)
    assert (found.prompt_tokens, found.cached_tokens, found.output_tokens) == (50, 30, 7)


def test_a_probe_always_ends_a_rest_for_want_of_a_listener(replica: Replica) -> None:
    """Also if probes had found it down: the first good one is enough."""
    now = 100.0
    for _ in range(7):
        fails(replica, now)
        now = replica.breaker.rest_until
    fails(replica, now)
    replica.probed(False, now, refused=True)
    assert replica.breaker.rest_until > now + 20
    replica.probed(True, now + 1)
    assert (replica.up(now + 1), replica.state(now + 1)) == (True, "trial")


def test_one_slow_probe_takes_nobody_out() -> None:
    """A replica under load may be slow to list its models; it is down if that is so three times
    in a row, and no request was answered between."""
    replica = replica_(None)
    told = Told(replica)
    replica.probed(True, 0)
    changes = told.changes
    for now in (5, 7, 10, 12, 15, 17):
        replica.probed(False, now, silent=True)
        if now in (7, 12):
            answers(replica, now + 1)
    assert (replica.probed_up, told.changes, replica.ramp.cap) == (True, changes, None)
    replica.probed(True, 18)
    assert (told.changes, replica.ramp.cap) == (changes, None)
    for now in (20, 22, 25):
        assert replica.probed_up
        replica.probed(False, now, silent=True)
    assert replica.state(25) == "down"
    replica.probed(True, 26)
    assert (replica.state(26), replica.ramp.cap) == ("up", 1)


@pytest.mark.parametrize("how", [{"silent": True}, {"refused": True}, {}])
def test_a_probe_that_says_it_at_once(replica: Replica, how: dict[str, bool]) -> None:
    """Nobody listens, or it says that it cannot: down. So is one that nothing was ever heard of."""
    if how != {"silent": True}:
        replica.probed(True, 0)
    replica.probed(False, 1, **how)
    assert replica.state(1) == "down"


def test_every_change_is_told(replica: Replica) -> None:
    """A pause, and a trial that begins, is given back, or answers: who may get work is another."""
    told = Told(replica)

    def changes() -> int:
        seen, told.changes = told.changes, 0
        return seen

    fails(replica, 0, ReplicaRefused(NAME, 503, [(b"retry-after", b"3")], b""))
    assert changes() == 1
    fails(replica, 5)
    assert changes() == 1
    era = replica.breaker.begin(9)
    replica.trial_began()
    assert changes() == 1
    replica.abandoned(era)
    assert changes() == 1
    answers(replica, 10)
    assert changes() == 1
