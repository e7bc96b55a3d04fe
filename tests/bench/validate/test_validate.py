"""`triolet bench validate`: what an engine has done is predicted, and constants are found again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bench.engine import Profile, find_profile
from bench.engine.profile import read_profile
from bench.validate.command import validate
from bench.validate.described import describe
from bench.validate.errors import compare
from bench.validate.fit import fit, misfit
from bench.validate.prompts import find_prompts
from bench.validate.recording import Recording, RecordingError, find_recordings
from bench.validate.replay import replay
from tests.bench.validate.runs import write_run

PROFILE = find_profile(
    "h100-llama-8b",
    request_s=0.0,
    request_token_s=0.0,
    max_num_seqs=64,
    max_num_batched_tokens=2048,
)


def one_run(directory: Path) -> Recording:
    (recording,) = find_recordings([directory], print)
    return recording


def test_a_run_of_the_simulator_itself_is_predicted_exactly(tmp_path: Path) -> None:
    """No error at all, shared prefixes included, when profile and workload are those of the run."""
    sequences = write_run(tmp_path, PROFILE)
    recording = one_run(tmp_path)
    prompts = find_prompts(recording, None)
    assert prompts.source == "workload.jsonl"
    found = replay(recording, prompts, describe(recording.facts).profile, 1)
    assert found.cached_tokens == sum(each.cached_tokens for each in sequences) > 0
    comparison = compare(recording.requests, found.requests)
    assert comparison.median_error < 1e-4
    assert max(abs(figure.error) for figure in comparison.figures) < 1e-3
    assert len(comparison.figures) == 13


def test_without_its_workload_nothing_is_shared(tmp_path: Path) -> None:
    """And a workload that is not the run's is refused, with the first request that differs."""
    write_run(tmp_path, PROFILE, requests=5)
    (tmp_path / "workload.jsonl").rename(tmp_path / "other.txt")
    recording = one_run(tmp_path)
    prompts = find_prompts(recording, None)
    assert prompts.source == "no workload found: no prompt shares anything"
    assert replay(recording, prompts, PROFILE, 1).cached_tokens == 0
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(
        (tmp_path / "other.txt").read_text().replace('"input_length": ', '"input_length": 1')
    )
    with pytest.raises(RecordingError, match=r"row 1 of wrong\.jsonl has \d+: not the workload"):
        find_prompts(recording, wrong)
    wrong.write_text((tmp_path / "other.txt").read_text().splitlines()[0])
    with pytest.raises(RecordingError, match=r"request 1 is in no row of wrong\.jsonl"):
        find_prompts(recording, wrong)


def test_token_ids_share_as_blocks_do(tmp_path: Path) -> None:
    """Two prompts share the whole blocks up to the first token that differs."""
    write_run(tmp_path, PROFILE, requests=2)
    recording = one_run(tmp_path)
    lengths = [each.input_tokens for each in recording.requests]
    rows = [
        {"input_toks": n, "input_tok_ids": [*range(40), *range(1000 * n, 1000 * n + n - 40)]}
        for n in lengths
    ]
    file = tmp_path / "tokens.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    prompts = find_prompts(recording, file)
    first, second = (prompts.of(i, lengths[i]) for i in range(2))
    assert [a == b for a, b in zip(first, second, strict=False)][:4] == [True, True, False, False]
    assert [sum(segment.tokens for segment in each) for each in (first, second)] == lengths


def test_several_engines_share_the_load(tmp_path: Path) -> None:
    """Two engines behind the balancer are faster than one, and serve all of it."""
    write_run(tmp_path, msgspec.structs.replace(PROFILE, max_num_seqs=2))
    recording = one_run(tmp_path)
    prompts = find_prompts(recording, None)
    slow = msgspec.structs.replace(PROFILE, max_num_seqs=2)
    one, two = (replay(recording, prompts, slow, engines) for engines in (1, 2))
    assert max(each.last_token_s for each in two.requests) < 0.7 * max(
        each.last_token_s for each in one.requests
    )


def test_fitting_finds_constants_again(tmp_path: Path) -> None:
    """A run of an engine 30 % slower to read weights and 20 % to compute: both come out."""
    truth = msgspec.structs.replace(
        PROFILE, weights_s=1.3 * PROFILE.weights_s, token_s=1.2 * PROFILE.token_s
    )
    write_run(tmp_path, truth)
    recording = one_run(tmp_path)
    prompts = find_prompts(recording, None)

    def predict(profile: Profile) -> list[object]:
        return list(replay(recording, prompts, profile, 1).requests)

    fitted = fit(PROFILE, recording.requests, predict)  # type: ignore[arg-type]
    assert fitted.weights_s == pytest.approx(truth.weights_s, rel=0.04)
    assert fitted.token_s == pytest.approx(truth.token_s, rel=0.15)
    before = misfit(recording.requests, replay(recording, prompts, PROFILE, 1).requests)
    after = misfit(recording.requests, replay(recording, prompts, fitted, 1).requests)
    assert after < 0.1 * before


def test_the_bundled_runs_are_predicted_within_the_aims() -> None:
    """Untuned: each run's median error is below 15 %, and that of all together below 5 %."""
    outcome = CliRunner().invoke(validate, [])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.count("untuned: median absolute error of the figures") == 4
    medians = [
        float(line.split("figures ")[1].split("%")[0])
        for line in outcome.output.splitlines()
        if "untuned: median" in line
    ]
    assert max(medians) < 15
    assert "over all figures of 4 runs" in outcome.output
    assert "rtx4090: 300 requests, profile rtx4090-llama-8b" in outcome.output


def test_command_calibrates_and_writes_json(tmp_path: Path) -> None:
    """The held-out half and all requests are judged; the printed profile can be read back."""
    write_run(tmp_path, msgspec.structs.replace(PROFILE, weights_s=1.2 * PROFILE.weights_s))
    results = tmp_path / "results.json"
    outcome = CliRunner().invoke(
        validate, [str(tmp_path), "--calibrate", "--markdown", "--json", str(results)]
    )
    assert outcome.exit_code == 0, outcome.output
    (run,) = json.loads(results.read_text())["runs"]
    assert run["untuned"]["median_error"] > 0.1
    assert run["held_out"]["median_error"] < 0.03
    assert run["calibrated"]["median_error"] < 0.02
    assert "| time_to_first_token p90, ms |" in outcome.output
    printed = outcome.stdout[outcome.stdout.index("\n{\n") :]
    file = tmp_path / "mine.json"
    file.write_text(printed)
    assert read_profile(file) == msgspec.json.decode(
        json.dumps(run["calibrated_profile"]), type=Profile
    )
    again = CliRunner().invoke(validate, [str(tmp_path), "--profile", str(file)])
    assert "untuned: median absolute error of the figures 0." in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "h100-lama-8b"], "no profile 'h100-lama-8b'"),
        (["--profile", "none.json"], "none.json: No such file"),
    ],
)
def test_command_errors(tmp_path: Path, arguments: list[str], message: str) -> None:
    """One line, exit code 1."""
    write_run(tmp_path, PROFILE, requests=2)
    outcome = CliRunner().invoke(validate, [str(tmp_path), *arguments])
    assert outcome.exit_code == 1
    assert f"Error: {message}" in outcome.output


def test_a_request_too_long_for_the_profile_is_named(tmp_path: Path) -> None:
    """With its number and what there is room for."""
    write_run(tmp_path, PROFILE, requests=3)
    outcome = CliRunner().invoke(validate, [str(tmp_path), "--profile", "h100-llama-8b"])
    assert outcome.exit_code == 0, outcome.output
    meta = json.loads((tmp_path / "meta.json").read_text())
    meta["kv_cache"] = {"num_gpu_blocks": 11}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    outcome = CliRunner().invoke(validate, [str(tmp_path)])
    assert outcome.exit_code == 1
    assert "has room for 160" in outcome.output


def test_a_run_that_is_not_modelled_spoils_no_other(tmp_path: Path) -> None:
    """The others are predicted; what is left out is told, and the exit code says so too."""
    for gpu in ("H100", "MI300X"):
        directory = tmp_path / gpu / "Llama-3.1-8B"
        directory.mkdir(parents=True)
        write_run(directory, PROFILE, requests=3)
    meta = tmp_path / "MI300X" / "Llama-3.1-8B" / "meta.json"
    meta.write_text(json.dumps({"model": "meta-llama/Llama-3.1-8B-Instruct"}))
    outcome = CliRunner().invoke(validate, [str(tmp_path)])
    assert outcome.exit_code == 1
    assert "over all figures of 1 runs" in outcome.stdout
    assert "left out: MI300X_Llama-3.1-8B: which GPU it ran on" in outcome.stderr
    assert "Error: runs left out: 1" in outcome.stderr
