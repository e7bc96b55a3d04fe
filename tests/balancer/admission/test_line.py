"""The line: who is next, who is refused and told what, and who must make room."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from balancer.admission import BATCH, INTERACTIVE, TIERS, Line, Room, Standing, Tier
from balancer.errors import PoolBusy
from tests.balancer.admission.desk import Desk, Lease, Request

STANDARD = Tier(name="standard", rank=1, handicap_s=10.0)


def batch_(**changes: object) -> Tier:
    """`batch` without its caps, so that slots alone count."""
    return replace(BATCH, **{"max_unread_tokens": None, "max_kv_share": None, **changes})


def served_at(pace: float, tiers: Sequence[Tier] = TIERS, places: int = 40) -> Desk:
    """A desk whose line has moved at `pace` places a second; one request is on the replica."""
    desk = Desk(tiers)
    desk.ask()
    for _ in range(places):
        desk.ask()
        desk.pass_s(1 / pace)
        desk.release(desk.order[-1])
    return desk


def test_a_free_place_is_taken_at_once() -> None:
    """With room and nobody waiting there is no line."""
    desk = Desk(limits=(2,))
    one, other = desk.asks(2)
    assert desk.order == [one, other]
    assert (desk.tier().in_flight, desk.line.waiting) == (2, 0)


def test_first_come_first_served() -> None:
    """Within a tier, without deadlines."""
    desk = Desk()
    requests = desk.asks(5)
    for request in requests:
        desk.pass_s(1)
        desk.release(request)
    assert desk.order == requests
    assert desk.tier().served == 4
    assert desk.tier().waited_s == 1 + 2 + 3 + 4


def test_the_higher_tier_goes_first() -> None:
    """However long the lower one has waited, short of its handicap."""
    desk = Desk()
    held, old = desk.asks(2, "batch")
    desk.pass_s(29)
    young = desk.ask()
    desk.release(held)
    assert desk.order == [held, young]
    desk.release(young)
    assert desk.order[2:] == [old]


def test_the_nearest_end_goes_first() -> None:
    """A deadline counts as the end of `queue_s` does: whatever comes earlier."""
    desk = Desk()
    held = desk.ask()
    plain = desk.ask()  # until 30
    desk.pass_s(1)
    pressing = desk.ask(deadline_s=5)  # until 6
    relaxed = desk.ask(deadline_s=100)  # until 31
    for request in (held, pressing, plain):
        desk.release(request)
    assert desk.order == [held, pressing, plain, relaxed]


def test_a_senior_gets_one_place_in_eight() -> None:
    """Once its handicap is over, and no more than that, however long the backlog is."""
    desk = Desk()
    held = desk.ask()
    desk.asks(3, "batch")
    desk.pass_s(31)
    desk.asks(20)
    desk.release(held)
    for number in range(20):
        desk.release(desk.order[number + 1])
    tiers = [request.standing.tier for request in desk.order[1:21]]
    assert [number for number, tier in enumerate(tiers) if tier == "batch"] == [7, 15]


def test_a_senior_is_counted_by_what_passed_it_without_waiting_too() -> None:
    """The reserve keeps `batch` out, and `interactive` never waits: yet it gets its place."""
    desk = Desk((replace(INTERACTIVE, reserve=1), batch_()), limits=(2,))
    held = desk.ask()
    waiting = desk.ask("batch")
    desk.pass_s(31)
    for number in range(7):
        assert waiting.lease is None, number
        desk.release(desk.ask())
    assert waiting.lease is not None
    desk.release(held)


def test_before_its_handicap_is_over_nobody_is_a_senior() -> None:
    """However many go first."""
    desk = Desk()
    held, waiting = desk.ask(), desk.ask("batch")
    desk.pass_s(29)
    desk.asks(20)
    desk.release(held)
    for number in range(19):
        desk.release(desk.order[number + 1])
    assert waiting not in desk.order


def test_what_went_by_before_it_came_does_not_count() -> None:
    """Only places taken while the tier waits are past it."""
    desk = Desk()
    desk.asks(21)
    for number in range(20):
        desk.release(desk.order[number])
    held = desk.order[-1]
    desk.ask("batch")
    desk.pass_s(31)
    new = desk.ask()
    desk.release(held)
    assert desk.order[-1] is new


def test_a_senior_keeps_to_its_own_slots() -> None:
    """They are the tier's limit, whatever passes it."""
    desk = Desk((INTERACTIVE, batch_(slots=1)), limits=(2,))
    one, other = desk.asks(2, "batch")
    desk.pass_s(31)
    for _ in range(20):
        desk.release(desk.ask())
    assert other.lease is None
    desk.release(one)
    assert other.lease is not None


def test_deadlines_in_its_own_tier_do_not_starve_a_senior() -> None:
    """Those with nearer ends, coming all the time, come first in their line, but not for long."""
    desk = Desk()
    desk.ask()
    old = desk.ask("batch")
    for _ in range(60):
        desk.pass_s(1)
        desk.ask("batch", deadline_s=20)
        desk.ask()
        desk.release(desk.order[-1])
    assert old in desk.order
    assert old.lease is None or old.lease.leased_at <= 40


def test_a_senior_that_is_late_is_no_senior() -> None:
    """It is out of the line; the next oldest has the place."""
    desk = Desk((INTERACTIVE, batch_(handicap_s=1.0)))
    held = desk.ask()
    desk.ask("batch", deadline_s=5)
    next_one = desk.ask("batch")
    desk.pass_s(6)
    desk.asks(8)
    desk.release(held)
    for number in range(7):
        desk.release(desk.order[number + 1])
    assert desk.order[-1] is next_one
    assert desk.tier("batch").waiting == 0


def test_who_gets_places_anyway_has_no_seniors() -> None:
    """A place of its own sets the count back: seniority is against starving, not a second line."""
    desk = Desk((INTERACTIVE, batch_(slots=2)), limits=(4,))
    requests = desk.asks(10, "batch")
    desk.pass_s(31)
    for number in range(6):
        for _ in range(6):
            desk.release(desk.ask())
        desk.release(requests[number])
    assert [request for request in desk.order if request.standing.tier == "batch"] == requests[:8]
    assert desk.tier("batch").in_flight == 2


def test_slots_bound_a_tier() -> None:
    """A tier at its limit waits beside free places, and does not hold up another."""
    desk = Desk((INTERACTIVE, batch_(slots=1)), limits=(4,))
    one, other = desk.asks(2, "batch")
    assert (one.lease is None, other.lease is None) == (False, True)
    assert desk.ask().lease is not None
    desk.release(one)
    assert other.lease is not None


def test_a_reserve_is_left_free() -> None:
    """Lower tiers do not take the last places; those above them do."""
    desk = Desk((replace(INTERACTIVE, reserve=2), batch_()), limits=(2, 2))
    assert [request.lease is None for request in desk.asks(3, "batch")] == [False, False, True]
    assert [request.lease is None for request in desk.asks(3)] == [False, False, True]


def test_a_reserve_counts_for_all_tiers_below() -> None:
    """What the top keeps free is kept from the lowest too, also if one between keeps less."""
    tiers = (replace(INTERACTIVE, reserve=3), replace(STANDARD, reserve=1), batch_(rank=2))
    desk = Desk(tiers, limits=(4,))
    assert [request.lease is None for request in desk.asks(2, "batch")] == [False, True]


def test_a_reserve_of_the_whole_pool_locks_nobody_out() -> None:
    """Half the replicas may be down: what is left idle serves anybody."""
    desk = Desk((replace(INTERACTIVE, reserve=8), batch_()), limits=(2,))
    one, other = desk.asks(2, "batch")
    assert (one.lease is None, other.lease is None) == (False, True)
    desk.release(one)
    assert other.lease is not None


def test_late_binding_by_unread_tokens() -> None:
    """A replica with enough to read gets no more of `batch`, until it has read some."""
    desk = Desk(limits=(8,))
    requests = [desk.ask("batch", tokens=3000) for _ in range(4)]
    assert [request.lease is None for request in requests] == [False, False, True, True]
    assert desk.ask(tokens=3000).lease is not None
    desk.answer(requests[0])
    assert requests[2].lease is None
    desk.answer(requests[1])
    assert requests[2].lease is not None


def test_late_binding_by_requests() -> None:
    """The same by number."""
    desk = Desk((INTERACTIVE, batch_(max_requests=1)), limits=(8, 8))
    assert [request.lease is None for request in desk.asks(3, "batch")] == [False, False, True]


def test_late_binding_by_kv_cache() -> None:
    """The same by memory: what is left of it is for those above."""
    desk = Desk(limits=(8,))
    held = desk.ask()
    desk.replicas[0].kv_share = 0.8
    waiting = desk.ask("batch")
    assert (waiting.lease is None, desk.ask().lease is None) == (True, False)
    desk.replicas[0].kv_share = 0.79
    desk.release(held)
    assert waiting.lease is not None


def test_an_idle_replica_takes_anything() -> None:
    """Also what is larger than the cap."""
    desk = Desk((INTERACTIVE, replace(BATCH, max_unread_tokens=1, max_requests=1)))
    assert desk.ask("batch", tokens=100_000).lease is not None


def test_one_that_wants_another_replica_holds_up_nobody() -> None:
    """A retry waits for what it has not tried; those behind it take the rest."""
    desk = Desk(limits=(1, 1))
    first, second = desk.asks(2)
    picky = desk.ask(tried=frozenset({0}))
    plain = desk.ask()
    desk.release(first)
    assert desk.order[2:] == [plain]
    desk.release(second)
    assert desk.order[3:] == [picky]


def test_order_holds_across_what_is_wanted() -> None:
    """The nearest end is next also among those that want different replicas."""
    desk = Desk(limits=(1, 1))
    first, _ = desk.asks(2)
    relaxed = desk.ask(deadline_s=20)
    pressing = desk.ask(deadline_s=10, tried=frozenset({1}))
    desk.release(first)
    assert desk.order[2:] == [pressing]
    desk.release(pressing)
    assert desk.order[3:] == [relaxed]


def test_the_queue_is_bounded_by_tier() -> None:
    """One more is refused at once; the other tier's places are its own."""
    desk = Desk((replace(INTERACTIVE, queue=1), replace(BATCH, queue=2)))
    desk.asks(2)
    desk.asks(2, "batch")
    for tier, waiting in (("interactive", 1), ("batch", 2)):
        match = f"all replicas of model 'm' are full and {waiting} requests wait in tier '{tier}'"
        with pytest.raises(PoolBusy, match=match) as caught:
            desk.ask(tier)
        assert (caught.value.reason, caught.value.tier) == ("full", tier)
        assert desk.tier(tier).full == 1
        assert desk.tier(tier).waiting == waiting


@pytest.mark.parametrize(("queue_s", "retry_after_s"), [(30.0, 5), (2.5, 3), (0.2, 1)])
def test_before_anything_was_seen_retry_after_is_a_guess(
    queue_s: float, retry_after_s: int
) -> None:
    """And nobody is refused by a prediction."""
    desk = Desk((replace(INTERACTIVE, queue=50, queue_s=queue_s),))
    desk.asks(51)
    with pytest.raises(PoolBusy) as caught:
        desk.ask()
    assert caught.value.retry_after_s == retry_after_s


def test_full_says_when_there_is_a_place_again() -> None:
    """At two places a second one of the queue is free in half a second."""
    desk = served_at(2.0, (replace(INTERACTIVE, queue=20),))
    desk.asks(20)
    with pytest.raises(PoolBusy) as caught:
        desk.ask()
    assert caught.value.reason == "full"
    assert caught.value.retry_after_s == pytest.approx(0.5)


def test_retry_after_looks_no_further_than_it_can() -> None:
    """A thousand wait, and the pace may be another in a minute: no more than that, or `queue_s`."""
    for queue_s, most in ((30.0, 60), (100.0, 100)):
        desk = Desk((replace(INTERACTIVE, queue=1000, queue_s=queue_s),))
        desk.asks(1001)
        for _ in range(10):
            desk.pass_s(0.5)
            desk.release(desk.order[-1])
        with pytest.raises(PoolBusy) as caught:
            desk.ask()
        assert caught.value.retry_after_s == most


def test_an_old_pace_refuses_nobody() -> None:
    """Once slow, then idle: who comes with a short deadline may wait where nobody does, so that
    the pace can be seen anew."""
    desk = Desk((INTERACTIVE,))
    held = desk.ask()
    for _ in range(5):
        waiting = desk.ask()
        desk.pass_s(3)
        desk.release(held)
        held = waiting
    assert desk.ask(deadline_s=2.0).waits


def test_who_was_let_in_once_is_not_refused() -> None:
    """Its replica died: the queue may be full, and the wait long."""
    desk = Desk((replace(INTERACTIVE, queue=1),), limits=(1, 1))
    first, second = desk.asks(2)
    desk.ask()
    desk.release(first)
    desk.ask()
    moved = Request(second.standing)
    desk.release(second)
    desk.ask()
    assert desk.tier().waiting == 1
    desk.ask_again(moved)
    assert (moved.waits, desk.tier().waiting, desk.tier().full) == (True, 2, 0)


def test_full_and_more() -> None:
    """Those put back come on top: with three too many four must go first."""
    desk = served_at(2.0, (replace(INTERACTIVE, queue=20),))
    desk.asks(20)
    for _ in range(3):
        desk.ask_again(Request(Standing("interactive", desk.now, put_backs=1)))
    with pytest.raises(PoolBusy) as caught:
        desk.ask()
    assert caught.value.retry_after_s == pytest.approx(2.0)


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    """At two places a second the fifth waits 2.5 s: too long for 2.4 s. The fourth does not."""
    desk = served_at(2.0)
    for _ in range(4):
        desk.ask(deadline_s=2.4)
    with pytest.raises(PoolBusy, match=r"in about 2\.5 s, and the request can wait 2\.4 s") as e:
        desk.ask(deadline_s=2.4)
    assert e.value.reason == "hopeless"
    assert e.value.retry_after_s == pytest.approx(0.5)
    assert desk.tier().hopeless == 1


def test_retry_after_counts_from_the_deadline() -> None:
    """With ten that end before, at two a second: 5.5 s less the 2.4 s it would wait again."""
    desk = served_at(2.0)
    for _ in range(10):
        desk.ask_again(Request(Standing("interactive", desk.now, desk.now + 2.3, put_backs=1)))
    with pytest.raises(PoolBusy) as caught:
        desk.ask(deadline_s=2.4)
    assert caught.value.retry_after_s == pytest.approx(11 / 2 - 2.4)


def test_those_behind_do_not_count() -> None:
    """Who has the nearest end is next, however many wait."""
    desk = served_at(2.0)
    desk.asks(40)
    assert desk.ask(deadline_s=1).waits


def test_a_wait_beyond_queue_s_is_not_begun() -> None:
    """The same without a deadline."""
    desk = served_at(2.0, (replace(INTERACTIVE, queue_s=5.2),))
    desk.asks(10)
    with pytest.raises(PoolBusy) as caught:
        desk.ask()
    assert caught.value.reason == "hopeless"
    assert desk.line.waiting == 10


@pytest.mark.parametrize(("early_s", "let_in"), [(0.1, False), (-0.1, True)])
def test_retry_after_is_exact(early_s: float, let_in: bool) -> None:
    """To the next place: who comes a place later is let in, who comes a place earlier is not."""
    desk = served_at(10.0, (replace(INTERACTIVE, queue_s=4.05),))
    desk.asks(40)
    for _ in range(15):  # too many: those put back are let in all the same
        desk.ask_again(Request(Standing("interactive", desk.now, put_backs=1)))
    with pytest.raises(PoolBusy) as caught:
        desk.ask()
    assert caught.value.retry_after_s == pytest.approx(56 / 10.0 - 4.05)
    back_at = desk.now + caught.value.retry_after_s - early_s
    while desk.now + 0.1 <= back_at:
        desk.pass_s(0.1)
        desk.release(desk.order[-1])
    desk.pass_s(back_at - desk.now)
    if let_in:
        assert desk.ask().waits
    else:
        with pytest.raises(PoolBusy):
            desk.ask()


def test_a_deadline_that_has_passed_is_refused() -> None:
    """Nothing can be done in time any more, measured or not."""
    desk = Desk()
    desk.ask()
    with pytest.raises(PoolBusy) as caught:
        desk.ask(deadline_s=0)
    assert caught.value.reason == "hopeless"


def test_a_lower_tier_does_not_make_the_wait_longer() -> None:
    """A thousand batch requests in line say nothing about an interactive one."""
    desk = served_at(2.0)
    desk.asks(1000, "batch")
    assert desk.ask(deadline_s=1).waits


def test_who_is_late_gets_no_place() -> None:
    """Room that comes at the very end of its patience goes to the next."""
    desk = Desk((replace(INTERACTIVE, queue_s=2.0),))
    held, late = desk.asks(2)
    desk.pass_s(1)
    behind = desk.ask()
    desk.pass_s(1)
    desk.release(held)
    assert desk.order == [held, behind]
    busy = desk.line.late(late, desk.now)
    assert str(busy) == "no replica of model 'm' had room within 2 s"
    assert (busy.reason, busy.tier, desk.tier().late) == ("late", "interactive", 1)


def test_late_by_its_deadline_says_so() -> None:
    """Told apart from the end of `queue_s`; the wait is over by that."""
    desk = Desk()
    desk.ask()
    waiting = desk.ask(deadline_s=3)
    assert waiting.until == 3
    desk.pass_s(3)
    assert "within 3 s, its deadline" in str(desk.line.late(waiting, desk.now))
    assert desk.line.waiting == 0


def test_who_leaves_leaves_nothing() -> None:
    """Gone at once, from the middle of the line, and only once."""
    desk = Desk()
    held, first, second, third = desk.asks(4)
    gone = weakref.ref(second)
    desk.leave(second)
    desk.leave(second)
    assert (desk.line.waiting, desk.tier().left) == (2, 1)
    del second
    gc.collect()
    assert gone() is None
    desk.release(held)
    desk.release(first)
    assert desk.order == [held, first, third]


def test_an_interactive_request_takes_the_place_of_a_young_batch_one() -> None:
    """The youngest; it waits again at its old age, and is let in although the queue is full."""
    desk = Desk((INTERACTIVE, batch_(queue=1)), limits=(2,))
    older = desk.ask("batch")
    desk.pass_s(1)
    younger = desk.ask("batch")
    desk.pass_s(1)
    desk.ask("batch")
    new = desk.ask()
    assert desk.put_one_back(new) is younger
    assert new.lease is not None
    assert older.lease is not None
    desk.ask_again(younger)
    desk.release(new)
    assert desk.order[-1] is younger
    assert desk.tier("batch").put_back == 1


@pytest.mark.parametrize("why", ["answered", "over", "old", "senior", "twice", "no room"])
def test_who_is_not_put_back(why: str) -> None:
    """One that has sent something, has worked for long, was put back twice, or in vain."""
    desk = Desk((INTERACTIVE, batch_(), replace(BATCH, name="slow", rank=2, yields_s=9.0)))
    request = desk.ask("batch")
    new = desk.ask(tried=frozenset({0}) if why in ("no room", "over") else frozenset())
    if why == "answered":
        desk.answer(request)
    elif why == "over":
        desk.release(request)
    elif why == "old":
        desk.pass_s(2.1)
    elif why == "senior":
        request.standing.arrived = -30.0
    elif why == "twice":
        request.standing.put_backs = 2
    assert desk.line.victim(new, desk.now, lambda lease: why != "no room") is None
    assert new.lease is None


def test_nobody_is_put_back_for_a_tier_at_its_limit() -> None:
    """A place it may not take would be of no use."""
    desk = Desk((replace(INTERACTIVE, slots=1), batch_()), limits=(2,))
    desk.ask()
    desk.ask("batch")
    assert desk.put_one_back(desk.ask()) is None


def test_a_late_request_takes_nobodys_place() -> None:
    """It could not use it."""
    desk = Desk()
    held = desk.ask("batch")
    late = Request(Standing("interactive", desk.now, deadline=desk.now))
    assert desk.put_one_back(late) is None
    assert held.lease is not None


def test_a_reserve_is_no_reason_where_the_one_put_back_was_alone() -> None:
    """A reserve as large as the pool: with the victim gone nothing is at work, so it may."""
    tiers = (
        Tier(name="gold", rank=0, reserve=1),
        Tier(name="silver", rank=1, preempts=True),
        batch_(rank=2, yields_s=2.0),
    )
    desk = Desk(tiers)
    victim = desk.ask("batch")
    assert desk.put_one_back(Request(Standing("silver", desk.now))) is victim


def test_many_lanes_are_not_tried_in_vain() -> None:
    """Where no replica has room: a retry for each that failed, each wanting others."""
    desk = Desk(limits=(1,) * 20)
    held = desk.asks(20)
    waiting = [desk.ask(tried=frozenset([number])) for number in range(20)]
    asked: list[Request] = []

    def place(request: Request, tier: Tier) -> Lease | None:
        asked.append(request)
        return desk.serve(request, tier)

    assert desk.line.hand_out(desk.now, place)
    assert asked == []
    desk.release(held[0])
    assert sum(request.waits for request in waiting) == 19


def test_batch_puts_nobody_back() -> None:
    """Only a tier that `preempts` does, and only tiers below it are asked."""
    desk = Desk((INTERACTIVE, replace(STANDARD, yields_s=2.0), replace(BATCH, rank=2)))
    desk.ask("standard")
    assert desk.put_one_back(desk.ask("batch")) is None
    assert desk.put_one_back(desk.ask()) is not None


def test_a_tier_does_not_put_back_its_own() -> None:
    """Nothing would be gained."""
    desk = Desk((replace(INTERACTIVE, yields_s=2.0, handicap_s=9.0),))
    desk.ask()
    assert desk.put_one_back(desk.ask()) is None


def test_a_tier_it_does_not_know_is_the_lowest() -> None:
    """After a reload a request may come with a name that is gone."""
    desk = Desk((INTERACTIVE, batch_()))
    held = desk.ask()
    stranger = desk.ask("gone")
    assert desk.tier("batch").waiting == 1
    desk.release(held)
    desk.release(stranger)
    assert desk.tier("batch").in_flight == 0


@pytest.mark.parametrize("tiers", [(), (BATCH, BATCH), (BATCH, replace(BATCH, name="b"))])
def test_tiers_must_be_told_apart(tiers: tuple[Tier, ...]) -> None:
    """None, the same name twice, the same rank twice."""
    with pytest.raises(ValueError, match="no name or rank twice"):
        Line("m", tiers, lambda: Room(0, 1))


def test_the_default_tiers_do_not_touch_interactive() -> None:
    """A pool that knows no tiers is a bounded queue: no cap, no slots, no reserve, no deadline."""
    assert TIERS[0] == Tier(name="interactive", rank=0, preempts=True)
    assert not TIERS[0].capped


def test_statistics() -> None:
    """Each tier in its order; nothing is left at the end."""
    desk = Desk((STANDARD, INTERACTIVE))
    held = desk.ask()
    waiting = desk.ask("standard")
    desk.pass_s(2)
    top, standard = desk.line.statistics(desk.now)
    assert (top.tier, top.in_flight, top.waiting) == ("interactive", 1, 0)
    assert (standard.tier, standard.waiting, standard.first_waits_s) == ("standard", 1, 2.0)
    desk.release(held)
    desk.release(waiting)
    for one in desk.line.statistics(desk.now):
        assert (one.in_flight, one.waiting, one.first_waits_s) == (0, 0, 0)
