"""Stamps of traces as due times: windows, speed, jitter, order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.workload.lines import BadLine, BadLineCount
from bench.workload.model import Segment, Session
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.timed import Timed, rounding_step_s, timed_sessions


def parse(line: bytes) -> Timed:
    return Timed(float(line), (Segment(1, 1),), 1)


def replay(file: Path, stamps: list[float], **options: Any) -> list[Session]:
    file.write_text("\n".join(map(str, stamps)))
    sessions = timed_sessions(file, lambda: parse, TraceOptions(**options))
    made = list(sessions)
    assert list(sessions) == made
    return made


def due(file: Path, stamps: list[float], **options: Any) -> list[float | None]:
    return [session.turns[0].due_s for session in replay(file, stamps, **options)]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def test_due_times_count_from_the_first_request(trace: Path) -> None:
    """Whatever origin the stamps have; divided by the speedup."""
    assert due(trace, [100, 101, 104]) == [0.0, 1.0, 4.0]
    assert due(trace, [100, 101, 104], speedup=2) == [0.0, 0.5, 2.0]


def test_offsets_cut_a_window_out_and_begin_there(trace: Path) -> None:
    """Both ends belong to it; time starts at its beginning."""
    stamps: list[float] = [10, 11, 12, 13, 14]
    assert due(trace, stamps, start_offset_s=1, end_offset_s=3) == [0.0, 1.0, 2.0]
    assert due(trace, stamps, start_offset_s=1, limit=2) == [0.0, 1.0]


def test_a_stamp_that_goes_back_is_a_malformed_line(trace: Path) -> None:
    """Sessions must come in the order of time."""
    with pytest.raises(BadLine, match="trace:3: the time stamp lies 1 s before"):
        due(trace, [1, 3, 2, 4])
    skipped = BadLineCount()
    assert due(trace, [1, 3, 2, 4], bad_lines="skip", on_bad_line=skipped) == [0.0, 2.0, 3.0]
    assert skipped.count == 1


def test_a_stamp_must_be_a_number(trace: Path) -> None:
    """Not NaN, not infinite."""
    with pytest.raises(BadLine, match="trace:1: the time stamp is not a finite number"):
        due(trace, [float("nan")])


@pytest.mark.parametrize(
    ("stamps", "step"),
    [
        ([], 0.0),
        ([1.0] * 9, 0.0),
        ([0.0, 0.0, 1.0, 2.5], 0.0),
        ([0.0] * 10 + [3.0] * 10 + [6.001] * 10, 3.0005),
    ],
)
def test_rounded_stamps_are_recognised_by_coinciding(stamps: list[float], step: float) -> None:
    """Three to a stamp on average; exact arrivals do not coincide."""
    assert rounding_step_s(stamps) == pytest.approx(step)


def test_rounded_stamps_are_spread_over_their_step(trace: Path) -> None:
    """Twenty requests at each of two stamps become forty moments in 6 seconds."""
    spread = [at for at in due(trace, [0.0] * 20 + [3.0] * 20) if at is not None]
    assert spread == sorted(spread)
    assert len(set(spread)) == 40
    assert max(spread) < 6.0
    assert sum(at < 3.0 for at in spread) == 20
    assert due(trace, [0.0] * 20 + [3.0] * 20, jitter_s=0) == [0.0] * 20 + [3.0] * 20
    assert due(trace, [0.0] * 20 + [3.0] * 20, seed=1) != spread


@pytest.mark.slow
@given(
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=40),
    jitter_s=st.floats(0, 20),
    seed=st.integers(0, 5),
)
def test_jitter_loses_nothing_and_keeps_the_order(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[float], jitter_s: float, seed: int
) -> None:
    """Every request comes once, in time order, at most the jitter later than its stamp."""
    stamps = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    file = tmp_path_factory.getbasetemp() / "jittered"
    moved = [at for at in due(file, stamps, jitter_s=jitter_s, seed=seed) if at is not None]
    assert moved == sorted(moved)
    assert len(moved) == len(stamps)
    for at, stamp in zip(moved, stamps, strict=True):
        assert stamp - stamps[0] - 1e-6 <= at <= stamps[-1] - stamps[0] + jitter_s + 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"speedup": 0},
        {"limit": 0},
        {"start_offset_s": -1},
        {"start_offset_s": 2, "end_offset_s": 1},
        {"jitter_s": -1},
        {"block_tokens": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """When they are made, not in the middle of a run."""
    with pytest.raises(ValueError):
        TraceOptions(**options)
