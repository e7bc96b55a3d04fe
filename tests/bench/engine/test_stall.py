"""A stall holds everything back that has not begun."""

from __future__ import annotations

import pytest

from bench.engine import Engine, Sequence, find_profile
from bench.workload.model import Segment

both = pytest.mark.parametrize("ahead", [True, False])
prompts = pytest.mark.parametrize("prompt_tokens", [64, 20_000])


def engine_at_work(prompt_tokens: int, *, ahead: bool) -> tuple[Engine, Sequence]:
    """One second into a request."""
    engine = Engine(find_profile("h100-llama-8b", async_scheduling=ahead))
    sequence = Sequence((Segment(1, prompt_tokens),), 1000, 2)
    engine.submit(sequence, 0.0)
    engine.advance(1.0)
    return engine, sequence


def made(engine: Engine, sequence: Sequence, now_s: float) -> int:
    engine.advance(now_s)
    return engine.tokens_made(sequence, now_s)


@both
@prompts
def test_only_the_step_that_runs_is_finished(prompt_tokens: int, ahead: bool) -> None:
    """Not the one that is put together already."""
    engine, sequence = engine_at_work(prompt_tokens, ahead=ahead)
    before = made(engine, sequence, 1.0)
    engine.stall(4.0, 1.0)
    assert made(engine, sequence, 3.99) == before + 1
    assert made(engine, sequence, 4.5) > before + 40


@both
@prompts
def test_a_second_stall_replaces_the_first(prompt_tokens: int, ahead: bool) -> None:
    """It may end later, and no step slips through in between; or earlier."""
    engine, sequence = engine_at_work(prompt_tokens, ahead=ahead)
    engine.stall(4.0, 1.0)
    during = made(engine, sequence, 2.0)
    engine.stall(12.0, 2.0)
    assert made(engine, sequence, 11.99) == during
    engine.stall(12.0, 11.99)
    engine.stall(0.0, 11.99)
    assert made(engine, sequence, 12.5) > during + 40


def test_a_long_prompt_between_two_steps_is_held_back_too() -> None:
    """A stall while the first part of a prompt is computed keeps the second from beginning."""
    engine = Engine(find_profile("h100-llama-8b"))
    sequence = Sequence((Segment(1, 16_000),), 10, 2)
    engine.submit(sequence, 0.0)
    engine.stall(5.0, 0.1)
    engine.advance(5.0)
    assert sequence.first_token_s is None
    engine.advance(6.0)
    assert sequence.first_token_s is not None
