"""Each client is asked for the same load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.clients.aiperf import aiperf_command
from bench.clients.genai_perf import genai_perf_command
from bench.clients.guidellm import guidellm_command
from bench.clients.locust import locust_command, locust_environment
from bench.clients.own import own_command
from bench.clients.result import Load
from bench.clients.server import Seen, samples

LOAD = Load(concurrency=6, requests=77, warmup_requests=8, input_tokens=333, output_tokens=44)
URL = "http://127.0.0.1:1234"
OUT = Path("out")
PROGRAM = Path("program")


@pytest.mark.parametrize(
    "command",
    [
        own_command(LOAD, URL, OUT),
        aiperf_command(PROGRAM, LOAD, URL, "triolet/pieces", OUT),
        genai_perf_command(PROGRAM, LOAD, URL, "tokenizer", OUT),
    ],
)
def test_shared_flags_say_the_load(command: list[str]) -> None:
    """GenAI-Perf's flags, which AIPerf and ours share."""
    for flag, value in (
        ("--url", URL),
        ("--concurrency", "6"),
        ("--request-count", "77"),
        ("--warmup-request-count", "8"),
        ("--synthetic-input-tokens-mean", "333"),
        ("--synthetic-input-tokens-stddev", "0"),
        ("--output-tokens-mean", "44"),
        ("--output-tokens-stddev", "0"),
        ("--extra-inputs", "ignore_eos:true"),
        ("--artifact-dir", "out"),
    ):
        assert command[command.index(flag) + 1] == value
    assert "--streaming" in command


def test_guidellm_counts_warmup_into_the_requests() -> None:
    """So that as many are measured as with the others."""
    command = guidellm_command(PROGRAM, LOAD, URL, "tokenizer", OUT)
    assert "kind=max_requests,count=85" in command
    assert "kind=concurrent,streams=6,warmup=8" in command
    assert "kind=synthetic_text,prompt_tokens=333,output_tokens=44" in command


def test_locust_warms_up_by_user() -> None:
    """Eight requests by six users are two rounds."""
    command = locust_command(PROGRAM, LOAD, URL, OUT)
    assert command[command.index("--users") + 1] == "6"
    assert Path(command[command.index("--locustfile") + 1]).is_file()
    settings = locust_environment(LOAD)
    assert settings["LOCUST_CHAT_WARMUP"] == "2"
    assert settings["LOCUST_CHAT_REQUESTS"] == "77"
    assert settings["LOCUST_CHAT_OUTPUT_TOKENS"] == "44"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Load(concurrency=0),
        lambda: Load(requests=0),
        lambda: Load(warmup_requests=0),
        lambda: Load(output_tokens=-1),
    ],
)
def test_load_out_of_range_is_refused(wrong: Callable[[], Load]) -> None:
    """The field is named."""
    with pytest.raises(ValueError, match="expected 1 or more"):
        wrong()


def test_replica_metrics_are_summed() -> None:
    """All ways of ending count, and labels do not matter."""
    page = (
        "# HELP vllm:request_success_total Requests by how they ended.\n"
        'vllm:request_success_total{engine="0",finished_reason="length"} 5.0\n'
        'vllm:request_success_total{engine="0",finished_reason="abort"} 2.0\n'
        'vllm:time_to_first_token_seconds_sum{engine="0"} 0.35\n'
        'vllm:time_to_first_token_seconds_count{engine="0"} 7.0\n'
        'vllm:e2e_request_latency_seconds_bucket{le="0.5"} 7.0\n'
        "process_cpu_seconds_total 3.0\n"
    )
    seen = samples(page)
    assert (seen.requests, seen.ttft_s, seen.ttft_count, seen.latency_count) == (7, 0.35, 7, 0)
    assert seen.since(Seen(1, 0.05, 1, 0, 0, 0, 0)).requests == 6
