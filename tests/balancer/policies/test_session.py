"""Sessions stay, as long as that does no harm."""

from __future__ import annotations

import pytest

from balancer.policies import Session
from tests.balancer.made import Clock, Member, Request, members, picks


def _ask(session: str | None) -> Request:
    return Request(session=session)


def _send(policy: Session, candidates: list[Member], session: str | None) -> Member:
    chosen = policy.pick(candidates, _ask(session))
    policy.leased(chosen, _ask(session))
    return chosen


def test_a_session_stays_though_others_are_idle() -> None:
    """Its home may have a few requests more than the others; who has no session goes elsewhere."""
    policy, candidates = Session(1, clock=Clock()), members(0, 0, 0)
    home = _send(policy, candidates, "a")
    for _ in range(3):
        home.take()
    assert picks(policy, candidates, _ask("a")) == {home.name}
    assert home.name not in picks(policy, candidates, _ask(None))


@pytest.mark.parametrize(
    ("on_home", "elsewhere", "stays"), [(4, 0, True), (5, 0, False), (16, 9, True), (18, 9, False)]
)
def test_an_overloaded_home_is_left(on_home: int, elsewhere: int, stays: bool) -> None:
    """Where with one more it had above 1.25 times the mean, rounded up, and two more. Then the
    session has moved for good."""
    policy, candidates = Session(1, clock=Clock()), members(0, 0, 0)
    home = _send(policy, candidates, "a")
    for one in candidates:
        for _ in range(on_home if one is home else elsewhere):
            one.hold()
    assert (picks(policy, candidates, _ask("a")) == {home.name}) is stays
    if not stays:
        moved = _send(policy, candidates, "a")
        assert moved is not home
        assert picks(policy, members(0, 0, 0), _ask("a")) == {moved.name}


def test_a_session_is_forgotten_after_its_time() -> None:
    """Each use counts anew."""
    clock = Clock()
    policy, candidates = Session(1, keep_s=10.0, clock=clock), members(0, 0, 0)
    home = _send(policy, candidates, "a")
    for clock.now in (9.0, 18.0):
        assert _send(policy, candidates, "a") is home
    clock.now = 28.5
    assert picks(policy, candidates, _ask("a")) == {"r0", "r1", "r2"}
    _send(policy, candidates, "b")
    assert len(policy) == 1


def test_memory_is_bounded() -> None:
    """The session used longest ago makes room."""
    policy, candidates = Session(1, most=3, clock=Clock()), members(0, 0, 0, 0)
    home = _send(policy, candidates, "a")
    for session in "bcda":
        _send(policy, candidates, session)
    assert len(policy) == 3
    for session in "efa":
        _send(policy, candidates, session)
    assert len(policy) == 3
    assert picks(policy, candidates, _ask("a")) == {_send(policy, candidates, "a").name}
    assert home in candidates


def test_a_restarted_home_is_no_home() -> None:
    """Its cache is empty; other sessions stay where they are."""
    policy, candidates = Session(1, clock=Clock()), members(0, 5)
    _send(policy, candidates, "a")
    policy.leased(candidates[1], _ask("b"))
    policy.forget("r1")
    assert len(policy) == 1
    assert picks(policy, candidates, _ask("b")) == {"r0"}


def test_a_home_that_is_away_is_not_waited_for() -> None:
    """Only candidates are picked."""
    policy, candidates = Session(1, clock=Clock()), members(0, 0)
    home = _send(policy, candidates, "a")
    (other,) = (one for one in candidates if one is not home)
    assert policy.pick([other], _ask("a")) is other
