"""What a router takes prompts for: wrong by a factor, the same for the same text."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest

from bench.simulate.ask import TurnAsk
from bench.simulate.counts import APP_SIGMA, TEXT_SIGMA, EstimatedCounts
from bench.workload.model import Segment, prompt_tokens
from tests.bench.simulate.small import prompt


def test_equal_texts_are_estimated_alike() -> None:
    """In every prompt of an app, and by every router with the same seed."""
    one, other = EstimatedCounts(3), EstimatedCounts(3)
    shared = prompt((7, 1_000), (8, 500))
    assert one(shared) == other(shared) == one((*shared, Segment(9, 40)))[:2]
    assert EstimatedCounts(4)(shared) != one(shared)


def test_shared_beginnings_keep_their_blocks() -> None:
    """So that a router finds them, though they end elsewhere than in the engine."""
    seen = EstimatedCounts(1)
    first, second = (seen(prompt((7, 3_000), (key, 900))) for key in (8, 9))
    blocks, others = (TurnAsk(each, None, None).blocks(64) for each in (first, second))
    shared = first[0].tokens // 64
    assert blocks[:shared] == others[:shared]
    assert blocks[shared] != others[shared]


def test_estimates_are_wrong_as_much_as_said() -> None:
    """The factor is lognormal: some apps are taken for half or twice of what they are."""
    seen = EstimatedCounts(1)
    logs = [math.log(prompt_tokens(seen(prompt((app, 100_000)))) / 100_000) for app in range(4_000)]
    assert fmean(logs) == pytest.approx(0, abs=0.02)
    assert stdev(logs) == pytest.approx(math.hypot(APP_SIGMA, TEXT_SIGMA), rel=0.05)


def test_texts_of_an_app_are_wrong_together() -> None:
    """They differ from one another by less than apps do."""
    seen = EstimatedCounts(1)
    app = [segment.tokens for segment in seen(prompt(*((key, 10_000) for key in range(500))))]
    logs = [math.log(tokens / app[0]) for tokens in app]
    assert stdev(logs) == pytest.approx(TEXT_SIGMA, rel=0.15)


def test_nothing_becomes_of_nothing() -> None:
    """An empty prompt stays one; a short text never vanishes; roles stay."""
    seen = EstimatedCounts(1)
    assert seen(()) == ()
    assert all(seen((Segment(key, 1),))[0].tokens >= 1 for key in range(100))
    assert seen((Segment(1, 50, "system"),))[0].role == "system"
