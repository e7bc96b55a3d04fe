"""Requests and replicas to put before a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from balancer.policies import Ask, Outcome, Policy
from bench.simulate.reference import Engine, Fleet
from bench.workload.model import segment_key
from tests.balancer.made import Member, members

__all__ = ["Member", "members"]


@dataclass(eq=False)
class Prompt:
    """A request whose prompt is made of named parts, each of a number of tokens.

    Two prompts agree as far as their parts do.
    """

    parts: tuple[tuple[str, int], ...] = ()
    output_tokens: int | None = None
    session: str | None = None
    run: str | None = None
    streams: bool = True
    matches: Mapping[str, int] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        return sum(tokens for _, tokens in self.parts)

    def blocks(self, tokens: int) -> Sequence[int]:
        text = [(name, place) for name, length in self.parts for place in range(length)]
        numbers, number = [], 0
        for end in range(tokens, len(text) + 1, tokens):
            number = segment_key(number, *text[end - tokens : end])
            numbers.append(number)
        return numbers


def prompt(*parts: tuple[str, int], session: str | None = None) -> Prompt:
    return Prompt(parts, session=session)


class Clock:
    """Stands until it is moved."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def fleet(
    replicas: int = 4,
    *,
    kv_tokens: int = 64_000,
    rate: float = 10_000.0,
    seed: int = 1,
    clock: Clock | None = None,
    engines: dict[str, Engine] | None = None,
) -> Fleet:
    engine = Engine(kv_tokens=kv_tokens, prefill_tokens_per_s=rate, max_running=128)
    return Fleet(
        replicas=replicas,
        engine=engine,
        clock=clock or Clock(),
        seed=seed,
        engines=engines or {},
    )


def send(policy: Policy, replica: Member, ask: Ask, *, until: str = "sent") -> None:
    """`ask` goes to `replica`, and on until it is "sent", "answered" or "over"."""
    replica.in_flight += 1
    policy.leased(replica, ask)
    if until != "sent":
        policy.answered(replica, ask)
    if until == "over":
        policy.released(replica, ask, Outcome())
        replica.in_flight -= 1


def picks(policy: Policy, candidates: Sequence[Member], ask: Ask, times: int = 60) -> set[str]:
    """The names picked when asked again and again, nothing being sent."""
    return {policy.pick(candidates, ask).name for _ in range(times)}
