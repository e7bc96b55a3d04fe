"""What is in flight: never negative, and back to zero."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.load import Charge, Load


@given(st.data())
@settings(max_examples=100)
def test_counts_are_those_of_the_open_charges(data: st.DataObject) -> None:
    """After any order of beginnings, first events (told twice, too) and ends."""
    load, open_charges, now = Load(), list[Charge](), 0.0
    for _ in range(data.draw(st.integers(0, 30))):
        now += data.draw(st.floats(0, 3))
        action = data.draw(st.sampled_from(["open", "read", "close"]))
        if action == "open":
            blocks = data.draw(st.lists(st.integers(0, 5), unique=True))
            open_charges.append(load.open(data.draw(st.integers(1, 100)), blocks, now))
        elif open_charges and action == "read":
            load.read(data.draw(st.sampled_from(open_charges)), now)
        elif open_charges:
            load.close(open_charges.pop(data.draw(st.integers(0, len(open_charges) - 1))), now)
        waiting = [charge for charge in open_charges if charge.waiting]
        held = {block for charge in open_charges for block in charge.blocks}
        assert load.requests == len(open_charges)
        assert load.waiting == len(waiting)
        assert load.waiting_tokens == sum(charge.uncached_tokens for charge in waiting)
        assert load.kv_blocks == len(held) + len(open_charges)
    for charge in open_charges:
        load.close(charge, now)
    assert (load.requests, load.waiting, load.waiting_tokens, load.held) == (0, 0, 0, {})


def test_times() -> None:
    """Busy while anything is in flight; requests' seconds add up."""
    load = Load()
    one = load.open(1, (), 10.0)
    two = load.open(1, (), 12.0)
    assert (load.busy_s(13.0), load.request_s(13.0)) == (3.0, 4.0)
    load.close(one, 14.0)
    load.close(two, 15.0)
    assert (load.busy_s(99.0), load.request_s(99.0)) == (5.0, 7.0)
    load.open(1, (), 100.0)
    assert (load.busy_s(101.0), load.request_s(101.0)) == (6.0, 8.0)


def test_company_is_the_mean_of_the_others_since_the_first_event() -> None:
    """Itself left out; before its first event, those there are now."""
    load = Load()
    one = load.open(1, (), 0.0)
    two = load.open(1, (), 0.0)
    assert load.company(one, 0.0) == 1.0
    load.read(one, 1.0)
    load.close(two, 2.0)
    assert load.company(one, 1.0) == 0.0
    assert load.company(one, 5.0) == pytest.approx(1 / 4)
