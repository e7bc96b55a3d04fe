"""Open-loop traffic described by a few numbers: how it comes, what it shares, how long it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import NamedTuple

import msgspec

from bench.workload.model import Prompt, Replayable, Segment, Session, Turn, Workload, segment_key

__all__ = ["Length", "Pattern", "pattern_workload"]


class Length(NamedTuple):
    """Lognormal token counts."""

    median: float
    sigma: float = 0.0
    """Of the logarithm; 0: always the median."""
    most: int = 32_768
    """Longer ones are cut to it."""

    def draw(self, random: Random) -> int:
        """A count from 1 to `most`."""
        drawn = self.median * math.exp(random.gauss(0.0, self.sigma))
        return min(self.most, max(1, round(drawn)))


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions that begin as a Poisson process."""

    name: str
    about: str = ""
    sessions_per_s: float
    sessions: int = 0
    """How many begin; with `branches`: how many runs."""
    question: Length
    """New text of each turn."""
    answer: Length
    turns: int = 1
    think_s: float = 0.0
    """Mean of the exponential pause between an answer and the next turn."""
    prefixes: int = 0
    """So many system prompts, drawn evenly; 0: prompts share nothing."""
    prefix: Length = Length(1)
    branches: int = 1
    """Sessions that start together, as the branches of one run, with a common context."""
    context: Length = Length(1)
    """Of a run; only if there are branches."""
    tier: str = "interactive"
    seed: int = 0


def pattern_workload(pattern: Pattern) -> Workload:
    """The sessions of `pattern`; the same for the same pattern."""

    def sessions() -> Iterator[Session]:
        return islice(_sessions(pattern), pattern.sessions * pattern.branches)

    return Workload(name=pattern.name, sessions=Replayable(sessions), about=pattern.about)


def _sessions(pattern: Pattern) -> Iterator[Session]:
    arrivals = Random(segment_key("arrivals", pattern.name, pattern.seed))
    prefixes = _prefixes(pattern)
    due_s = 0.0
    for run in range(pattern.sessions):
        due_s += arrivals.expovariate(pattern.sessions_per_s)
        draw = Random(segment_key("run", pattern.name, pattern.seed, run))
        opening: Prompt = (draw.choice(prefixes),) if prefixes else ()
        if pattern.branches > 1:
            key = segment_key("context", pattern.name, pattern.seed, run)
            opening = (*opening, Segment(key, pattern.context.draw(draw), "user"))
        for branch in range(pattern.branches):
            yield _session(pattern, draw, opening, run * pattern.branches + branch, due_s)


def _prefixes(pattern: Pattern) -> list[Segment]:
    draw = Random(segment_key("prefixes", pattern.name, pattern.seed))
    names = [segment_key("prefix", pattern.name, pattern.seed, n) for n in range(pattern.prefixes)]
    return [Segment(key, pattern.prefix.draw(draw), "system") for key in names]


def _session(pattern: Pattern, draw: Random, opening: Prompt, number: int, due_s: float) -> Session:
    history, turns = opening, list[Turn]()
    own = segment_key("session", pattern.name, pattern.seed, number)
    for place in range(pattern.turns):
        question = Segment(segment_key(own, "user", place), pattern.question.draw(draw), "user")
        turn = Turn(
            prompt=(*history, question),
            output_tokens=pattern.answer.draw(draw),
            answer=segment_key(own, "answer", place),
            due_s=None if place else due_s,
            delay_s=draw.expovariate(1 / pattern.think_s) if place and pattern.think_s else 0.0,
        )
        turns.append(turn)
        history = (*turn.prompt, Segment(turn.answer, turn.output_tokens, "assistant"))
    group = number // pattern.branches + 1 if pattern.branches > 1 else 0
    return Session(id=number, turns=tuple(turns), tier=pattern.tier, group=group)
