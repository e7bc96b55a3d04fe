"""What engines tell of their load in JSON, where they have no page of metrics or leave things out.

Not used: vLLM's `/load` (says 0 unless tracking was turned on), trtllm-serve's `/metrics` (hands
each iteration's statistics out once, and waits for 2 s while there are none), Ollama's `/api/ps`
(which models are loaded, not what they do).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from balancer.readings import Gauges

__all__ = ["FACTS", "Facts", "read_get_load", "read_loads", "read_slots"]

_Read = TypeVar("_Read")

# No count of an engine leaves this range, and in it sums stay exact. Another one: nothing is said.
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Share = Annotated[float, Meta(ge=0, le=1000)]


class _Load(msgspec.Struct):
    """Of one rank, from SGLang's `/v1/loads`."""

    num_running_reqs: _Count | None = None
    num_waiting_reqs: _Count | None = None
    token_usage: _Share | None = None
    max_total_num_tokens: _Count | None = None
    max_running_requests: _Count | None = None


class _Loads(msgspec.Struct):
    loads: list[_Load]


class _OldLoad(msgspec.Struct):
    """Of one rank, from SGLang's `/get_load`; `num_reqs` counts running and waiting ones."""

    num_reqs: _Count
    num_waiting_reqs: _Count


class _Slot(msgspec.Struct):
    """Of llama.cpp's `/slots`; before the end of 2024 `state` was 1 for a slot at work."""

    id: int
    is_processing: bool | None = None
    state: int | None = None


class _Props(msgspec.Struct):
    """Of llama.cpp's `/props`."""

    total_slots: _Count


class _Info(msgspec.Struct):
    """Of TGI's `/info`."""

    max_batch_total_tokens: _Count | None = None
    max_batch_size: _Count | None = None


def read_loads(body: bytes, now: float) -> Gauges | None:
    """SGLang's `/v1/loads`: counts added, shares averaged."""
    answer = _decode(body, _Loads)
    if answer is None or not answer.loads:
        return None
    loads = answer.loads
    usage = _sum([load.token_usage for load in loads])
    return Gauges(
        at=now,
        running=_sum([load.num_running_reqs for load in loads]),
        waiting=_sum([load.num_waiting_reqs for load in loads]),
        kv_share=None if usage is None else min(1.0, usage / len(loads)),
        kv_tokens=_capacity([load.max_total_num_tokens for load in loads]),
        max_running=_capacity([load.max_running_requests for load in loads]),
    )


def read_get_load(body: bytes, now: float) -> Gauges | None:
    """SGLang's `/get_load`, before there was `/v1/loads`."""
    ranks = _decode(body, list[_OldLoad])
    if not ranks:
        return None
    waiting = sum(rank.num_waiting_reqs for rank in ranks)
    running = sum(rank.num_reqs for rank in ranks) - waiting
    if running < 0:
        return None
    return Gauges(at=now, running=float(running), waiting=float(waiting))


def read_slots(body: bytes, now: float) -> Gauges | None:
    """llama.cpp's `/slots`, open unless it runs with `--no-slots`. Its queue is not told."""
    slots = _decode(body, list[_Slot])
    if not slots:
        return None
    at_work = [
        slot.is_processing if slot.is_processing is not None else slot.state == 1 for slot in slots
    ]
    told = all(slot.is_processing is not None or slot.state is not None for slot in slots)
    return Gauges(at=now, running=float(sum(at_work)) if told else None, max_running=len(slots))


class Facts(NamedTuple):
    """What an engine says once, somewhere else than where its load is."""

    kv_tokens: int | None = None
    max_running: int | None = None


def _read_props(body: bytes) -> Facts | None:
    props = _decode(body, _Props)
    return None if props is None else Facts(max_running=_capacity([props.total_slots]))


def _read_info(body: bytes) -> Facts | None:
    info = _decode(body, _Info)
    if info is None:
        return None
    return Facts(_capacity([info.max_batch_total_tokens]), _capacity([info.max_batch_size]))


FACTS: Final[dict[str, tuple[str, Callable[[bytes], Facts | None]]]] = {
    "llama.cpp": ("/props", _read_props),
    "tgi": ("/info", _read_info),
}
"""By engine: where its facts are, and how they are read."""


def _decode(body: bytes, kind: type[_Read]) -> _Read | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return None


def _sum(values: Sequence[float | None]) -> float | None:
    """None if a rank did not say; a sum without it would be too low."""
    known = [value for value in values if value is not None]
    total = math.fsum(known)
    return total if len(known) == len(values) else None


def _capacity(values: Sequence[int | None]) -> int | None:
    total = _sum(values)
    return int(total) if total else None
