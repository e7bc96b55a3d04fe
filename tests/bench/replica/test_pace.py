"""The pace model and the settings it comes from."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from bench.replica import ReplicaSettings, create_app
from bench.replica.pace import SteadyPace, Timeline
from tests.bench.replica.driver import chat


def test_steady_times() -> None:
    """Each token's time follows from the first one's, without adding up."""
    timeline = SteadyPace(0.5, 20).begin(7, 100.0)
    assert [timeline.due_s(token) for token in (0, 1, 20, 2000)] == [100.5, 100.55, 101.5, 200.5]


def test_infinite_rate_means_no_pause() -> None:
    """With an infinite rate all tokens are due with the first."""
    timeline = SteadyPace(0.0, math.inf).begin(1, 3.0)
    assert timeline.due_s(0) == timeline.due_s(4000) == 3.0


@pytest.mark.parametrize(
    ("ttft_s", "rate"), [(-1, 1), (math.inf, 1), (math.nan, 1), (0, 0), (0, -2)]
)
def test_impossible_pace_is_refused(ttft_s: float, rate: float) -> None:
    """A pace that no time can be computed from is refused when it is made."""
    with pytest.raises(ValueError, match="no pace"):
        SteadyPace(ttft_s, rate)


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
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, object]) -> None:
    """The error names the setting and what was expected."""
    with pytest.raises(ValueError, match=rf"replica {next(iter(wrong))} = .*: expected "):
        ReplicaSettings(**wrong)  # type: ignore[arg-type]


class _QueueingPace:
    """Says 1 s at first and moves to 5 s when asked again, as a queue that turned out longer."""

    def __init__(self) -> None:
        self.asked = 0
        self.ended: list[Timeline] = []

    def begin(self, prompt_tokens: int, now_s: float) -> Timeline:
        return self

    def due_s(self, token: int) -> float:
        self.asked += 1
        return (1.0 if self.asked == 1 else 5.0) + token

    def end(self, timeline: Timeline) -> None:
        self.ended.append(timeline)


async def test_pace_can_be_replaced(autojump_clock: trio.testing.MockClock) -> None:
    """Another pace sets the times, may move them while they are waited for, and is told the end."""
    pace = _QueueingPace()
    answer = await chat(create_app(pace=pace), max_tokens=3, stream=True)
    assert [at for at, _ in answer.choices()] == pytest.approx([5.0, 5.0, 6.0, 7.0])
    assert pace.ended == [pace]
