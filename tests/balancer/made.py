"""Replicas and requests to put before a policy."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from balancer.load import Charge, Load
from balancer.policies import POLICIES, Policy, PolicyName
from balancer.readings import Gauges, GpuReading
from balancer.speed import Speed


@dataclass(eq=False)
class Member:
    """A replica as policies see it."""

    name: str
    in_flight: int = 0
    load: Load = field(default_factory=Load)
    speed: Speed = field(default_factory=Speed)
    gauges: Gauges | None = None
    gpu: GpuReading | None = None
    foreign_share: float = 0.0
    foreign_requests: float = 0.0

    def take(
        self, uncached_tokens: int = 1, *, blocks: Sequence[int] = (), now: float = 0.0
    ) -> Charge:
        """A request more, as a lease books it."""
        self.in_flight += 1
        self.speed.sent(now)
        return self.load.open(uncached_tokens, blocks, now)

    def hold(self, blocks: Sequence[int] = ()) -> Charge:
        """A request more, whose prompt is read; nothing is learned from how long it took."""
        self.in_flight += 1
        charge = self.load.open(1, blocks, 0.0)
        self.load.read(charge, 0.0)
        return charge

    def read(self, charge: Charge, now: float = 0.0) -> None:
        """Its first event, as a lease notes it."""
        self.load.read(charge, now)
        self.speed.read(charge.uncached_tokens, self.load.waiting > 0, now)

    def end(self, charge: Charge, now: float = 0.0, *, itl_s: float | None = None) -> None:
        """Its end, as a lease notes it."""
        self.in_flight -= 1
        unread = charge.waiting
        if itl_s is not None:
            self.speed.wrote(self.load.company(charge, now), itl_s, now)
        self.load.close(charge, now)
        if unread:
            self.speed.gave_up(self.load.waiting > 0, now)


def members(*loads: int) -> list[Member]:
    """Replicas with so many requests in flight, all of them read."""
    made = [Member(f"r{number}") for number in range(len(loads))]
    for member, load in zip(made, loads, strict=True):
        for _ in range(load):
            member.hold()
    return made


@dataclass(eq=False)
class Request:
    """A request whose prompt is made of numbered parts, each of a number of tokens. Two prompts
    agree as far as their parts do."""

    parts: tuple[tuple[int, int], ...] = ()
    output_tokens: int | None = None
    session: str | None = None
    run: str | None = None
    streams: bool = True
    matches: Mapping[str, int] = field(default_factory=dict)
    _blocks: dict[int, Sequence[int]] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        return sum(tokens for _, tokens in self.parts)

    def blocks(self, tokens: int) -> Sequence[int]:
        if tokens not in self._blocks:
            self._blocks[tokens] = tuple(self._chained(tokens))
        return self._blocks[tokens]

    def _chained(self, tokens: int) -> Iterator[int]:
        text = [hash((part, place)) for part, length in self.parts for place in range(length)]
        number = 0
        for end in range(tokens, len(text) + 1, tokens):
            number = hash((number, *text[end - tokens : end]))
            yield number


class Clock:
    """Stands until it is moved."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make(name: PolicyName, seed: int | None = None, clock: Clock | None = None) -> Policy:
    """The policy of that name, with a clock of its own if it needs one."""
    made = POLICIES[name]
    if "clock" in inspect.signature(made).parameters:
        return made(seed, clock=clock or Clock())  # type: ignore[call-arg]
    return made(seed)


def picks(policy: Policy, candidates: Sequence[Member], ask: Request, times: int = 60) -> set[str]:
    """The names picked when asked again and again, nothing being sent."""
    return {policy.pick(candidates, ask).name for _ in range(times)}
