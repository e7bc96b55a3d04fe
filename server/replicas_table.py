"""The table that `triolet replicas` prints, out of what the admin API answers. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

__all__ = ["Rates", "Snapshot", "fitted", "read_snapshot", "table"]

_UNKNOWN: Final = "-"
_STALE_S: Final = 10.0
"""A reading older than this is shown with a question mark."""
_WINDOW_S: Final = 10.0
"""Tokens are counted when a request ends: over less time than this the rate would jump."""


class _Tokens(msgspec.Struct):
    prompt: int = 0
    cached: int = 0
    output: int = 0


class _Learned(msgspec.Struct):
    prefill_tokens_per_s: float | None = None


class _Engine(msgspec.Struct):
    age_s: float = 0.0
    waiting: float | None = None


class _Gpu(msgspec.Struct):
    age_s: float = 0.0
    utilisation: float | None = None
    throttled: tuple[str, ...] = ()
    fault: str | None = None


class ShownReplica(msgspec.Struct):
    """One replica, as far as the table shows it."""

    url: str
    state: str
    models: tuple[str, ...] = ()
    in_flight: int = 0
    unread: int = 0
    room: int | None = None
    failures: int = 0
    tokens: _Tokens = msgspec.field(default_factory=_Tokens)
    kv_share: float | None = None
    learned: _Learned = msgspec.field(default_factory=_Learned)
    engine: _Engine | None = None
    gpu: _Gpu | None = None


class _Tier(msgspec.Struct):
    tier: str
    waiting: int = 0


class ShownPool(msgspec.Struct):
    """One pool, as far as the lines below the table show it."""

    model: str
    policy: str = _UNKNOWN
    replicas: tuple[str, ...] = ()
    up: int = 0
    in_flight: int = 0
    panic: bool = False
    tiers: tuple[_Tier, ...] = ()


class Snapshot(NamedTuple):
    """What a Triolet said at one time."""

    at: float
    """In seconds, of any clock that does not go back."""
    pools: tuple[ShownPool, ...]
    replicas: tuple[ShownReplica, ...]


class _Pools(msgspec.Struct):
    pools: tuple[ShownPool, ...]


class _Replicas(msgspec.Struct):
    replicas: tuple[ShownReplica, ...]


def read_snapshot(at: float, pools: bytes, replicas: bytes) -> Snapshot:
    """From the two answers. Raises ValueError if they are not those of the admin API."""
    try:
        read_pools = msgspec.json.decode(pools, type=_Pools)
        read_replicas = msgspec.json.decode(replicas, type=_Replicas)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
    return Snapshot(at, read_pools.pools, read_replicas.replicas)


class Rates:
    """Output tokens a second of each replica, over the last ten seconds of what was added."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """The next sample."""
        samples = self._samples
        samples.append((snapshot.at, {one.url: one.tokens.output for one in snapshot.replicas}))
        while len(samples) > 2 and samples[1][0] <= snapshot.at - _WINDOW_S:
            samples.popleft()

    def of(self, url: str) -> float | None:
        """None with fewer than two samples of it since it, or Triolet, was started."""
        counted = [(at, counts[url]) for at, counts in self._samples if url in counts]
        if not counted:
            return None
        (first_at, first), (last_at, last) = counted[0], counted[-1]
        return (
            (last - first) / (last_at - first_at) if last_at > first_at and last >= first else None
        )


_HEADS: Final = (
    *("MODEL", "REPLICA", "STATE", "IN FLIGHT", "QUEUED", "TOK/S", "PREFILL/S"),
    *("KV", "GPU", "HIT", "FAILED"),
)
_LEFT: Final = frozenset({"MODEL", "REPLICA", "STATE", "GPU"})


def table(snapshot: Snapshot, rates: Rates) -> list[str]:
    """Its lines: one for each replica, in the order of its model, then one for each pool."""
    rows = [_HEADS, *(_row(one, rates.of(one.url)) for one in _in_order(snapshot.replicas))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    return [*lines, "", *map(_pool_line, snapshot.pools)]


def _in_order(replicas: Iterable[ShownReplica]) -> list[ShownReplica]:
    return sorted(replicas, key=lambda one: one.models)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if head in _LEFT else cell.rjust(width)
        for head, cell, width in zip(_HEADS, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _row(replica: ShownReplica, tokens_per_s: float | None) -> tuple[str, ...]:
    tokens = replica.tokens
    return (
        _printable(",".join(replica.models) or _UNKNOWN),
        _printable(replica.url),
        _printable(replica.state),
        str(replica.in_flight) + ("" if replica.room is None else f"/{replica.room}"),
        _queued(replica),
        _short(tokens_per_s),
        _short(replica.learned.prefill_tokens_per_s),
        _percent(replica.kv_share),
        _gpu(replica.gpu),
        _percent(tokens.cached / tokens.prompt if tokens.prompt else None),
        str(replica.failures),
    )


def _queued(replica: ShownReplica) -> str:
    """Those that we wait for, and those in the engine's own queue, whoever sent them."""
    engine = replica.engine
    if engine is None or engine.waiting is None:
        return str(replica.unread)
    return f"{replica.unread}+{engine.waiting:.0f}{_stale(engine.age_s)}"


def _gpu(gpu: _Gpu | None) -> str:
    if gpu is None:
        return _UNKNOWN
    if gpu.fault is not None:
        return _printable(gpu.fault)
    slowed = "".join(f" {_printable(reason)}" for reason in gpu.throttled)
    return _percent(gpu.utilisation) + _stale(gpu.age_s) + slowed


def _stale(age_s: float) -> str:
    return "?" if age_s > _STALE_S else ""


def _pool_line(pool: ShownPool) -> str:
    waiting = ", ".join(f"{_printable(one.tier)} {one.waiting}" for one in pool.tiers)
    panic = ", all that live are used (panic)" if pool.panic else ""
    return (
        f"{_printable(pool.model)} ({_printable(pool.policy)}): "
        f"{pool.up} of {len(pool.replicas)} up, {pool.in_flight} in flight, "
        f"waiting: {waiting or _UNKNOWN}{panic}"
    )


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{share * 100:.0f}%"


def _short(number: float | None) -> str:
    """Three digits and a letter."""
    if number is None:
        return _UNKNOWN
    for letter in ("", "k", "M"):
        if number < 999.5:
            digits = 1 if letter and number < 99.95 else 0
            return f"{number:.{digits}f}{letter}"
        number /= 1000
    return f"{number:.0f}G"


def _printable(text: str) -> str:
    """A name that an engine gave itself may hold what would steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """What of it fits on a screen without wrapping or scrolling."""
    if len(lines) > rows:
        left_out = len(lines) - rows + 1
        lines = [*lines[: rows - 1], f"... {left_out} more lines"]
    return [line if len(line) <= columns else line[: columns - 1] + "…" for line in lines]
