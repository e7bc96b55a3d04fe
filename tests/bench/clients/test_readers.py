"""Result files of real runs, cut down to what is read: 120 requests, 4 at once, 50 tokens each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.clients.aiperf import read_aiperf
from bench.clients.genai_perf import read_genai_perf
from bench.clients.guidellm import read_guidellm
from bench.clients.locust import read_locust
from bench.clients.own import read_own
from bench.clients.result import ClientFailed, Result

RECORDED = Path(__file__).parent / "recorded"
ASKED = 120

Read = Callable[[Path], Result]

READERS: list[tuple[str, str, Read]] = [
    ("aiperf.json", "profile_export_aiperf.json", read_aiperf),
    (
        "genai_perf.json",
        "demo-openai-chat-concurrency4/profile_export_genai_perf.json",
        lambda out: read_genai_perf(out, ASKED),
    ),
    ("guidellm.json", "benchmarks.json", read_guidellm),
    ("locust.json", "locust.json", read_locust),
    ("own.json", "profile_export_aiperf.json", read_own),
]


def recorded(name: str) -> Any:
    """The content of a recorded file."""
    return json.loads((RECORDED / name).read_text())


def read(content: Any, file: str, reader: Read, place: Path) -> Result:
    """What `reader` makes of `content` where its tool would have put it."""
    target = place / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content))
    return reader(place)


@pytest.mark.parametrize(("name", "file", "reader"), READERS)
def test_recorded_run_is_read(name: str, file: str, reader: Read, tmp_path: Path) -> None:
    """All figures are found, in milliseconds and per second, as that steady server gives them."""
    result = read(recorded(name), file, reader, tmp_path)
    times = result.times
    assert 115 <= result.sent <= ASKED
    assert result.errors == 0
    assert result.output_tokens_avg == 50
    for ttft in (times.ttft_avg_ms, times.ttft_p50_ms, times.ttft_p99_ms):
        assert ttft is not None
        assert 50 <= ttft <= 120
    for itl in (times.itl_avg_ms, times.itl_p50_ms):
        assert itl == pytest.approx(10, rel=0.05)
    for latency in (times.latency_avg_ms, times.latency_p50_ms, times.latency_p99_ms):
        assert latency == pytest.approx(545, rel=0.15)
    assert result.requests_per_s == pytest.approx(7.2, rel=0.05)
    assert result.tokens_per_s == pytest.approx(360, rel=0.05)


@pytest.mark.parametrize(("name", "file", "reader"), READERS)
def test_missing_or_broken_file_is_named(
    name: str, file: str, reader: Read, tmp_path: Path
) -> None:
    """A run without result, or with half a one, fails with the file's name."""
    with pytest.raises(ClientFailed, match=tmp_path.name):
        reader(tmp_path)
    target = tmp_path / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text('{"half":')
    with pytest.raises(ClientFailed, match=target.name):
        reader(tmp_path)


def test_guidellm_time_per_output_token_is_not_its_itl(tmp_path: Path) -> None:
    """The figure that includes the time to the first token is left alone."""
    content = recorded("guidellm.json")
    metrics = content["benchmarks"][0]["metrics"]
    result = read(content, "benchmarks.json", read_guidellm, tmp_path)
    assert result.times.itl_avg_ms == metrics["inter_token_latency_ms"]["successful"]["mean"]
    assert metrics["time_per_output_token_ms"]["successful"]["mean"] > 10.8


def test_guidellm_requests_follow_from_its_tokens(tmp_path: Path) -> None:
    """Its own rate counts requests that began before the measured time."""
    content = recorded("guidellm.json")
    metrics = content["benchmarks"][0]["metrics"]
    result = read(content, "benchmarks.json", read_guidellm, tmp_path)
    tokens_per_s = metrics["output_tokens_per_second"]["successful"]["mean"]
    assert result.requests_per_s == pytest.approx(tokens_per_s / 50)
    assert result.requests_per_s < metrics["requests_per_second"]["successful"]["mean"]


def test_guidellm_counts_incomplete_requests_as_failed(tmp_path: Path) -> None:
    """What errored and what was not finished are both failures."""
    content = recorded("guidellm.json")
    totals = {"successful": 90, "errored": 20, "incomplete": 10, "total": 120}
    content["benchmarks"][0]["metrics"]["request_totals"] = totals
    result = read(content, "benchmarks.json", read_guidellm, tmp_path)
    assert (result.sent, result.errors) == (120, 30)


def test_genai_perf_requests_that_vanished_are_failures(tmp_path: Path) -> None:
    """It leaves failed requests out of its file: what is missing to the number asked for failed."""
    content = recorded("genai_perf.json")
    content["request_count"]["avg"] = 100
    result = read(content, READERS[1][1], READERS[1][2], tmp_path)
    assert (result.sent, result.errors) == (120, 20)


@pytest.mark.parametrize(("name", "file", "reader"), [READERS[0], READERS[4]])
def test_cancelled_run_is_no_result(name: str, file: str, reader: Read, tmp_path: Path) -> None:
    """A run that was stopped by hand is not compared."""
    with pytest.raises(ClientFailed, match="cancelled"):
        read(recorded(name) | {"was_cancelled": True}, file, reader, tmp_path)


def test_own_unfinished_requests_are_failures(tmp_path: Path) -> None:
    """Everything sent and not completed counts as failed."""
    content = recorded("own.json") | {"request_count": {"avg": 118}}
    result = read(content, READERS[4][1], read_own, tmp_path)
    assert (result.sent, result.errors) == (120, 2)


def test_aiperf_failures_are_counted(tmp_path: Path) -> None:
    """A file of a run in which every request failed has no successful request at all."""
    content = {"completed_request_count": {"avg": 120.0}, "was_cancelled": False}
    result = read(content, READERS[0][1], read_aiperf, tmp_path)
    assert (result.sent, result.errors, result.times.ttft_avg_ms) == (120, 120, None)


def entry(name: str, counts: dict[str, int], **more: object) -> dict[str, object]:
    """One line of Locust's statistics."""
    timed = sum(counts.values())
    return {
        "name": name,
        "num_requests": timed,
        "num_failures": 0,
        "total_response_time": sum(float(value) * count for value, count in counts.items()),
        "response_times": counts,
        "start_time": 100.0,
        "last_request_timestamp": 110.0,
        **more,
    }


def test_locust_failures_have_no_time(tmp_path: Path) -> None:
    """Failed requests count as sent and as failed, but neither for times nor for rates."""
    content = [
        entry("full", {"540": 60, "550": 39, "900": 1}, num_requests=110, num_failures=10),
        entry("first text", {"53": 50, "54": 50}),
        entry("between tokens", {"10": 100}),
        entry("output tokens", {"50": 100}),
    ]
    result = read(content, "locust.json", read_locust, tmp_path)
    assert (result.sent, result.errors) == (110, 10)
    assert (result.times.latency_p50_ms, result.times.latency_p99_ms) == (540, 550)
    assert result.times.ttft_p50_ms == 53
    assert (result.requests_per_s, result.tokens_per_s) == (10, 500)


def test_locust_run_without_requests_is_no_result(tmp_path: Path) -> None:
    """Statistics without the one entry that every request makes are refused."""
    with pytest.raises(ClientFailed, match="no request"):
        read([], "locust.json", read_locust, tmp_path)


@pytest.mark.parametrize("wrong", ["53", True, [53]])
def test_number_of_a_wrong_type_is_refused(wrong: object, tmp_path: Path) -> None:
    """A figure that is no number is named, not guessed at."""
    content = recorded("aiperf.json") | {"request_throughput": {"avg": wrong}}
    with pytest.raises(ClientFailed, match=r"request_throughput\.avg"):
        read(content, READERS[0][1], read_aiperf, tmp_path)
