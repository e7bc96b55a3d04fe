"""Own bookkeeping: charges are taken back exactly, shared blocks count once."""

from __future__ import annotations

import pytest

from balancer.policies import UNKNOWN, Outcome
from bench.simulate.reference import Engine, Fleet
from bench.simulate.reference.books import OwnBooks
from bench.simulate.reference.ledger import Ledger
from tests.bench.simulate.reference.asks import Clock, fleet, members, prompt


def test_prompt_is_charged_once_and_taken_back() -> None:
    """At the lease the uncached tokens, at the first event those off, at the end all."""
    ledger, ask = Ledger(), prompt()
    ledger.open("a", ask, 100, [1, 2])
    ledger.open("a", UNKNOWN, 7, [1, 3])
    load = ledger.loads["a"]
    assert (load.requests, load.waiting, load.waiting_tokens) == (2, 2, 107)
    assert load.kv_blocks == 3 + 2
    ledger.answered("a", ask)
    assert (load.requests, load.waiting, load.waiting_tokens) == (2, 1, 7)
    ledger.released("a", ask)
    assert (load.requests, load.waiting, load.waiting_tokens) == (1, 1, 7)
    assert load.held == {1: 1, 3: 1}
    ledger.released("a", UNKNOWN)
    assert ledger.loads == {}


def test_same_request_twice_on_a_replica() -> None:
    """Of different charges none is lost, in whichever order they end."""
    ledger = Ledger()
    ledger.open("a", UNKNOWN, 100)
    ledger.open("a", UNKNOWN, 1)
    ledger.open("b", UNKNOWN, 50)
    ledger.answered("a", UNKNOWN)
    ledger.released("a", UNKNOWN)
    assert ledger.loads["a"].waiting_tokens == 1
    ledger.released("a", UNKNOWN)
    assert set(ledger.loads) == {"b"}


def test_end_of_what_never_began_is_an_error() -> None:
    """A counter that goes below zero in silence is worse than a failure."""
    with pytest.raises(KeyError):
        Ledger().released("a", UNKNOWN)


def test_leading_blocks_are_those_held_from_the_start() -> None:
    """By any prompt in flight there."""
    ledger = Ledger()
    ledger.open("a", UNKNOWN, 1, [1, 12, 123])
    load = ledger.loads["a"]
    assert load.leading_blocks([1, 12, 124, 1245]) == 2
    assert load.leading_blocks([1, 12, 123]) == 3
    assert load.leading_blocks([2]) == load.leading_blocks([]) == 0


def test_lease_that_was_not_picked_is_charged_alike() -> None:
    """A survey of another request, or of an index that has changed, is not used."""
    books, replica, ask = OwnBooks(fleet()), members(0)[0], prompt(("system", 128), ("own", 10))
    books.survey(prompt(("else", 64)))
    books.leased(replica, ask)
    assert books.load(replica).waiting_tokens == 138
    books.leased(replica, ask)
    assert books.load(replica).waiting_tokens == 138 + 10


def test_forgotten_replica_holds_nothing_but_keeps_its_leases() -> None:
    """Started again: its prefixes are gone, the requests out still end."""
    books, replica, ask = OwnBooks(fleet()), members(0)[0], prompt(("system", 128))
    books.leased(replica, ask)
    books.forget(replica.name)
    assert books.survey(ask) == {}
    assert books.load(replica).requests == 1
    books.released(replica, ask, Outcome())
    assert books.ledger.loads == {}


def test_index_is_as_large_as_the_cache() -> None:
    """Of each replica by itself."""
    small = Engine(kv_tokens=128, prefill_tokens_per_s=1.0, max_running=1)
    books, ask = OwnBooks(fleet(engines={"r1": small})), prompt(("system", 640))
    for replica in members(0, 0):
        books.leased(replica, ask)
    assert books.survey(ask) == {"r0": 640, "r1": 128}


@pytest.mark.parametrize("field", ["kv_tokens", "prefill_tokens_per_s", "max_running"])
def test_engine_without_capacity_is_refused(field: str) -> None:
    """The message names the field."""
    numbers = {"kv_tokens": 1, "prefill_tokens_per_s": 1, "max_running": 1} | {field: 0}
    with pytest.raises(ValueError, match=f"{field} is 0"):
        Engine(**numbers)


def test_empty_fleet_is_refused() -> None:
    """The message names the field."""
    engine = Engine(kv_tokens=1, prefill_tokens_per_s=1.0, max_running=1)
    with pytest.raises(ValueError, match="replicas is 0"):
        Fleet(replicas=0, engine=engine, clock=Clock())
