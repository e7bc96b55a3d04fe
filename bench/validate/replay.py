"""A recorded run once more, on simulated engines."""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from typing import NamedTuple

from bench.engine import Engine, Profile, ProfileError, Sequence
from bench.validate.prompts import Prompts
from bench.validate.recording import Recording, Served

__all__ = ["Replayed", "replay"]

_ANSWERS = 1 << 61


class Replayed(NamedTuple):
    """What the simulator predicts for a run."""

    requests: tuple[Served, ...]
    """One for each of the recording, in the same order."""
    preemptions: int
    cached_tokens: int
    """Of the prompts, found in the prefix cache."""


def replay(recording: Recording, prompts: Prompts, profile: Profile, engines: int) -> Replayed:
    """Send the run's requests to `engines` engines as they came.

    Raises ProfileError for a request that can never fit into the engine's memory.
    """
    fleet = [Engine(profile) for _ in range(engines)]
    sequences = []
    for each in recording.requests:
        prompt = prompts.of(each.number, each.input_tokens)
        sequence = Sequence(prompt, each.output_tokens, _ANSWERS + each.number)
        if not fleet[0].fits(each.input_tokens + each.output_tokens):
            raise ProfileError(
                f"{recording.name}: request {each.number} has {each.input_tokens} + "
                f"{each.output_tokens} tokens; profile {profile.name} has room for "
                f"{min(profile.kv_tokens, profile.max_model_len)}"
            )
        _least_loaded(fleet, each.arrived_s).submit(sequence, each.arrived_s)
        sequences.append(sequence)
    for engine in fleet:
        engine.advance(math.inf)
    return Replayed(
        tuple(_served(*pair) for pair in zip(recording.requests, sequences, strict=True)),
        sum(engine.books.preemptions for engine in fleet),
        sum(engine.books.cached_tokens for engine in fleet),
    )


def _least_loaded(fleet: Many[Engine], now_s: float) -> Engine:
    """As the balancer inside vLLM chooses among data-parallel engines: four for each that waits,
    one for each that runs."""
    if len(fleet) == 1:
        return fleet[0]
    for engine in fleet:
        engine.advance(now_s)
    loads = [engine.snapshot() for engine in fleet]
    scores = [4 * load.waiting + load.running for load in loads]
    return fleet[scores.index(min(scores))]


def _served(recorded: Served, sequence: Sequence) -> Served:
    assert sequence.first_token_s is not None
    assert sequence.finished_s is not None
    return recorded._replace(first_token_s=sequence.first_token_s, last_token_s=sequence.finished_s)
