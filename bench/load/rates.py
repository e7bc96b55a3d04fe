"""From measured times to an engine's rates: the constants of the simulator's step time. Pure.

The formula is that of `bench.engine.profile.Profile`. Not all of its terms can be told apart from
outside: the fixed part of a step (`step_s`) and the reading of the weights only show as a sum, and
so do a prompt's tokenising and its computation. What is not measured is taken from a profile given
as the base, and said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, hypot, log
from typing import Final, NamedTuple

import msgspec

from bench.engine.profile import Profile
from bench.load.fit import nonnegative_fit

__all__ = ["Cold", "Decoding", "Measured", "as_profile", "fit_rates"]

_STEP_S: Final = 0.0009
"""Fixed part of a step on current engines (BLIS's fits for vLLM); at most half of the floor."""

_TOKEN_S: Final = (1e-8, 1e-1)
_GRID: Final = 40
_ZOOMS: Final = 4
_ROUNDS: Final = 3


class Cold(NamedTuple):
    """One uncached prompt on an idle engine."""

    tokens: int
    ttft_s: float


class Decoding(NamedTuple):
    """A batch that only decodes."""

    sequences: int
    context: float
    """Tokens of each sequence, on average over the time measured."""
    tpot_s: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What two short runs say of an engine. Seconds."""

    request_s: float
    """Fixed cost of a request, whatever its length."""
    prefill_s_per_token: float
    """In the linear layers; the inverse is tokens per second without attention."""
    prefill_s_per_token_pair: float
    """Attention: for each pair of a prompt's token and one before it."""
    decode_floor_s: float
    """A decode step of one short sequence: reading the weights and what each step costs."""
    decode_s_per_sequence: float
    decode_s_per_context_token: float
    prefill_error: float
    """Root mean square of the fit's relative errors."""
    decode_error: float

    @property
    def prefill_tokens_per_s(self) -> float:
        """Without attention, in large chunks."""
        return 1 / self.prefill_s_per_token


def fit_rates(cold: Sequence[Cold], decoding: Sequence[Decoding], base: Profile) -> Measured:
    """Rates that fit the measurements best.

    `base` gives what a single client cannot see: how large a chunk of a prompt may be, and the
    cost of tokenising. Raises ValueError for too few measurements.
    """
    if len({one.tokens for one in cold}) < 3:
        raise ValueError("the prefill fit needs prompts of three lengths at least")
    if not decoding:
        raise ValueError("the decode fit needs one measurement at least")
    token_s = base.token_s
    floor_s = sequence_s = context_s = error = 0.0
    fitted: _Prefill | None = None
    # Each fit needs a constant of the other; neither depends much on it.
    for _ in range(_ROUNDS):
        (floor_s, sequence_s, context_s), error = _fit_decoding(decoding, token_s, floor_s)
        fitted = _fit_prefill(cold, _weights_s(floor_s), floor_s, sequence_s, base)
        token_s = fitted.token_s
    assert fitted is not None
    return Measured(
        request_s=fitted.request_s,
        prefill_s_per_token=fitted.token_s,
        prefill_s_per_token_pair=fitted.pair_s,
        decode_floor_s=floor_s,
        decode_s_per_sequence=sequence_s,
        decode_s_per_context_token=context_s,
        prefill_error=fitted.error,
        decode_error=error,
    )


def as_profile(measured: Measured, base: Profile, name: str) -> Profile:
    """A simulator profile with the measured rates; memory and limits are those of `base`."""
    weights_s = _weights_s(measured.decode_floor_s)
    return msgspec.structs.replace(
        base,
        name=name,
        step_s=measured.decode_floor_s - weights_s,
        sequence_s=measured.decode_s_per_sequence,
        weights_s=weights_s,
        token_s=measured.prefill_s_per_token,
        attention_s=measured.prefill_s_per_token_pair,
        context_s=measured.decode_s_per_context_token,
        expert_weights_s=0.0,
        expert_share=0.0,
        link_s=0.0,
        request_s=measured.request_s,
        source=f"measured by `triolet bench calibrate`; memory and limits of {base.name}",
    )


def _weights_s(floor_s: float) -> float:
    return floor_s - min(_STEP_S, floor_s / 2)


def _fit_decoding(
    decoding: Sequence[Decoding], token_s: float, floor_s: float
) -> tuple[list[float], float]:
    """Floor, seconds a sequence, seconds a context token."""
    weights_s = _weights_s(floor_s)
    rows, targets = [], []
    for one in decoding:
        # What the batch's linear layers take beyond reading the weights is not the sequences'.
        compute_s = hypot(weights_s, token_s * one.sequences) - weights_s if floor_s else 0.0
        rows.append([1.0, float(one.sequences), one.sequences * one.context])
        targets.append(max(one.tpot_s - compute_s, one.tpot_s / 2))
    return nonnegative_fit(rows, targets, targets)


class _Prefill(NamedTuple):
    error: float
    token_s: float
    request_s: float
    pair_s: float


def _fit_prefill(
    cold: Sequence[Cold], weights_s: float, floor_s: float, sequence_s: float, base: Profile
) -> _Prefill:
    """The best seconds per token, by search; for each the rest is a linear fit."""

    def fitted(token_s: float) -> _Prefill:
        rows, left = [], []
        for one in cold:
            chunks = _chunks(one.tokens, base.max_num_batched_tokens)
            steps_s = sum(
                floor_s - weights_s + sequence_s + hypot(weights_s, token_s * size)
                for size, _ in chunks
            )
            rows.append([1.0, sum(size * before + size * size / 2 for size, before in chunks)])
            left.append(one.ttft_s - steps_s - base.request_token_s * one.tokens)
        (request_s, pair_s), error = nonnegative_fit(rows, left, [one.ttft_s for one in cold])
        return _Prefill(error, token_s, request_s, pair_s)

    low, high = map(log, _TOKEN_S)
    best = fitted(base.token_s)
    for _ in range(_ZOOMS):
        step = (high - low) / _GRID
        best = min(best, *(fitted(exp(low + step * at)) for at in range(_GRID + 1)))
        low, high = log(best.token_s) - step, log(best.token_s) + step
    return best


def _chunks(tokens: int, largest: int) -> list[tuple[int, int]]:
    """A prompt's chunks: size, and tokens before it."""
    return [(min(largest, tokens - at), at) for at in range(0, tokens, largest)]
