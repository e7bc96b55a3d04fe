"""Made-up conversations, described by the data flags of GenAI-Perf and AIPerf."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import msgspec

from bench.workload.model import Prompt, Replayable, Segment, Session, Turn, Workload, segment_key

__all__ = ["SequenceLengths", "SyntheticOptions", "parse_seq_dist", "synthetic"]


class SyntheticOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Field for field the flags of the same names, with AIPerf's defaults where it has one.

    Lengths are tokens, drawn from a normal distribution and at least 1. Delays are milliseconds.
    """

    synthetic_input_tokens_mean: float = 550
    """New user text of each turn; history, prefix and context come on top."""
    synthetic_input_tokens_stddev: float = 0
    output_tokens_mean: float = 128
    """AIPerf leaves the length to the model if this is not given; here it must be known, so that
    simulator and load mean the same work."""
    output_tokens_stddev: float = 0
    seq_dist: str | None = None
    """Input and output lengths in pairs with percentages, for each turn: `128,64:25;512,128:75`;
    takes the place of the four fields above."""
    num_dataset_entries: int = 100
    """How many sessions there are if `num_sessions` is not given."""
    num_sessions: int | None = None
    session_turns_mean: float = 1
    session_turns_stddev: float = 0
    session_turn_delay_mean: float = 0
    """Think time between an answer and the next turn."""
    session_turn_delay_stddev: float = 0
    session_delay_ratio: float = 1
    """Every delay is multiplied by it."""
    num_prefix_prompts: int = 0
    """So many system prompts; each session has one of them, drawn evenly."""
    prefix_prompt_length: int = 0
    shared_system_prompt_length: int = 0
    """One system prompt for all sessions. Not together with prefix prompts."""
    user_context_prompt_length: int = 0
    """Text of the session's own before its first turn. Not together with prefix prompts."""
    seed: int = 0


class SequenceLengths(NamedTuple):
    """One pair of a `seq_dist`."""

    percent: float
    input_tokens: float
    output_tokens: float
    input_stddev: float = 0
    output_stddev: float = 0


def synthetic(options: SyntheticOptions, name: str = "synthetic") -> Workload:
    """Sessions as `options` describe them; the same for the same options.

    Each turn's prompt is everything before it: the answer the turn before got, and new user text.

    Raises:
        ValueError: the options contradict each other or are out of range.
    """
    _check(options)
    lengths = _sequence_lengths(options)
    count = options.num_sessions or options.num_dataset_entries

    def sessions() -> Iterator[Session]:
        return (_session(options, lengths, index) for index in range(count))

    return Workload(
        name=name, sessions=Replayable(sessions), about="Made-up text of the lengths asked for."
    )


def parse_seq_dist(text: str) -> tuple[SequenceLengths, ...]:
    """The pairs of `128,64:25;512|10,128|5:75`: input,output:percent, each length with `|stddev`.

    Raises:
        ValueError: not of this form, or the percentages do not add up to 100.
    """
    pairs = tuple(_pair(part) for part in text.split(";") if part.strip())
    total = sum(pair.percent for pair in pairs)
    if abs(total - 100) > 0.01:
        raise ValueError(f"seq_dist: percentages add up to {total:g}, not to 100: {text!r}")
    return pairs


def _pair(text: str) -> SequenceLengths:
    try:
        lengths, percent = text.split(":")
        asked, answered = lengths.split(",")
        input_tokens, input_stddev = _mean_and_stddev(asked)
        output_tokens, output_stddev = _mean_and_stddev(answered)
        pair = SequenceLengths(
            float(percent), input_tokens, output_tokens, input_stddev, output_stddev
        )
    except ValueError:
        raise ValueError(f"seq_dist: {text!r} is not input,output:percent") from None
    if not (pair.percent >= 0 and min(pair[1:3]) >= 1 and min(pair[3:]) >= 0):
        raise ValueError(f"seq_dist: {text!r} has a length below 1 or a negative number")
    return pair


def _mean_and_stddev(text: str) -> tuple[float, float]:
    mean, _, stddev = text.partition("|")
    return float(mean), float(stddev or 0)


def _sequence_lengths(options: SyntheticOptions) -> tuple[SequenceLengths, ...]:
    if options.seq_dist is not None:
        return parse_seq_dist(options.seq_dist)
    return (
        SequenceLengths(
            100,
            options.synthetic_input_tokens_mean,
            options.output_tokens_mean,
            options.synthetic_input_tokens_stddev,
            options.output_tokens_stddev,
        ),
    )


def _check(options: SyntheticOptions) -> None:
    prefixes = options.num_prefix_prompts, options.prefix_prompt_length
    if any(prefixes) and not all(prefixes):
        raise ValueError("num_prefix_prompts and prefix_prompt_length are needed together")
    if any(prefixes) and (
        options.shared_system_prompt_length or options.user_context_prompt_length
    ):
        raise ValueError(
            "prefix prompts do not go with shared_system_prompt_length or "
            "user_context_prompt_length: both say how a prompt begins"
        )
    for name in ("synthetic_input_tokens_mean", "output_tokens_mean", "session_turns_mean"):
        if not getattr(options, name) >= 1:
            raise ValueError(f"{name} must be 1 or more, not {getattr(options, name)}")
    if options.num_dataset_entries < 1 or (options.num_sessions or 1) < 1:
        raise ValueError("num_sessions and num_dataset_entries must be 1 or more")
    for name in options.__struct_fields__:
        value = getattr(options, name)
        if name != "seed" and isinstance(value, int | float) and not value >= 0:
            raise ValueError(f"{name} must not be negative: {value}")


def _session(
    options: SyntheticOptions, lengths: tuple[SequenceLengths, ...], index: int
) -> Session:
    draw = Random(segment_key("synthetic", options.seed, index))
    history = _opening(options, index, draw)
    turns: list[Turn] = []
    for number in range(_positive(draw, options.session_turns_mean, options.session_turns_stddev)):
        turn = _turn(options, lengths, draw, history, (index, number))
        turns.append(turn)
        history = (*turn.prompt, Segment(turn.answer, turn.output_tokens, "assistant"))
    return Session(id=index, turns=tuple(turns))


def _opening(options: SyntheticOptions, index: int, draw: Random) -> Prompt:
    seed, opening = options.seed, []
    if options.num_prefix_prompts:
        chosen = draw.randrange(options.num_prefix_prompts)
        length = options.prefix_prompt_length
        opening.append(Segment(segment_key(seed, "prefix", chosen, length), length, "system"))
    if length := options.shared_system_prompt_length:
        opening.append(Segment(segment_key(seed, "system", length), length, "system"))
    if length := options.user_context_prompt_length:
        opening.append(Segment(segment_key(seed, "context", index, length), length, "user"))
    return tuple(opening)


def _turn(
    options: SyntheticOptions,
    lengths: tuple[SequenceLengths, ...],
    draw: Random,
    history: Prompt,
    place: tuple[int, int],
) -> Turn:
    [pair] = draw.choices(lengths, [pair.percent for pair in lengths])
    asked = _positive(draw, pair.input_tokens, pair.input_stddev)
    question = Segment(segment_key(options.seed, "user", *place), asked, "user")
    return Turn(
        prompt=(*history, question),
        output_tokens=_positive(draw, pair.output_tokens, pair.output_stddev),
        answer=segment_key(options.seed, "answer", *place),
        delay_s=_delay_s(options, draw) if place[1] else 0.0,
    )


def _delay_s(options: SyntheticOptions, draw: Random) -> float:
    delay_ms = draw.gauss(options.session_turn_delay_mean, options.session_turn_delay_stddev)
    return max(0.0, delay_ms) * options.session_delay_ratio / 1000


def _positive(draw: Random, mean: float, stddev: float) -> int:
    return max(1, round(draw.gauss(mean, stddev)))
