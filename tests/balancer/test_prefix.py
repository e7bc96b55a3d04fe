"""The prefix index agrees with a set of blocks per replica, and stays within its bounds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer import prefix
from balancer.prefix import NOTHING, PrefixIndex
from balancer.segments import Holder, Segment

BLOCK = 64
CAPACITIES = {"a": 2 * BLOCK, "b": 5 * BLOCK + 63, "c": 40 * BLOCK, "d": BLOCK - 1}


def chained(text: str) -> list[int]:
    """One number for each letter, the same for equal beginnings."""
    return [int.from_bytes(text[: end + 1].encode(), "big") for end in range(len(text))]


def row(key: int, count: int) -> list[int]:
    """The numbers of a prompt of so many blocks that shares nothing with others."""
    return [key * 100_000 + place for place in range(count)]


def index_of(capacity_blocks: int = 1000, **bounds: int) -> PrefixIndex:
    return PrefixIndex(BLOCK, lambda _: capacity_blocks * BLOCK, **bounds)


class Truth:
    """What replicas were sent since they were last known to be empty, in the plainest way."""

    def __init__(self) -> None:
        self.sent: dict[str, list[tuple[int, ...]]] = {}

    def insert(self, replica: str, blocks: Sequence[int]) -> None:
        self.sent.setdefault(replica, []).append(tuple(blocks))

    def empty(self, replica: str) -> None:
        self.sent.pop(replica, None)

    def match(self, blocks: Sequence[int]) -> dict[str, int]:
        held = {name: {each for sent in all_ for each in sent} for name, all_ in self.sent.items()}
        depths = {name: self._depth(blocks, known) for name, known in held.items()}
        return {name: depth * BLOCK for name, depth in depths.items() if depth}

    @staticmethod
    def _depth(blocks: Sequence[int], known: set[int]) -> int:
        return next((k for k, block in enumerate(blocks) if block not in known), len(blocks))


def below(segment: Segment) -> Iterator[Segment]:
    for child in (segment.children or {}).values():
        yield child
        yield from below(child)


def check(index: PrefixIndex) -> None:
    """The rules that the module states, and all its counters, by looking at every segment."""
    segments = list(below(index._root))
    holders = [holder for holder in index._numbered if holder is not None]
    assert len(index) == sum(len(segment.blocks) for segment in segments)
    assert index._segments == len(segments)
    assert index._places == sum(len(holder.uses) for holder in holders)
    for segment in segments:
        parent = segment.parent
        assert parent is not None
        assert segment.blocks
        assert segment.mask
        assert parent is index._root or segment.mask & parent.mask == segment.mask
        assert all(key == child.blocks[0] for key, child in (segment.children or {}).items())
    for holder in holders:
        held = [segment for segment in segments if segment.mask & holder.bit]
        assert holder.held == sum(len(segment.blocks) for segment in held) <= holder.capacity
        assert set(holder.uses) <= set(held)
        order = {segment: place for place, segment in enumerate(holder.uses)}
        for segment in held:
            children = [c for c in (segment.children or {}).values() if c.mask & holder.bit]
            assert segment in order or len(children) == 1  # which stands for it
            above = segment.parent
            if segment in order and above in order:
                assert order[segment] < order[above]


texts = st.text("xyz", max_size=8).filter(lambda text: text != "")
replicas = st.sampled_from("abcd")
inserts = st.tuples(st.just("insert"), replicas, texts)
steps = st.lists(
    st.one_of(
        inserts, inserts, inserts, st.tuples(st.sampled_from(["clear", "drop"]), replicas, texts)
    ),
    max_size=30,
)


def play(
    index: PrefixIndex, truth: Truth, done: Sequence[tuple[str, str, str]]
) -> Iterator[tuple[str, str]]:
    """Each step on both, and its rules checked; yields the replica and the prompt."""
    for action, replica, text in done:
        if action == "insert":
            index.insert(replica, chained(text))
            truth.insert(replica, chained(text))
        else:
            (index.drop if action == "drop" else index.clear)(replica)
            truth.empty(replica)
        check(index)
        yield replica, text


@given(steps, st.lists(texts, max_size=5))
@settings(max_examples=200)
def test_nothing_forgotten_is_the_truth(done: list[tuple[str, str, str]], asked: list[str]) -> None:
    """With room for all, each lookup is exact, after any insertions and purges."""
    index, truth = index_of(), Truth()
    for _, text in play(index, truth, done):
        for each in (*asked, text):
            assert index.match(chained(each)) == truth.match(chained(each))
    distinct = {block for sent in truth.sent.values() for each in sent for block in each}
    assert len(index) == len(distinct)


@given(steps, st.lists(texts, max_size=5), st.sampled_from([0, 800, 10**6]))
@settings(max_examples=200)
def test_what_is_let_go_slowly_is_not_there(
    done: list[tuple[str, str, str]], asked: list[str], most_bytes: int
) -> None:
    """Of a purged replica some segments are still in the tree, in each step: no lookup names them,
    they count within the bound, and at last all are gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "_AT_ONCE", 1)
        index, truth = index_of(most_bytes=most_bytes), Truth()
        for _, text in play(index, truth, done):
            assert index.used_bytes <= most_bytes
            for each in (*asked, text):
                known, found = truth.match(chained(each)), index.match(chained(each))
                assert found == known if most_bytes == 10**6 else found.keys() <= known.keys()
        for name in "abcd":
            index.drop(name)
        for _ in range(200):
            index.insert("e", chained("x"))
        index.drop("e")
        assert (len(index), index.used_bytes, len(index._leaving)) == (0, 0, 0)
        assert len(index._free) == len(index._names) <= 5 + len(done)


def test_a_purge_takes_little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much was held; what is inserted meanwhile is found, what was there is not."""
    index = index_of(5000)
    for key in range(5000):
        index.insert("a", row(key, 1))
    released: list[Segment] = []
    release = PrefixIndex._release

    def noted(self: PrefixIndex, holder: Holder, segment: Segment) -> None:
        released.append(segment)
        release(self, holder, segment)

    monkeypatch.setattr(PrefixIndex, "_release", noted)
    index.clear("a")
    assert (index.held_blocks("a"), index.capacity_blocks("a")) == (0, 5000)
    for key in range(5000, 5050):
        assert len(released) <= 150
        released.clear()
        assert index.match(row(key - 5000, 1)) == index.match(row(4999, 1)) == {}
        index.insert("a", row(key, 1))
        assert index.match(row(key, 1)) == {"a": BLOCK}
    assert (len(index), index.held_blocks("a")) == (50, 50)


@given(steps, st.lists(texts, max_size=5), st.sampled_from([0, 800, 2000, 10**6]))
@settings(max_examples=200)
def test_what_is_forgotten_is_forgotten_from_the_end(
    done: list[tuple[str, str, str]], asked: list[str], most_bytes: int
) -> None:
    """Whatever the bounds, none is exceeded, and a lookup never says more than was sent."""
    index = PrefixIndex(BLOCK, CAPACITIES.__getitem__, most_bytes=most_bytes)
    truth = Truth()
    for _, text in play(index, truth, done):
        assert index.used_bytes <= most_bytes
        for each in (*asked, text):
            known = truth.match(chained(each))
            for name, tokens in index.match(chained(each)).items():
                assert 0 < tokens <= known[name]


@given(steps, replicas, texts)
def test_what_was_sent_last_is_held(
    done: list[tuple[str, str, str]], replica: str, text: str
) -> None:
    """All of it, or as much of its beginning as there is room for."""
    index = PrefixIndex(BLOCK, CAPACITIES.__getitem__)
    list(play(index, Truth(), [*done, ("insert", replica, text)]))
    expected = min(len(text), CAPACITIES[replica] // BLOCK) * BLOCK
    assert index.match(chained(text)).get(replica, 0) == expected


@given(st.lists(inserts, max_size=12), st.lists(inserts, max_size=12), replicas, texts)
@settings(max_examples=200)
def test_undo_takes_back_only_what_nobody_used_since(
    before: list[tuple[str, str, str]],
    since: list[tuple[str, str, str]],
    replica: str,
    text: str,
) -> None:
    """All that others sent is still there, and nothing was added."""
    index, others, everything = index_of(), Truth(), Truth()
    for _, name, prompt in before:
        index.insert(name, chained(prompt))
    insertion = index.insert(replica, chained(text))
    for _, name, prompt in since:
        index.insert(name, chained(prompt))
    index.undo(replica, chained(text), insertion)
    check(index)
    for _, name, prompt in (*before, *since):
        others.insert(name, chained(prompt))
        everything.insert(name, chained(prompt))
    everything.insert(replica, chained(text))
    for prompt in {text, *(prompt for _, _, prompt in (*before, *since))}:
        matched = index.match(chained(prompt))
        least, most = others.match(chained(prompt)), everything.match(chained(prompt))
        if not since:
            assert matched == least
        assert all(matched.get(name, 0) >= tokens for name, tokens in least.items())
        assert all(tokens <= most.get(name, 0) for name, tokens in matched.items())


@given(st.lists(st.tuples(replicas, texts), max_size=30), replicas, st.integers(0, 9))
def test_capacity_may_change(sent: list[tuple[str, str]], replica: str, blocks: int) -> None:
    """A smaller one holds at once; what others hold is as it was."""
    index, others = index_of(), Truth()
    for name, text in sent:
        index.insert(name, chained(text))
        if name != replica:
            others.insert(name, chained(text))
    index.resize(replica, blocks * BLOCK + 63)
    check(index)
    assert index.held_blocks(replica) <= blocks == index.capacity_blocks(replica)
    for _, text in sent:
        matched = index.match(chained(text))
        matched.pop(replica, None)
        assert matched == others.match(chained(text))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["insert", "insert", "insert", "undo", "resize", "clear", "drop"]),
            replicas,
            texts,
            st.integers(0, 20),
        ),
        max_size=40,
    ),
    st.sampled_from([700, 2000, 10**6]),
)
@settings(max_examples=200)
def test_rules_hold_after_anything(done: list[tuple[str, str, str, int]], most_bytes: int) -> None:
    """Whatever is done in whatever order: the bounds, the structure, and never more than sent."""
    index, truth = PrefixIndex(BLOCK, CAPACITIES.__getitem__, most_bytes=most_bytes), Truth()
    open_ = []
    for action, replica, text, number in done:
        if action == "insert":
            open_.append((replica, chained(text), index.insert(replica, chained(text))))
            truth.insert(replica, chained(text))
        elif action == "undo" and open_:
            index.undo(*open_.pop(number % len(open_)))
        elif action == "resize":
            index.resize(replica, number * BLOCK)
        elif action in ("clear", "drop"):
            (index.drop if action == "drop" else index.clear)(replica)
            truth.empty(replica)
        check(index)
        assert index.used_bytes <= most_bytes
        known = truth.match(chained(text))
        assert all(tokens <= known[name] for name, tokens in index.match(chained(text)).items())
    for replica, blocks, insertion in open_:
        index.undo(replica, blocks, insertion)
        index.drop(replica)
    check(index)


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


def test_what_is_shared_outlives_what_is_not() -> None:
    """Of two chats with one system prompt, the end of the older goes first."""
    index = index_of(8)
    index.insert("a", chained("sss111"))
    index.insert("b", chained("sss1"))  # cuts it within: whoever holds it keeps its order
    index.insert("a", chained("sss222"))
    assert index.match(chained("sss111"))["a"] == 5 * BLOCK
    index.insert("a", chained("sss333"))
    assert "a" not in index.match(chained("111"))
    assert index.match(chained("sss111"))["a"] == 3 * BLOCK
    assert index.match(chained("sss222"))["a"] == 5 * BLOCK
    assert index.match(chained("sss333"))["a"] == 6 * BLOCK
    check(index)


def test_of_a_prompt_that_is_too_long_the_beginning_is_held() -> None:
    """It drives out all else, and no more than the capacity is counted."""
    index = index_of(3)
    index.insert("a", chained("x"))
    index.insert("a", chained("yyyyy"))
    assert index.match(chained("yyyyy")) == {"a": 3 * BLOCK}
    assert index.match(chained("x")) == {}
    assert index.held_blocks("a") == len(index) == 3


def test_chat_is_one_segment_however_many_turns_it_has() -> None:
    """As long as all of them go to the same replica."""
    index, prompt = index_of(), list[int]()
    for turn in range(50):
        prompt = row(1, 4 * (turn + 1))
        index.insert("a", prompt)
    index.insert("a", prompt[:30])  # an earlier turn once more
    assert index._segments == 1
    assert index.match(prompt) == {"a": 200 * BLOCK}


def test_undo_before_anything_else_happened() -> None:
    """What was held before stays, to the block; a second prompt alike keeps the first."""
    index = index_of()
    index.insert("a", chained("chat"))
    longer = index.insert("a", chained("chat, once more"[:8]))
    index.undo("a", chained("chat, once more"[:8]), longer)
    assert index.match(chained("chat, once more"[:8])) == {"a": 4 * BLOCK}
    first = index.insert("a", chained("twice"))
    index.insert("a", chained("twice"))
    index.undo("a", chained("twice"), first)
    assert index.match(chained("twice")) == {"a": 5 * BLOCK}
    index.undo("a", chained("twice"), NOTHING)
    index.undo("never seen", chained("twice"), first)
    assert index.match(chained("twice")) == {"a": 5 * BLOCK}


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
    assert len(index) == index.used_bytes == 0


def test_empty_replica_keeps_its_capacity_and_a_dropped_one_does_not() -> None:
    """A restart does not change how large the cache is."""
    index = index_of(9)
    index.resize("a", 4 * BLOCK)
    index.insert("a", chained("xyzxyz"))
    index.clear("a")
    assert index.held_blocks("a") == 0
    assert index.capacity_blocks("a") == 4
    index.drop("a")
    assert index.capacity_blocks("a") is None
    index.insert("a", chained("xyzxyz"))
    assert index.held_blocks("a") == 6


def test_replicas_that_come_and_go_leave_nothing_behind() -> None:
    """A hundred in turn need no wider masks than one."""
    index = index_of()
    for number in range(100):
        index.insert(f"r{number}", chained("x"))
        assert [segment.mask for segment in below(index._root)] == [1]
        index.drop(f"r{number}")


def test_thousands_of_replicas() -> None:
    """Each is told apart from all others."""
    index, count = index_of(), 3000
    for number in range(count):
        index.insert(f"r{number}", chained("ss" + "t" * (number % 3)))
    matched = index.match(chained("sstt"))
    assert matched == {f"r{number}": (2 + number % 3) * BLOCK for number in range(count)}


def test_memory_bound_is_shared_by_those_who_are_used() -> None:
    """What was used longest ago goes, whoever holds it, and nobody is left with nothing."""
    index = index_of(most_bytes=40_000)
    for number in range(100):
        index.insert("idle", row(number, 8))
    for number in range(100, 300):
        index.insert(f"busy {number % 2}", row(number, 8))
    check(index)
    assert index.used_bytes <= 40_000
    assert index.held_blocks("idle") == 0
    assert min(index.held_blocks("busy 0"), index.held_blocks("busy 1")) > 200


def long_prompts(index: PrefixIndex) -> None:
    for number in range(400):
        index.insert(f"r{number % 16}", row(number, 128))


def continuations(index: PrefixIndex) -> None:
    system = row(9999, 32)
    for number in range(2000):
        index.insert(f"r{number % 16}", system + row(number, 8))


def sticky_chats(index: PrefixIndex) -> None:
    for chat in range(200):
        for turn in range(1, 11):
            index.insert(f"r{chat % 16}", row(chat, 4 * turn))


@pytest.mark.parametrize("fill", [long_prompts, continuations, sticky_chats])
def test_block_takes_less_than_64_bytes(fill: Callable[[PrefixIndex], None]) -> None:
    """And the estimate that the bound goes by is near what is really allocated."""

    tracemalloc.start()
    try:
        index = index_of(10**6)
        fill(index)
        real = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert real < 64 * len(index)
    assert 0.8 < index.used_bytes / real < 1.25


def test_numbers_of_nothing_are_refused() -> None:
    """The message names the value."""
    with pytest.raises(ValueError, match="block_tokens is 0"):
        PrefixIndex(0, lambda _: 1)
    with pytest.raises(ValueError, match="most_bytes is -1"):
        index_of(most_bytes=-1)
