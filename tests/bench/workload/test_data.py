"""The data that comes with the package."""

from __future__ import annotations

import hashlib
import lzma
import re
from pathlib import Path

import pytest

from bench.workload.data import BUNDLED, bundled
from bench.workload.groundtruth import (
    GROUND_TRUTH_RUNS,
    ground_truth_workload,
    linear_steps,
    measured_run,
)
from bench.workload.model import prompt_tokens
from bench.workload.reuse import reuse

DATA = Path(__file__).parents[3] / "bench" / "data"


def test_every_file_has_the_digest_the_readme_states() -> None:
    """The copies are what their origin published, and none is missing from the list."""
    stated = dict(
        re.findall(r"^\| `(\S+)` \| ([0-9a-f]{64}) \|$", (DATA / "README.md").read_text(), re.M)
    )
    found = {
        file.stem: hashlib.sha256(lzma.decompress(file.read_bytes())).hexdigest()
        for file in DATA.rglob("*.xz")
    }
    assert stated == found


def test_the_data_is_small_and_all_of_it_has_a_name() -> None:
    """Below 3 MB; no file that nothing can open."""
    files = {file for file in DATA.rglob("*") if file.is_file()}
    assert sum(file.stat().st_size for file in files) < 3_000_000
    named = {DATA / place for place in BUNDLED.values()}
    assert files - named == {DATA / "README.md"}


def test_an_unknown_name_is_refused() -> None:
    """With those that are known."""
    with pytest.raises(ValueError, match="'sharegpt'; there are conversation"):
        bundled("sharegpt")


@pytest.mark.parametrize("name", GROUND_TRUTH_RUNS)
def test_a_measured_run_answers_the_workload(name: str) -> None:
    """Request by request the same lengths, and stamps in their order."""
    run = measured_run(name)
    turns = [session.turns[0] for session in ground_truth_workload().sessions]
    assert len(turns) == len(run.requests) == 300
    for turn, request in zip(turns, run.requests, strict=True):
        assert prompt_tokens(turn.prompt) == request.input_tokens
        assert turn.output_tokens == request.output_tokens
        stamps = request[2:]
        assert list(stamps) == sorted(stamps)
        assert turn.due_s == pytest.approx(request.queued_s, abs=0.5)
    assert run.settings.max_num_batched_tokens == 2048
    assert run.samples[0].at_s == 1.0


def test_the_measured_workload_has_its_published_reuse() -> None:
    """7.6 % at 16-token granularity."""
    assert reuse(ground_truth_workload()).share == pytest.approx(0.076, abs=0.0005)


def test_the_linear_steps_grow_with_the_tokens() -> None:
    """Three tables; the first anchor of the simulator's formula is in them."""
    steps = linear_steps()
    assert len(steps) == 969
    assert len({(step.gpu, step.model) for step in steps}) == 3
    of_256 = next(s for s in steps if s[:3] == ("A100", "Meta-Llama-3-8B", 256))
    assert of_256.step_ms == pytest.approx(19.6, abs=0.2)


def test_an_unknown_run_is_refused() -> None:
    """With those that are known."""
    with pytest.raises(ValueError, match="'h100'; there are rtx4090"):
        measured_run("h100")
