"""The prefix index agrees with a list of blocks per replica, and stays within its bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulate.prefix import PrefixIndex

BLOCK = 64
CAPACITIES = {"a": 2 * BLOCK, "b": 5 * BLOCK + 63, "c": 40 * BLOCK, "d": BLOCK - 1}


def chained(text: str) -> list[int]:
    """One number for each letter, the same for equal beginnings."""
    return [int.from_bytes(text[: end + 1].encode(), "big") for end in range(len(text))]


def index_of(capacity_blocks: int = 1000) -> PrefixIndex:
    return PrefixIndex(BLOCK, lambda _: capacity_blocks * BLOCK)


class Model:
    """The same in the plainest way: each replica's blocks, the one used longest ago first."""

    def __init__(self) -> None:
        self.held: dict[str, list[int]] = {}

    def insert(self, replica: str, blocks: Sequence[int]) -> None:
        room = CAPACITIES[replica] // BLOCK
        held = self.held.setdefault(replica, [])
        for block in reversed(blocks[:room]):
            if block in held:
                held.remove(block)
            held.append(block)
        del held[: max(0, len(held) - room)]

    def match(self, blocks: Sequence[int]) -> dict[str, int]:
        matched = {}
        for replica, held in self.held.items():
            count = 0
            while count < len(blocks) and blocks[count] in held:
                count += 1
            if count:
                matched[replica] = count * BLOCK
        return matched


texts = st.text("xy", max_size=7)
steps = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "insert", "drop"]), st.sampled_from("abcd"), texts
    ),
    max_size=25,
)


@given(steps, st.lists(texts, max_size=5))
@settings(max_examples=300)
def test_index_agrees_with_the_model(done: list[tuple[str, str, str]], asked: list[str]) -> None:
    """After any insertions and drops, whatever is asked, and nothing is left over."""
    index, model = PrefixIndex(BLOCK, CAPACITIES.__getitem__), Model()
    for action, replica, text in done:
        if action == "drop":
            index.drop(replica)
            model.held.pop(replica, None)
        else:
            index.insert(replica, chained(text))
            model.insert(replica, chained(text))
        for each in (*asked, text):
            assert index.match(chained(each)) == model.match(chained(each))
    for replica, held in model.held.items():
        assert index.held_blocks(replica) == len(held)
    assert len(index) == len({block for held in model.held.values() for block in held})


def test_each_replica_has_its_own_depth() -> None:
    """One lookup tells for all of them how far they go along; those with nothing are left out."""
    index = index_of()
    index.insert("none", chained("zzz"))
    for replica, text in (("all", "abcdefgh"), ("some", "abcde---"), ("one", "a")):
        index.insert(replica, chained(text))
    matched = index.match(chained("abcdefgh"))
    assert matched == {"all": 8 * BLOCK, "some": 5 * BLOCK, "one": BLOCK}
    assert index.match([]) == {}


def test_beginning_outlives_the_end() -> None:
    """What is forgotten first is the end of the prompt used longest ago, a block at a time."""
    index = index_of(6)
    index.insert("a", chained("ssss"))
    index.insert("a", chained("tttt"))
    assert index.match(chained("ssss")) == {"a": 2 * BLOCK}
    assert index.match(chained("tttt")) == {"a": 4 * BLOCK}


def test_of_a_prompt_that_is_too_long_the_beginning_is_held() -> None:
    """It drives out all else, and no more than the capacity is counted."""
    index = index_of(3)
    index.insert("a", chained("x"))
    index.insert("a", chained("yyyyy"))
    assert index.match(chained("yyyyy")) == {"a": 3 * BLOCK}
    assert index.match(chained("x")) == {}
    assert index.held_blocks("a") == len(index) == 3


def test_dropped_replica_holds_nothing_and_another_takes_its_place() -> None:
    """Neither does its successor inherit anything, nor do the others lose any."""
    index = index_of()
    for replica in ("a", "b"):
        index.insert(replica, chained("xyz"))
    index.drop("a")
    index.drop("never seen")
    assert index.match(chained("xyz")) == {"b": 3 * BLOCK}
    index.insert("c", chained("x"))
    assert index.match(chained("xyz")) == {"b": 3 * BLOCK, "c": BLOCK}
    index.drop("b")
    index.drop("c")
    assert len(index) == 0


def test_replicas_that_come_and_go_leave_nothing_behind() -> None:
    """A hundred in turn need no wider masks than one."""
    index = index_of()
    for number in range(100):
        index.insert(f"r{number}", chained("x"))
        assert index._holders == {chained("x")[0]: 1}
        index.drop(f"r{number}")


def test_thousands_of_replicas() -> None:
    """Each is told apart from all others."""
    index, count = index_of(), 3000
    for number in range(count):
        index.insert(f"r{number}", chained("ss" + "t" * (number % 3)))
    matched = index.match(chained("sstt"))
    assert matched == {f"r{number}": (2 + number % 3) * BLOCK for number in range(count)}


def test_block_of_nothing_is_refused() -> None:
    """The message names the value."""
    with pytest.raises(ValueError, match="block_tokens is 0"):
        PrefixIndex(0, lambda _: 1)
