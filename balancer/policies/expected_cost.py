"""Placement by expected cost: the seconds that a request takes, and takes from others."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest, nsmallest
from typing import ClassVar, Final, NamedTuple

import trio

from balancer.policies.ask import BLOCK_TOKENS, UNKNOWN, Ask
from balancer.policies.loaded import Loaded, R
from balancer.policies.policy import Bookless, Candidate, Explanation, Outcome
from balancer.policies.ties import among
from balancer.prefix import ENGINE_TOKENS
from balancer.speed import MOST_START_S, MOST_START_TOKENS, Line

__all__ = ["TERMS", "ExpectedCost"]

TERMS: Final = ("wait", "read", "waste", "decode", "memory")

DISPLACEMENT: Final = 3.0
"""What a token that is read again costs those whose tokens it drives out, in readings of it. At 1,
and little `STALL`, caches that are too small for the traffic lose 7 points of hits."""
STALL: Final = 0.3
"""How much of a reading each request in flight there loses; LMetric (arXiv 2603.15202) has 1, on
all tokens instead of the avoidable ones."""
ANSWER_TOKENS: Final = 100.0
"""For so many tokens a request feels the company it found: later arrivals level it. With all of
long answers instead, conversations leave their caches (multi-turn: TTFT p99 3 times as long); with
60 or fewer, load near saturation is uneven."""
BARRIER_S: Final = 0.15
"""The cost of a half full KV cache: SMG's `least_load`."""

_MOST_KV_SHARE: Final = 0.98
_TIE_S: Final = 0.002
_TIE_SHARE: Final = 0.01

_LEARN_EVERY_S: Final = 0.25
_LEARN_FROM: Final = 32
_LEAST_SLOPE: Final = 0.1
_ANSWER_WEIGHT: Final = 0.02
_EXPLAINED: Final = 16
_EXPLAINED_LATER: Final = 32

_LISTED: Final = 64
"""Candidates by what they hold, and by chance, where there are more than twice as many."""


class _Pace:
    """How fast one replica is now, as last worked out."""

    __slots__ = ("company", "kv_blocks", "read_s", "start_s", "stream_s", "token_s")

    def __init__(self) -> None:
        self.start_s = 0.0
        """Before the first of some tokens is read."""
        self.read_s = 0.0
        """For each uncached prompt token."""
        self.token_s = 0.0
        """For each token of an answer, alone."""
        self.stream_s = 0.0
        """More, for each other request in flight."""
        self.company = 0.0
        """Requests in flight there that are not ours."""
        self.kv_blocks = 1.0
        """Blocks that its cache holds."""


_Terms = tuple[float, float, float, float, float]


class _Pick(NamedTuple):
    """What a pick was decided on; kept to explain it if somebody asks."""

    candidates: Sequence[Loaded]
    in_flight: list[int]
    matches: Mapping[str, int]
    terms: list[_Terms]
    costs_s: list[float]
    chosen: int
    start_s: float

    def best(self) -> tuple[Candidate, ...]:
        """The cheapest first."""
        places = nsmallest(_EXPLAINED, range(len(self.costs_s)), key=self.costs_s.__getitem__)
        matched = self.matches
        return tuple(
            Candidate(one.name, self.in_flight[place], matched.get(one.name, 0), self.terms[place])
            for place, one in ((place, self.candidates[place]) for place in places)
        )


class ExpectedCost(Bookless):
    """For each replica the sum of these, in seconds, and the least wins:

    - wait: uncached prompt tokens sent there and not read yet, by the time each takes to be read;
    - read: the same for those of this prompt;
    - waste: the tokens that are read again only because the request leaves the candidate that holds
      most, by (`DISPLACEMENT`/(1 + s) + `STALL` x requests in flight): they push something else out
      of the cache, and stall who is being answered. s requests in flight on the one that holds most
      share all of what it holds of this prompt: a copy of what many use is worth its room;
    - decode: for `ANSWER_TOKENS`, or fewer if answers are shorter or the request has a lower limit,
      what each takes longer beside the requests in flight, and on this replica than on the fastest;
    - memory: `BARRIER_S` x k/(1 - k), k being the share of the KV cache in use, 0.98 at most.

    Ties within 2 ms or 1 %, whichever is more, go by chance; `seed` makes it repeatable. How fast
    each replica is, is learned (`balancer.speed`), and slower still while others use its GPU.
    """

    reads_prompt: ClassVar[bool] = True

    def __init__(
        self, seed: int | None = None, *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._answer_tokens = 2.0 * ANSWER_TOKENS
        self._paces: dict[str, _Pace] = {}
        self._reading = self._writing = (0.0, 0.0)
        self._fastest_s = 0.0
        self._learn_at = -math.inf
        self._turn = 0
        self._last: _Pick | None = None

    def pick(self, candidates: Sequence[R], ask: Ask = UNKNOWN) -> R:
        now = self._clock()
        if now >= self._learn_at:
            self._learn(candidates, now)
        if len(candidates) > 2 * _LISTED:
            candidates = self._shortlist(candidates, ask.matches)
        terms = self._terms(candidates, ask)
        costs_s = [wait + read + waste + more + k for wait, read, waste, more, k in terms]
        place = among(costs_s, _TIE_S, _TIE_SHARE, self._random)
        chosen = candidates[place]
        in_flight = [candidate.load.requests for candidate in candidates]
        start_s = self._paces[chosen.name].start_s
        self._last = _Pick(candidates, in_flight, ask.matches, terms, costs_s, place, start_s)
        return chosen

    def released(self, replica: Loaded, ask: Ask, outcome: Outcome) -> None:
        """Learn how long answers are."""
        if outcome.output_tokens is not None:
            self._answer_tokens += _ANSWER_WEIGHT * (outcome.output_tokens - self._answer_tokens)

    def forget(self, replica: str) -> None:
        """What it was is worked out anew if it comes back."""
        self._paces.pop(replica, None)

    @property
    def explanation(self) -> Explanation | None:  # type: ignore[override]
        """Of the last pick."""
        last = self._last
        if last is None:
            return None
        wait_s, read_s, *_ = last.terms[last.chosen]
        predicted_s = last.start_s + wait_s + read_s
        # What is kept until somebody asks is as large as the pool: made at once for a large one.
        best = last.best if len(last.terms) <= _EXPLAINED_LATER else last.best()
        return Explanation("s", TERMS, best, len(last.terms), predicted_s)

    def _shortlist(self, candidates: Sequence[R], matches: Mapping[str, int]) -> Sequence[R]:
        """Those that hold most of the prompt, and as many by chance. The best of sixty-four is as
        good as the best of a thousand, in a time that does not grow with them."""
        held = [one for one in candidates if one.name in matches] if matches else []
        if len(held) > _LISTED:
            held = nlargest(_LISTED, held, key=lambda one: matches[one.name])
        return [*held, *self._random.sample(candidates, _LISTED)]

    def _terms(self, candidates: Sequence[Loaded], ask: Ask) -> list[_Terms]:
        # One loop, without calls: at a thousand replicas each costs a microsecond as it is.
        prompt_tokens, matched = ask.prompt_tokens, ask.matches.get
        most, displacement = self._warmest(candidates, ask) if ask.matches else (0, 0.0)
        fewest = max(1, prompt_tokens - most)
        limit = ask.output_tokens
        answer_tokens = min(
            ANSWER_TOKENS, self._answer_tokens, math.inf if limit is None else limit
        )
        paces, fastest_s = self._paces.get, self._fastest_s
        terms = []
        for one in candidates:
            name = one.name
            pace = paces(name) or self._new_pace(one)
            load = one.load
            uncached = prompt_tokens - matched(name, 0)
            if uncached < 1:
                uncached = 1
            own = load.requests
            company = own + pace.company
            read_s = pace.read_s
            k = (len(load.held) + own) / pace.kv_blocks
            if k > _MOST_KV_SHARE:
                k = _MOST_KV_SHARE
            terms.append(
                (
                    load.waiting_tokens * read_s,
                    uncached * read_s,
                    (uncached - fewest) * read_s * (displacement + STALL * company),
                    answer_tokens * (pace.stream_s * company + pace.token_s - fastest_s),
                    BARRIER_S * k / (1.0 - k),
                )
            )
        return terms

    def _warmest(self, candidates: Sequence[Loaded], ask: Ask) -> tuple[int, float]:
        """The most tokens of the prompt that a candidate holds, and what a copy displaces.

        Of what several there have in their prompts now a copy elsewhere is not idle for long: it
        costs less the more they are.
        """
        matches = ask.matches
        held = [matches.get(one.name, 0) for one in candidates]
        most = max(held)
        if most < BLOCK_TOKENS:
            return most, DISPLACEMENT
        last = ask.blocks(BLOCK_TOKENS)[most // BLOCK_TOKENS - 1 : most // BLOCK_TOKENS]
        in_use = candidates[held.index(most)].load.held
        return most, DISPLACEMENT / (1.0 + in_use.get(last[0], 0)) if last else DISPLACEMENT

    def _learn(self, candidates: Sequence[Loaded], now: float) -> None:
        """Work out anew how fast replicas are: of many, some at a time."""
        self._learn_at = now + _LEARN_EVERY_S
        count = len(candidates)
        if count > _LEARN_FROM:
            first, self._turn = self._turn % count, self._turn + _LEARN_FROM
            candidates = [candidates[(first + step) % count] for step in range(_LEARN_FROM)]
        reads, writes = Line(), Line()
        for one in candidates:
            reads.join(one.speed.guessed_reads)
            reads.join(one.speed.reads)
            writes.join(one.speed.guessed_writes)
            writes.join(one.speed.writes)
        base, slope = reads.fit(MOST_START_S + MOST_START_TOKENS * writes.mean)
        # Never nothing, whatever chance made of a few requests: or caches would be worth nothing.
        self._reading = base, max(slope, _LEAST_SLOPE * reads.xy / reads.xx)
        self._writing = writes.fit()
        for one in candidates:
            self._set_pace(self._paces.setdefault(one.name, _Pace()), one, now)
        self._fastest_s = min([pace.token_s for pace in self._paces.values()])

    def _new_pace(self, one: Loaded) -> _Pace:
        pace = self._paces[one.name] = _Pace()
        self._set_pace(pace, one, self._clock())
        self._fastest_s = min(self._fastest_s, pace.token_s)
        return pace

    def _set_pace(self, pace: _Pace, one: Loaded, now: float) -> None:
        # What a foreign job slows down is in what was learned, as soon as it was.
        shared = 1.0 / (1.0 - one.foreign_share)
        reads = max(shared, one.speed.slow_to_read(self._reading, one.load.waiting_tokens, now))
        writes = max(shared, one.speed.slow_to_write(self._writing))
        pace.start_s, pace.read_s = (reads * part for part in self._reading)
        pace.token_s, pace.stream_s = (writes * part for part in self._writing)
        pace.company = one.foreign_requests
        known = one.gauges.kv_tokens if one.gauges is not None else None
        pace.kv_blocks = (known or ENGINE_TOKENS) / BLOCK_TOKENS
