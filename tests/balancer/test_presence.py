"""Whether a replica is there, and whether its cache is: from signs of life and from their lack."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.presence import Presence


def test_there_all_the_time() -> None:
    """Signs of life alone say nothing."""
    presence = Presence()
    assert not any(presence.heard(float(now)) for now in range(100))


@pytest.mark.parametrize("told_by", ["probe", "request"])
def test_a_refused_connection_means_a_new_server(told_by: str) -> None:
    """Nobody listened there, however shortly: what answers next began with an empty cache."""
    presence = Presence()
    if told_by == "probe":
        presence.missed(1.0, refused=True)
    else:
        presence.unreached(1.0, refused=True)
    assert presence.heard(1.1)
    assert not presence.heard(1.2), "said once"


def test_silence_is_no_new_server_unless_it_is_long() -> None:
    """A network that was away for some seconds took no cache with it; after a minute who knows."""
    presence = Presence()
    presence.missed(0.0, refused=False)
    presence.missed(30.0, refused=False)
    assert not presence.heard(60.0)
    presence.missed(100.0, refused=False)
    assert presence.heard(160.5)


def test_the_absence_counts_from_its_first_sign() -> None:
    """Whoever noticed it."""
    presence = Presence()
    presence.unreached(0.0, refused=False)
    presence.missed(59.0, refused=False)
    assert presence.heard(61.0)


def test_what_is_out_is_lost_with_the_server() -> None:
    """A probe finds nobody listening: no answer will come, and that is said once."""
    presence = Presence()
    assert presence.missed(0.0, refused=True)
    assert not presence.missed(1.0, refused=True)
    presence.heard(2.0)
    assert presence.missed(3.0, refused=True), "another absence"


def test_a_black_hole_is_believed_after_three_probes() -> None:
    """One probe may time out while an engine compiles."""
    presence = Presence()
    assert [presence.missed(now, refused=False) for now in (0.0, 1.0, 2.0, 3.0)] == [
        False,
        False,
        True,
        False,
    ]


def test_an_answer_to_a_request_ends_a_row_of_misses() -> None:
    """It is busy, not gone."""
    presence = Presence()
    for now in range(20):
        assert not presence.missed(float(now), refused=False)
        if now % 2:
            presence.heard(now + 0.5)


def test_a_refused_request_alone_loses_nobody() -> None:
    """A listener may be full for a moment; the next probe says whether it is gone."""
    presence = Presence()
    presence.unreached(0.0, refused=True)
    assert presence.missed(0.5, refused=False), "a probe has no answer either"


@given(st.lists(st.tuples(st.sampled_from(["heard", "missed", "unreached"]), st.booleans())))
def test_lost_at_most_once_between_two_signs_of_life(events: list[tuple[str, bool]]) -> None:
    """Whatever the order of events."""
    presence, lost, away = Presence(), 0, False
    for now, (kind, refused) in enumerate(events):
        if kind == "heard":
            assert not presence.heard(float(now)) or away
            lost, away = 0, False
            continue
        away = True
        if kind == "missed":
            lost += presence.missed(float(now), refused=refused)
        else:
            presence.unreached(float(now), refused=refused)
        assert lost <= 1
