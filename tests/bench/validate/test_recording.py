"""Recorded runs are found and read; what is wrong with one is said."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from bench.engine import find_profile
from bench.validate.facts import FactsError
from bench.validate.recording import RecordingError, bundled_recordings, find_recordings
from bench.workload.lines import BadLine
from tests.bench.validate.runs import META, write_run

PROFILE = find_profile("h100-llama-8b", request_s=0.0, request_token_s=0.0)


def nothing_is_left_out(reason: str) -> None:
    raise AssertionError(reason)


def test_a_run_is_read_with_its_clocks_brought_together(tmp_path: Path) -> None:
    """Times count from the first arrival, though arrivals and tokens are on two clocks."""
    sequences = write_run(tmp_path, PROFILE)
    (recording,) = find_recordings([tmp_path], nothing_is_left_out)
    begun_s = sequences[0].arrived_s
    for each, sequence in zip(recording.requests, sequences, strict=True):
        assert each.arrived_s == pytest.approx(sequence.arrived_s - begun_s, abs=1e-5)
        assert each.ttft_s == pytest.approx(sequence.ttft_s, abs=1e-5)
        assert each.itl_s == pytest.approx(sequence.itl_s, abs=1e-6)
    assert recording.facts.device == "NVIDIA H100 80GB HBM3"
    assert recording.facts.max_num_seqs == 64


def test_names_with_dots_and_directories_deep_below(tmp_path: Path) -> None:
    """`X_requests.jsonl` has its facts in `X_meta.json`; in a tree the directories are the name."""
    flat, deep = tmp_path / "flat", tmp_path / "H100" / "Llama-3.1-8B" / "vllm"
    for directory in (flat, deep):
        directory.mkdir(parents=True)
    write_run(flat, PROFILE, prefix="A100_Llama-3.1-8B_", requests=3)
    write_run(deep, PROFILE, requests=3)
    packed = deep / "requests.jsonl.xz"
    packed.write_bytes(lzma.compress((deep / "requests.jsonl").read_bytes()))
    (deep / "requests.jsonl").unlink()
    found = find_recordings([tmp_path], nothing_is_left_out)
    assert [each.name for each in found] == ["H100_Llama-3.1-8B", "A100_Llama-3.1-8B"]
    assert [each.facts.model for each in found] == 2 * [META["model"]]


def test_requests_that_failed_are_left_out_and_told(tmp_path: Path) -> None:
    """They are in no figure, and the reason names them."""
    write_run(tmp_path, PROFILE, requests=4)
    file = tmp_path / "requests.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["first_token_ts"] = None
    lines[2]["output_toks"] = None
    file.write_text("\n".join(map(json.dumps, lines)))
    told: list[str] = []
    (recording,) = find_recordings([file], told.append)
    assert [each.number for each in recording.requests] == [0, 3]
    assert told == [
        f"{recording.name}: request 1: no stamp of its first or last token",
        f"{recording.name}: request 2: {lines[2]['input_toks']} input and 0 output tokens",
    ]


def test_a_token_before_its_request_is_in_no_figure(tmp_path: Path) -> None:
    """The stamp is wrong, or nothing tells how far the clocks of arrivals and tokens are apart."""
    write_run(tmp_path, PROFILE, requests=3)
    file = tmp_path / "requests.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["first_token_ts"] = 4000.0
    file.write_text("\n".join(map(json.dumps, lines)))
    told: list[str] = []
    (recording,) = find_recordings([file], told.append)
    assert [each.number for each in recording.requests] == [0, 2]
    assert len(told) == 1
    assert "request 1: its first token comes 1000." in told[0]
    for line in lines:
        del line["queued_ts"]
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(RecordingError, match=r"was served .*without queued_ts nothing tells"):
        find_recordings([file], nothing_is_left_out)


def test_a_queue_stamp_of_zero_is_none(tmp_path: Path) -> None:
    """An engine writes 0 for what it did not stamp: that is no distance between two clocks."""
    write_run(tmp_path, PROFILE, requests=3)
    file = tmp_path / "requests.jsonl"
    (before,) = find_recordings([file], nothing_is_left_out)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["queued_ts"] = 0.0
    file.write_text("\n".join(map(json.dumps, lines)))
    (recording,) = find_recordings([file], nothing_is_left_out)
    for each, same in zip(recording.requests, before.requests, strict=True):
        assert each.ttft_s == pytest.approx(same.ttft_s, abs=1e-5)


def test_without_wall_clock_the_queue_stamp_is_the_arrival(tmp_path: Path) -> None:
    """Ids without distinct numbers are taken in the order of the lines."""
    file = tmp_path / "requests.jsonl"
    line = {"request_id": "x-0", "input_toks": 5, "output_toks": 2, "queued_ts": 7.0}
    lines = [{**line, "first_token_ts": 7.5 + i, "last_token_ts": 8.0 + i} for i in range(2)]
    file.write_text("\n".join(map(json.dumps, lines)))
    (recording,) = find_recordings([file], nothing_is_left_out)
    assert [(each.number, each.ttft_s) for each in recording.requests] == [(0, 0.5), (1, 1.5)]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A directory without a run, a malformed line, a run without answers, a broken meta.json."""
    with pytest.raises(RecordingError, match=r"no recorded run in it"):
        find_recordings([tmp_path], nothing_is_left_out)
    file = tmp_path / "requests.jsonl"
    file.write_text('{"input_toks": 1, "output_toks": 0}\n{"input_toks": 1}\n')
    with pytest.raises(BadLine, match=r"requests\.jsonl:2: .*output_toks"):
        find_recordings([file], nothing_is_left_out)
    file.write_text('{"input_toks": 1, "output_toks": 0}\n')
    with pytest.raises(RecordingError, match=r"requests\.jsonl: no request in it was served"):
        find_recordings([file], nothing_is_left_out)
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(FactsError, match=r"meta\.json"):
        find_recordings([file], nothing_is_left_out)


def test_there_is_at_least_one_engine(tmp_path: Path) -> None:
    """-1, by which some files mean "as usual", is no number of engines."""
    write_run(tmp_path, PROFILE, requests=3)
    (tmp_path / "meta.json").write_text('{"engine_kwargs": {"data_parallel_size": -1}}')
    (recording,) = find_recordings([tmp_path], nothing_is_left_out)
    assert recording.facts.data_parallel == 1


def test_bundled_runs_are_complete() -> None:
    """Four runs of 300 requests each."""
    assert [(each.name, len(each.requests)) for each in bundled_recordings()] == [
        ("rtx4090", 300),
        ("rtxpro6000", 300),
        ("rtxpro6000-qwen3-32b", 300),
        ("rtxpro6000-qwen3-30b-a3b", 300),
    ]
