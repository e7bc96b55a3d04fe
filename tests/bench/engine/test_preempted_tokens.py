"""A token is there when its step has ended, whatever the scheduler has planned meanwhile."""

from __future__ import annotations

from itertools import pairwise

from bench.engine import Engine, Profile, Sequence
from bench.workload.model import Segment

PROFILE = Profile(
    name="tiny",
    step_s=0.01,
    sequence_s=0,
    weights_s=0.01,
    token_s=1e-6,
    attention_s=0,
    context_s=0,
    request_s=0,
    request_token_s=0,
    kv_tokens=16 * 16,
)


def test_a_token_comes_no_earlier_than_the_step_after_the_one_before() -> None:
    """Between two tokens of one sequence lies a whole step, preempted or not."""
    engine = Engine(PROFILE)
    sequences = [Sequence((Segment(n + 1, 40),), 60, 100 + n) for n in range(4)]
    for sequence in sequences:
        engine.submit(sequence, 0.0)
    came_s: dict[Sequence, list[float]] = {sequence: [] for sequence in sequences}
    for tick in range(4000):
        now_s = tick * 0.001
        engine.advance(now_s)
        for sequence in sequences:
            new = engine.tokens_made(sequence, now_s) - len(came_s[sequence])
            assert new <= 1  # a step takes 20 of these ticks
            came_s[sequence] += [now_s] * new
    assert engine.books.preemptions
    for times in came_s.values():
        assert len(times) == 60
        gaps = [after - before for before, after in pairwise(times)]
        assert min(gaps) > 0.018
