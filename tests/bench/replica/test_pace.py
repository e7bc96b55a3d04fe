"""The pace model and the settings it comes from."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from bench.replica import Faults, ReplicaSettings
from bench.replica.core import Job
from bench.replica.steady import SteadyCore

JOB = Job(prompt_tokens=7, tokens=5000)


async def test_steady_times(autojump_clock: trio.testing.MockClock) -> None:
    """Each token's time follows from the first one's, without adding up."""
    await trio.sleep(100)
    run = SteadyCore(0.5, 20, 160).begin(JOB)
    assert [run.due_s(token) for token in (0, 1, 20, 2000)] == [100.5, 100.55, 101.5, 200.5]


async def test_infinite_rate_means_no_pause(autojump_clock: trio.testing.MockClock) -> None:
    """With an infinite rate all tokens are due with the first."""
    run = SteadyCore(0.0, math.inf, 160).begin(JOB)
    assert run.due_s(0) == run.due_s(4000) == trio.current_time()


@pytest.mark.parametrize(
    ("ttft_s", "rate"), [(-1, 1), (math.inf, 1), (math.nan, 1), (0, 0), (0, -2)]
)
def test_impossible_pace_is_refused(ttft_s: float, rate: float) -> None:
    """A pace that no time can be computed from is refused when it is made."""
    with pytest.raises(ValueError, match="no pace"):
        SteadyCore(ttft_s, rate, 160)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"ttft_s": -0.1},
        {"tokens_per_s": 0},
        {"tokens_per_chunk": 0},
        {"max_model_len": 15},
        {"embedding_dimensions": 4097},
        {"max_body_bytes": 0},
        {"faults": Faults(slow=2)},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, object]) -> None:
    """The error names the setting and what was expected."""
    with pytest.raises(ValueError, match=rf"replica {next(iter(wrong))} = .*: expected "):
        ReplicaSettings(**wrong)  # type: ignore[arg-type]
