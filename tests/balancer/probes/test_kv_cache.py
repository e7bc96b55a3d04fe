"""What is made of an engine's KV cache events, as bytes and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.probes.kv_cache import Cleared, KvCache, Removed, Stored, decode
from balancer.probes.kv_events import Numbering

pack = msgspec.msgpack.encode


def hashes(first: int, last: int) -> list[int | bytes]:
    """As vLLM makes them."""
    return [sha256(str(number).encode()).digest() for number in range(first, last)]


def resident(cache: KvCache) -> int | None:
    return cache.resident_tokens


def capacity(cache: KvCache) -> int | None:
    return cache.capacity_tokens


def known() -> KvCache:
    cache = KvCache()
    cache.emptied()
    return cache


STORED_ROW = ["BlockStored", [7, b"8"], None, [1, 2], 16, None, "GPU", None, None, 1, "mamba"]
STORED_MAP = {
    "type": "BlockStored",
    "block_hashes": [7, b"8"],
    "parent_block_hash": None,
    "token_ids": [1, 2],
    "block_size": 16,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
    "extra_keys": [None, ["salt"]],
    "group_idx": 1,
    "kv_cache_spec_kind": "mamba",
}
STORED = Stored([7, b"8"], 16, "GPU", 1, "mamba")


@pytest.mark.parametrize(
    ("packed", "event"),
    [
        (STORED_ROW, STORED),
        (STORED_MAP, STORED),
        (STORED_ROW[:6], Stored([7, b"8"], 16)),  # vLLM 0.9
        ([*STORED_ROW[:7], {"salt": 1}, 2, "x", 3, 4, 5], Stored([7, b"8"], 16, "GPU")),  # SGLang
        ({"type": "BlockStored", "block_hashes": [7], "block_size": 4}, Stored([7], 4)),
        (["BlockRemoved", [7], "CPU"], Removed([7], "CPU")),
        (["BlockRemoved", [7]], Removed([7])),
        ({"type": "BlockRemoved", "block_hashes": [7], "group_idx": 2}, Removed([7], None, 2)),
        (["AllBlocksCleared"], Cleared()),
        ({"type": "AllBlocksCleared", "new": 1}, Cleared()),
    ],
)
def test_every_form_of_an_event_is_read(packed: Any, event: object) -> None:
    """Rows and maps, short and long, in batches of both kinds."""
    for batch in ([1.5, [packed]], [1.5, [packed], 0], {"ts": 1.5, "events": [packed], "new": 1}):
        assert decode(pack(batch)) == (1.5, [event])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x92\0\x91\x91\xa1\xc0",
        pack(1),
        pack([1.5]),
        pack([1.5, [["BlockLent", [7]]]]),
        pack([1.5, [[]]]),
        b"\x92\xcb" + b"\0" * 8 + b"\x91" * 100_000,  # nested beyond reason
        b"\x92\xcb" + b"\0" * 8 + b"\x91" + pack(STORED_ROW[:3])[:1] + b"\x91" * 100_000,
        pack([1.5, [["BlockStored", [7], None, [], -16]]]),
        pack([1.5, [["BlockStored", [7], None, [], 2**62]]]),
    ],
)
def test_anything_else_is_refused(payload: bytes) -> None:
    """With the error that the caller expects."""
    with pytest.raises(msgspec.DecodeError):
        decode(payload)


@given(st.binary(max_size=60))
def test_no_bytes_raise_another_error(payload: bytes) -> None:
    """A peer that speaks something else does no harm."""
    try:
        decode(payload)
    except msgspec.DecodeError:
        return


steps = st.lists(
    st.tuples(st.sampled_from("+++--0"), st.integers(0, 60), st.integers(0, 30)), max_size=40
)


@given(steps)
def test_small_cache_is_counted_exactly(done: Sequence[tuple[str, int, int]]) -> None:
    """Each content once, however often it is stored, and removed at its first removal."""
    cache, model = known(), set[int]()
    cache.apply([Stored(hashes(0, 0), 16)])
    for sign, first, count in done:
        numbers = range(first, first + count)
        if sign == "0":
            assert cache.apply([Cleared()])
            model.clear()
        elif sign == "+":
            cache.apply([Stored(hashes(first, first + count), 16)])
            model.update(numbers)
        else:
            cache.apply([Removed(hashes(first, first + count))])
            model.difference_update(numbers)
        assert resident(cache) == 16 * len(model)


def test_large_cache_is_estimated_in_bounded_memory() -> None:
    """Within four standard deviations, and removals bring it down again."""
    cache = known()
    for first in range(0, 50_000, 500):
        cache.apply([Stored(hashes(first, first + 500), 16)])
        assert len(cache._sample) <= 1024
    assert resident(cache) == pytest.approx(16 * 50_000, rel=0.16)
    for first in range(0, 40_000, 500):
        cache.apply([Removed(hashes(first, first + 500))])
    assert resident(cache) == pytest.approx(16 * 10_000, rel=0.4)
    assert cache.stored_tokens == 16 * 50_000
    assert cache.removed_tokens == 16 * 40_000


def test_capacity_is_what_was_there_when_something_had_to_go() -> None:
    """None before that; it grows at once and shrinks slowly."""
    cache = known()
    cache.apply([Stored(hashes(0, 100), 16)])
    assert capacity(cache) is None
    cache.apply([Removed(hashes(0, 50))])
    assert capacity(cache) == 1600
    cache.apply([Removed(hashes(50, 60))])
    assert 1500 < (capacity(cache) or 0) < 1600
    cache.apply([Stored(hashes(100, 250), 16), Removed(hashes(60, 61))])
    assert capacity(cache) == 16 * 190


def test_only_what_keeps_every_block_on_the_gpu_is_counted() -> None:
    """Neither other groups of layers nor what is moved to the host's memory."""
    cache = known()
    cache.apply([Stored(hashes(0, 9), 32, "GPU", 0, "sliding_window")])
    assert resident(cache) is None
    cache.apply([Stored(hashes(0, 10), 16, "GPU", 1, "full_attention")])
    cache.apply([Stored(hashes(10, 20), 16, "CPU", 1, "full_attention")])
    cache.apply([Removed(hashes(0, 9), "GPU", 0), Removed(hashes(0, 5), "CPU", 1)])
    assert resident(cache) == 160
    assert cache.removed_tokens == 0


def test_what_was_there_before_is_not_known() -> None:
    """Not 0: nothing is said until the cache is seen empty, nor after something was missed."""
    cache = KvCache()
    cache.apply([Stored(hashes(0, 10), 16), Removed(hashes(0, 1))])
    assert resident(cache) is None
    assert capacity(cache) is None
    cache.apply([Cleared(), Stored(hashes(0, 10), 16)])
    assert resident(cache) == 160
    cache.missed()
    cache.apply([Stored(hashes(0, 10), 16)])
    assert resident(cache) is None


def test_numbers_are_placed() -> None:
    """In order, again, with some missing, and from an engine that was started again."""
    numbering = Numbering()
    assert numbering.place(0, 1.0) == "next"
    assert numbering.place(3, 1.0) == "gap"
    for number in range(10):
        assert numbering.place(number, 10.0 + number) == "next"
        numbering.passed(number, 10.0 + number)
    assert numbering.place(4, 14.0) == "known"
    assert numbering.place(12, 30.0) == "gap"
    assert numbering.place(0, 30.0) == "restart"
    numbering.restart()
    assert numbering.place(0, 30.0) == "next"
