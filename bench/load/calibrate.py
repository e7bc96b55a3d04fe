"""Two short runs against one replica: cold prompts one by one, then batches that decode."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from balancer.wire.connect import Dialer
from bench.load.plan import Closed, Limits, Plan
from bench.load.rates import Cold, Decoding
from bench.load.record import Record
from bench.load.runner import run
from bench.workload.model import Segment, Session, Turn, Workload, segment_key

__all__ = ["Trial", "Trials", "measure"]


class Trial(NamedTuple):
    """A batch to decode."""

    sequences: int
    prompt_tokens: int


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried. The defaults take about a minute on a current GPU with an 8B model."""

    prompts: tuple[int, ...] = (64, 256, 512, 1024, 2048, 4096, 6144, 8000)
    """Tokens of the cold prompts."""
    repeats: int = 5
    """Of each length; the median counts."""
    batches: tuple[Trial, ...] = (
        *(Trial(1, 64), Trial(8, 64), Trial(32, 64)),
        *(Trial(1, 4096), Trial(8, 4096)),
    )
    output_tokens: int = 128
    """Of each sequence of a batch."""
    batch_repeats: int = 2


async def measure(
    plan: Plan, trials: Trials, *, dialer: Dialer | None = None
) -> tuple[list[Cold], list[Decoding], list[str]]:
    """Run the trials against the plan's target, which nobody else may use meanwhile.

    Gives the measurements, and what to think of before they are believed. Raises ValueError if
    requests fail: a replica that refuses cannot be calibrated.
    """
    warnings: list[str] = []
    cold = await _cold(plan, trials, dialer, warnings)
    decoding = [await _decode(plan, trial, trials, dialer) for trial in trials.batches]
    return cold, decoding, warnings


async def _cold(
    plan: Plan, trials: Trials, dialer: Dialer | None, warnings: list[str]
) -> list[Cold]:
    # Lengths take turns, so that a drift of the machine falls on all of them.
    lengths = [length for _ in range(trials.repeats) for length in trials.prompts]
    load = msgspec.structs.replace(
        plan, loop=Closed(concurrency=1), limits=Limits(), warmup=Limits(requests=3)
    )
    result = await run(load, _unique(lengths, output_tokens=1), dialer=dialer)
    records = _succeeded(result.measured)
    if not all(record.input_tokens for record in records):
        warnings.append("the target sends no usage: prompt lengths are those asked for")
    if any((record.cached_tokens or 0) > 64 for record in records):
        warnings.append("some prompts were in the prefix cache: their times are left out")
    fresh = [record for record in records if (record.cached_tokens or 0) <= 64]
    return [
        Cold(round(median(map(_prompt_tokens, same))), median(map(_ttft_s, same)))
        for same in _by_length(fresh)
    ]


async def _decode(plan: Plan, trial: Trial, trials: Trials, dialer: Dialer | None) -> Decoding:
    load = msgspec.structs.replace(
        plan, loop=Closed(concurrency=trial.sequences), limits=Limits(), warmup=Limits()
    )
    prompts = [trial.prompt_tokens] * trial.sequences
    found: list[Decoding] = []
    for _ in range(trials.batch_repeats):
        result = await run(load, _unique(prompts, trials.output_tokens), dialer=dialer)
        found.append(_steady(_succeeded(result.measured)))
    return min(found, key=lambda one: one.tpot_s)


def _steady(records: Sequence[Record]) -> Decoding:
    """Time per token while all of the batch decode: from the last first token to the first end."""
    begin = max(record.content_s[0] for record in records)
    end = min(record.content_s[-1] for record in records)
    if end <= begin:
        raise ValueError("the batch never decoded together: prompts take longer than answers")
    per_token: list[float] = []
    for record in records:
        inside = [at for at in record.content_s if begin <= at <= end]
        tokens = (len(inside) - 1) * _tokens(record) / len(record.content_s)
        if tokens > 0:
            per_token.append((inside[-1] - inside[0]) / tokens)
    if not per_token:
        raise ValueError("too few tokens to measure: answers ended early; is ignore_eos refused?")
    context = sum(_prompt_tokens(record) + _tokens(record) / 2 for record in records)
    return Decoding(len(records), context / len(records), median(per_token))


def _unique(lengths: Iterable[int], output_tokens: int) -> Workload:
    """One request for each length, of words never sent before."""
    run_id = secrets.token_hex(8)
    sessions = [
        Session(id=number, turns=[
            Turn(prompt=(Segment(segment_key(run_id, number), length),),
                 output_tokens=output_tokens, answer=segment_key(run_id, number, "answer"))
        ])
        for number, length in enumerate(lengths)
    ]  # fmt: skip
    return Workload(name="calibration", sessions=sessions)


def _succeeded(records: Sequence[Record]) -> list[Record]:
    for record in records:
        if record.outcome != "ok":
            raise ValueError(f"a request failed ({record.error}): {record.error_message}")
    if not records:
        raise ValueError("nothing was sent")
    return list(records)


def _by_length(records: Sequence[Record]) -> Iterable[list[Record]]:
    for length in sorted({record.asked_input_tokens for record in records}):
        yield [record for record in records if record.asked_input_tokens == length]


def _prompt_tokens(record: Record) -> int:
    return record.input_tokens or record.asked_input_tokens


def _ttft_s(record: Record) -> float:
    return record.content_s[0] - record.sent_s


def _tokens(record: Record) -> int:
    return record.output_tokens or record.counted_output_tokens
