"""Small engines, workloads and runs for the tests of the simulation."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policies import LeastRequest, Policy
from bench.engine import Profile
from bench.simulate.calls import Calls
from bench.simulate.conditions import Conditions
from bench.simulate.play import Played, play
from bench.workload.model import Prompt, Segment, Session, Turn, Workload

ENGINE = Profile(
    name="small",
    step_s=0.001,
    sequence_s=0.0001,
    weights_s=0.008,
    token_s=0.00005,
    attention_s=1e-8,
    context_s=1e-7,
    kv_tokens=8_000,
    max_num_seqs=16,
    max_num_batched_tokens=512,
    max_model_len=2_000,
)
"""Steps of some 10 ms."""


def prompt(*segments: tuple[int, int]) -> Prompt:
    """Of pairs of key and tokens."""
    return tuple(Segment(key, tokens) for key, tokens in segments)


def turn(
    key: int,
    tokens: int = 100,
    output: int = 5,
    *,
    due_s: float | None = None,
    delay_s: float = 0.0,
    before: Prompt = (),
) -> Turn:
    """A question `key` of so many tokens after what was `before`; its answer is `-key`."""
    return Turn(
        prompt=(*before, Segment(key, tokens)),
        output_tokens=output,
        answer=-key,
        due_s=due_s,
        delay_s=delay_s,
    )


def workload(*sessions: Sequence[Turn], concurrency: int | None = None) -> Workload:
    """Of the turns of each session."""
    made = [Session(id=number, turns=turns) for number, turns in enumerate(sessions, start=1)]
    return Workload(name="small", sessions=made, concurrency=concurrency)


def run(
    played: Workload,
    replicas: int = 1,
    policy: Policy | None = None,
    *,
    engine: Profile = ENGINE,
    max_in_flight: int | None = None,
    queue: int = 1_000_000,
    queue_s: float = 1e9,
    conditions: Conditions = Conditions(),  # noqa: B008 - immutable
) -> Played:
    """`played` on equal replicas, by fewest in flight unless another policy is given."""
    return play(
        played,
        [engine] * replicas,
        lambda: policy or LeastRequest(),
        conditions=conditions,
        max_in_flight=max_in_flight,
        queue=queue,
        queue_s=queue_s,
    )


def ttfts_s(calls: Calls) -> list[float]:
    """From when each should have been sent, in the order of their ends."""
    return [first - asked for asked, first in zip(calls.asked_s, calls.first_s, strict=True)]
