"""Workloads by name, sized to a number of replicas.

The default rates are meant for replicas like one H100 with an 8B model (some 45,000 prefill tokens
a second, 400,000 tokens of KV cache): prefix-blind balancing suffers, good balancing does not
saturate, `mixed-tiers` does. Pass `rate` for other fleets. Where a workload follows a published one
that had another model, shapes are the published ones and rates are these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain, islice

import msgspec

from bench.workload.data import bundled
from bench.workload.mixing import overlaid
from bench.workload.model import Replayable, Session, Workload, segment_key
from bench.workload.pattern import Length, Pattern, pattern_workload
from bench.workload.synthetic import SyntheticOptions, synthetic
from bench.workload.traces.detect import read_trace
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.weka import WekaOptions, weka

__all__ = ["ABOUT", "WORKLOADS", "WorkloadOptions", "named_workload"]

_PATTERN_S = 150
"""How long made-up open-loop traffic lasts at scale 1."""


class WorkloadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a workload, and for how many replicas.

    Raises:
        ValueError: a value is out of range.
    """

    replicas: int = 4
    """Traffic grows with it, so that each replica has the same share."""
    scale: float = 1.0
    """How much of it: at 0.5 half as many sessions, at the same rate. A recorded trace has no more
    than it has: above 1 all of it is taken."""
    rate: float | None = None
    """Sessions (or runs, or requests of a trace) a second and replica; in a closed loop sessions at
    once per replica. None: the workload's own."""
    pace: float = 1.0
    """What the rate, whichever it is, is multiplied by."""
    seed: int = 1

    def rate_or(self, own: float) -> float:
        """The rate asked for, or the workload's own."""
        return (self.rate or own) * self.pace

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas must be 1 or more, not {self.replicas}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"the scale must be a number above 0, not {self.scale}")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"the rate must be a number above 0, not {self.rate}")
        if not 0 < self.pace < math.inf:
            raise ValueError(f"the pace must be a number above 0, not {self.pace}")


def named_workload(name: str, options: WorkloadOptions | None = None) -> Workload:
    """The workload called `name` in `WORKLOADS`.

    Raises:
        ValueError: there is none.
    """
    if name not in WORKLOADS:
        raise ValueError(f"no workload is called {name!r}; there are {', '.join(WORKLOADS)}")
    return WORKLOADS[name](options or WorkloadOptions())


ABOUT = {
    "multi-turn": "60 conversations of 5 turns, 200 tokens in and 800 out each, 20 at once: the "
    "set-up of Higress's published table, which fits 4 replicas (round robin hits 40 % there).",
    "shared-prefix": "64 system prompts of 6,000 tokens, questions of 1,200: the shape of llm-d's "
    "published prefix-cache benchmark (73 % of capacity), with short answers.",
    "agent": "Agents of 12 apps with a system prompt each, 5 turns with tool calls of 2 s between: "
    "the multi-turn case of the balancer's design.",
    "cold-heavy-tail": "Single requests that share nothing, with lognormal lengths up to 32 Ki "
    "tokens: nothing to gain from prefixes, much to lose from bad balance.",
    "hot-prefix": "Short questions under one system prompt of 3,000 tokens: what makes affinity "
    "without a load guard send everything to one replica.",
    "fan-out": "Runs that ask 16 questions at once about one context of 4,000 tokens and are done "
    "with the last answer: iterations and parallel branches of workflows.",
    "conversation": "Mooncake's conversation trace (FAST'25): an hour of chats with their shared "
    "blocks, its 3-second stamps spread.",
    "coding-agent": "Recorded coding-agent sessions (WEKA): contexts up to 128 Ki tokens, each "
    "turn after the answer before it and a think time of at most 60 s.",
    "azure-conv": "Azure's conversation trace of 2023 (Splitwise, ISCA 2024): lengths and arrivals "
    "only, no shared prefixes.",
    "skewed-tenants": "Tenants drawn from ServeGen's client profiles (arXiv 2505.09999): the "
    "largest sends 30 % of the requests.",
    "mixed-fleet": "Chats of 5 turns in 8 apps, for a fleet of unequal replicas.",
    "mixed-tiers": "Interactive requests and six times as many batch requests, more than the fleet "
    "can serve: what priorities are worth.",
}
"""What each workload stands for, and where its numbers are from."""


def _multi_turn(options: WorkloadOptions) -> Workload:
    # Of the lengths only the averages are published (200 and 800). The published P99 latency is
    # 2.4 times the mean, which answers of a normal distribution with half the mean as its standard
    # deviation give.
    made = SyntheticOptions(
        synthetic_input_tokens_mean=200,
        synthetic_input_tokens_stddev=40,
        output_tokens_mean=800,
        output_tokens_stddev=400,
        num_sessions=_count(15 * options.replicas * options.scale),
        session_turns_mean=5,
        seed=options.seed,
    )
    workload = synthetic(made, "multi-turn")
    at_once = _count(options.rate_or(5) * options.replicas)
    return msgspec.structs.replace(workload, concurrency=at_once, about=ABOUT["multi-turn"])


def _usual(template: Pattern) -> Callable[[WorkloadOptions], Workload]:
    return lambda options: pattern_workload(_sized(template, options))


def _sized(template: Pattern, options: WorkloadOptions) -> Pattern:
    """`template`, whose rate is for one replica and whose prefixes are for 4, as `options` say."""
    sessions_per_s = options.rate_or(template.sessions_per_s) * options.replicas
    prefixes = template.prefixes
    if prefixes > 1:
        prefixes = max(prefixes, prefixes * options.replicas // 4)
    return msgspec.structs.replace(
        template,
        about=ABOUT[template.name],
        sessions_per_s=sessions_per_s,
        sessions=_count(sessions_per_s * _PATTERN_S * options.scale),
        prefixes=prefixes,
        seed=options.seed,
    )


_PATTERNS = (
    Pattern(
        name="shared-prefix",
        sessions_per_s=6,
        prefixes=64,
        prefix=Length(6000),
        question=Length(1200, 0.2),
        answer=Length(200, 0.3),
    ),
    Pattern(
        name="agent",
        sessions_per_s=1.5,
        prefixes=12,
        prefix=Length(2000, 0.5, 8000),
        turns=5,
        think_s=2.0,
        question=Length(300, 0.8, 8000),
        answer=Length(200, 0.6, 2000),
    ),
    Pattern(
        name="cold-heavy-tail",
        sessions_per_s=8,
        question=Length(1000, 1.2),
        answer=Length(150, 0.9, 2000),
    ),
    Pattern(
        name="hot-prefix",
        sessions_per_s=12,
        prefixes=1,
        prefix=Length(3000),
        question=Length(300, 0.5, 4000),
        answer=Length(100, 0.5, 1000),
    ),
    Pattern(
        name="fan-out",
        sessions_per_s=0.5,
        branches=16,
        context=Length(4000, 0.4),
        question=Length(200, 0.5, 4000),
        answer=Length(200, 0.4, 2000),
    ),
    Pattern(
        name="mixed-fleet",
        sessions_per_s=0.8,
        prefixes=8,
        prefix=Length(800, 0.5, 4000),
        turns=5,
        think_s=8.0,
        question=Length(400, 0.9, 8000),
        answer=Length(250, 0.6, 2000),
    ),
)

_TIERS = (
    Pattern(
        name="mixed-tiers",
        sessions_per_s=1,
        question=Length(600, 0.6, 8000),
        answer=Length(150, 0.5, 1000),
    ),
    Pattern(
        name="mixed-tiers",
        tier="batch",
        sessions_per_s=6,
        question=Length(4000, 0.6, 16_000),
        answer=Length(400, 0.4, 2000),
    ),
)


def _mixed_tiers(options: WorkloadOptions) -> Workload:
    usual = sum(tier.sessions_per_s for tier in _TIERS)
    parts = []
    for place, tier in enumerate(_TIERS):
        rate = (options.rate or usual) * tier.sessions_per_s / usual
        own = msgspec.structs.replace(options, rate=rate, seed=segment_key(options.seed, place))
        parts.append(pattern_workload(_sized(tier, own)))
    return overlaid("mixed-tiers", parts, ABOUT["mixed-tiers"])


class _Recorded(msgspec.Struct, frozen=True):
    """A bundled open-loop trace."""

    name: str
    span_s: float
    requests_per_s: float
    rate: float
    """Requests a second and replica if none is asked for."""


_FASTEST = 10.0
"""A trace is sped up to this; for more traffic it is laid over itself, each copy with prompts of
its own, since at a hundred times the speed an hour's sessions would last a few seconds."""


def _recorded(trace: _Recorded) -> Callable[[WorkloadOptions], Workload]:
    def workload(options: WorkloadOptions) -> Workload:
        wanted = options.rate_or(trace.rate) * options.replicas / trace.requests_per_s
        copies = max(1, math.ceil(wanted / _FASTEST))
        replayed = [_replay(trace, options, copy, wanted / copies) for copy in range(copies)]
        return overlaid(trace.name, replayed, ABOUT[trace.name])

    return workload


def _replay(trace: _Recorded, options: WorkloadOptions, copy: int, speedup: float) -> Workload:
    return read_trace(
        bundled(trace.name),
        TraceOptions(
            speedup=speedup,
            end_offset_s=trace.span_s * options.scale,
            namespace=f"copy {copy}",
            seed=options.seed + copy,
        ),
    )


def _coding_agent(options: WorkloadOptions) -> Workload:
    count = _count(12 * options.replicas * options.scale)

    def passes() -> Iterator[Iterator[Session]]:
        # Further passes over the trace are other people: they share no prompts with the first.
        number = 0
        while True:
            chosen = TraceOptions(namespace=f"pass {number}")
            yield iter(weka(bundled("coding-agent"), chosen, WekaOptions()).sessions)
            number += 1

    def sessions() -> Iterator[Session]:
        taken = islice(chain.from_iterable(passes()), count)
        for number, session in enumerate(taken):
            yield msgspec.structs.replace(session, id=number)

    return Workload(
        name="coding-agent",
        sessions=Replayable(sessions),
        concurrency=_count(options.rate_or(6) * options.replicas),
        about=ABOUT["coding-agent"],
    )


def _count(number: float) -> int:
    return max(1, round(number))


_MADE = {
    "multi-turn": _multi_turn,
    **{template.name: _usual(template) for template in _PATTERNS},
    "conversation": _recorded(_Recorded("conversation", 3537.0, 3.40, 0.85)),
    "coding-agent": _coding_agent,
    "azure-conv": _recorded(_Recorded("azure-conv", 3502.0, 5.53, 6.0)),
    "skewed-tenants": _recorded(_Recorded("skewed-tenants", 1800.0, 8.08, 24.0)),
    "mixed-tiers": _mixed_tiers,
}

WORKLOADS: dict[str, Callable[[WorkloadOptions], Workload]] = {name: _MADE[name] for name in ABOUT}
"""Every named workload, made to options."""
