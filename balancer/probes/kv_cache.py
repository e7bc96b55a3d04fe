"""What an engine's KV cache events tell of its prefix cache. Pure: bytes in, figures out.

The format is that of `vllm/distributed/kv_events.py`, which SGLang has copied: msgpack, a batch of
tagged events. Both were rows first; vLLM turned events into maps in June 2026 (#42892), and both
are read here. Of an event only what is used is decoded, so new fields do no harm.

What the events cannot do is say which of our prompts is cached: they name blocks by the engine's
own hashes, and tokens by their numbers. Text could be mapped to them only by the engine's
tokenizer, one more request for each prompt, which costs more than a wrong guess now and then that
the answer's own `cached_tokens` corrects. So they are read for what they say for certain: that the
cache is empty, how much is in it, and how much fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, NamedTuple

import msgspec

__all__ = ["Batch", "Cleared", "KvCache", "Removed", "Stored", "decode"]

_FULL: Final = frozenset({None, "full_attention", "mla_attention", "sink_full_attention"})
"""Groups of layers that keep every block. Sliding windows and states give theirs back early."""
_GPU: Final = frozenset({None, "GPU"})
_SAMPLE: Final = 1024
"""Most hashes kept for one engine, about 80 KiB. The estimate is exact up to there, and then off by
4 % at most two times in three."""
_SLOWLY: Final = 1 / 64

Hash = int | bytes
BlockTokens = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
"""Engines have 16 to 1024, and some a few thousand for what has states."""


class Stored(msgspec.Struct, tag="BlockStored", gc=False):
    """Blocks that are in the cache now."""

    block_hashes: list[Hash]
    block_size: BlockTokens
    medium: str | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None


class Removed(msgspec.Struct, tag="BlockRemoved", gc=False):
    """Blocks that are not any more, though others may still have the same content."""

    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None


class Cleared(msgspec.Struct, tag="AllBlocksCleared", gc=False):
    """The prefix cache was reset."""


class _StoredRow(msgspec.Struct, tag="BlockStored", array_like=True, gc=False):
    block_hashes: list[Hash]
    parent_block_hash: msgspec.Raw
    token_ids: msgspec.Raw
    block_size: BlockTokens
    lora_id: msgspec.Raw = msgspec.Raw()
    medium: str | None = None
    lora_name: msgspec.Raw = msgspec.Raw()
    extra_keys: msgspec.Raw = msgspec.Raw()
    group_idx: Any = None  # SGLang has had other things in these places
    kv_cache_spec_kind: Any = None


class _RemovedRow(msgspec.Struct, tag="BlockRemoved", array_like=True, gc=False):
    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: Any = None


class _ClearedRow(msgspec.Struct, tag="AllBlocksCleared", array_like=True, gc=False):
    pass


class _Batch(msgspec.Struct, gc=False):
    ts: float
    events: list[msgspec.Raw]


class _BatchRow(msgspec.Struct, array_like=True, gc=False):
    ts: float
    events: list[msgspec.Raw]


_batch: Final = msgspec.msgpack.Decoder(_Batch)
_batch_row: Final = msgspec.msgpack.Decoder(_BatchRow)
_event: Final = msgspec.msgpack.Decoder(Stored | Removed | Cleared)
_event_row: Final = msgspec.msgpack.Decoder(_StoredRow | _RemovedRow | _ClearedRow)

Event = Stored | Removed | Cleared


class Batch(NamedTuple):
    """One message."""

    at: float
    """The engine's clock, in seconds since 1970."""
    events: list[Event]


def decode(payload: bytes) -> Batch:
    """Raises `msgspec.DecodeError` if it is not a batch of events of this format."""
    try:
        batch = _batch.decode(payload) if _is_map(payload) else _batch_row.decode(payload)
        return Batch(batch.ts, [_decode_event(raw) for raw in batch.events])
    except (UnicodeDecodeError, RecursionError) as exc:  # no UTF-8, or nested beyond reason
        raise msgspec.DecodeError(str(exc)) from exc


def _decode_event(raw: msgspec.Raw) -> Event:
    if _is_map(raw):
        event: Event = _event.decode(raw)
        return event
    row = _event_row.decode(raw)
    if isinstance(row, _ClearedRow):
        return Cleared()
    group = row.group_idx if isinstance(row.group_idx, int) else None
    if isinstance(row, _RemovedRow):
        return Removed(row.block_hashes, row.medium, group)
    kind = row.kv_cache_spec_kind if isinstance(row.kv_cache_spec_kind, str) else None
    return Stored(row.block_hashes, row.block_size, row.medium, group, kind)


def _is_map(packed: bytes | msgspec.Raw) -> bool:
    first = memoryview(packed)[:1].tobytes()
    return b"\x80" <= first <= b"\x8f" or first in (b"\xde", b"\xdf")


class KvCache:
    """The prefix cache of one engine: how much is in it, and how much fits.

    Different blocks on the GPU are counted, by a sample of their hashes that halves whenever it
    grows too large (Gibbons, "Distinct sampling", VLDB 2001). Counting events would not do: vLLM
    stores what two requests wrote at once twice, and versions differ in how often they remove it.
    Of a model whose layers have caches of several kinds, those that keep every block are counted.
    """

    def __init__(self) -> None:
        self.stored_tokens = 0
        """Since it was first watched; a counter."""
        self.removed_tokens = 0
        """The same; what was reset or lost in a restart is not in it."""
        self.capacity_tokens: int | None = None
        """How much was in it when something had to make room, the highest of late; None before."""
        self._sample: set[int] = set()
        self._passed_over = 0  # a mask: hashes with any of these bits are not in the sample
        self.known = False
        """Whether all that happened since it was last empty was heard."""
        self._group: int | None = None
        self._block_tokens = 0

    @property
    def resident_tokens(self) -> int | None:
        """In the cache now; None if what was there before is not known."""
        if not self.known or self._group is None:
            return None
        return len(self._sample) * (self._passed_over + 1) * self._block_tokens

    def emptied(self) -> None:
        """There is nothing in it: from here on all is known."""
        self._sample.clear()
        self._passed_over = 0
        self.known = True

    def missed(self) -> None:
        """Events were lost: what is in it is not known until it is emptied."""
        self.emptied()
        self.known = False

    def apply(self, events: Iterable[Event]) -> bool:
        """In their order. Returns whether it was emptied among them."""
        emptied = False
        for event in events:
            if isinstance(event, Cleared):
                self.emptied()
                emptied = True
            elif event.medium in _GPU:
                if isinstance(event, Stored):
                    self._store(event)
                else:
                    self._remove(event)
        return emptied

    def _store(self, event: Stored) -> None:
        group = event.group_idx or 0
        if self._group is None and event.kv_cache_spec_kind in _FULL:
            self._group, self._block_tokens = group, event.block_size
        if group != self._group:
            return
        self.stored_tokens += len(event.block_hashes) * self._block_tokens
        if not self.known:
            return
        sample, passed_over = self._sample, self._passed_over
        sample.update(each for each in map(_mixed, event.block_hashes) if not each & passed_over)
        while len(sample) > _SAMPLE:
            self._passed_over = passed_over = 2 * passed_over + 1
            self._sample = sample = {each for each in sample if not each & passed_over}

    def _remove(self, event: Removed) -> None:
        if self._group is None or (event.group_idx or 0) != self._group:
            return
        resident = self.resident_tokens
        if resident is not None:
            known = self.capacity_tokens or 0
            slowly = known - int((known - resident) * _SLOWLY)
            self.capacity_tokens = max(resident, slowly)
        self.removed_tokens += len(event.block_hashes) * self._block_tokens
        self._sample.difference_update(map(_mixed, event.block_hashes))


def _mixed(block_hash: Hash) -> int:
    """64 bits of which every one depends on many: engines may use any hash."""
    if isinstance(block_hash, bytes):
        block_hash = int.from_bytes(block_hash[:8], "big")
    product = (block_hash & 0xFFFF_FFFF_FFFF_FFFF) * 0x9E37_79B9_7F4A_7C15
    return (product ^ (product >> 64) ^ (product >> 32)) & 0xFFFF_FFFF_FFFF_FFFF
