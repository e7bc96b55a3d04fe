"""Traces of stamps and lengths: Azure, BurstGPT, ServeGen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.workload.data import bundled
from bench.workload.lines import BadLine
from bench.workload.model import Session, Workload, prompt_tokens
from bench.workload.reuse import reuse
from bench.workload.traces.azure import azure, burstgpt
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.servegen import servegen

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
SKIP = TraceOptions(bad_lines="skip")


def lengths(sessions: list[Session]) -> list[tuple[float | None, int, int]]:
    return [
        (turn.due_s, prompt_tokens(turn.prompt), turn.output_tokens)
        for session in sessions
        for turn in session.turns
    ]


def made(workload: Workload) -> list[Session]:
    first = list(workload.sessions)
    assert list(workload.sessions) == first
    return first


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def test_azures_dates_are_times(trace: Path) -> None:
    """Seven digits of a second, with or without a zone, whatever the order of the columns."""
    trace.write_text(
        "\ufeffContextTokens,TIMESTAMP,GeneratedTokens\r\n"
        "374,2023-11-16 18:15:46.6805900,44\r\n396,2023-11-16 18:15:48.1805900+00:00,109\r\n",
    )
    assert lengths(made(azure(trace))) == [(0.0, 374, 44), (pytest.approx(1.5), 396, 109)]


def test_burstgpts_seconds_are_times(trace: Path) -> None:
    """Its failed requests, with no answer, are not replayed."""
    trace.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n"
        "118,GPT-4,417,276,693,API log\n"
    )
    assert lengths(made(burstgpt(trace, SKIP))) == [(0.0, 472, 18), (113.0, 417, 276)]


def test_servegens_clients_are_tenants(trace: Path) -> None:
    """Each request is its client's."""
    trace.write_text("t,client,input_tokens,output_tokens\n0.5,27,52,4\n0.75,36,266,19\n")
    sessions = made(servegen(trace))
    assert lengths(sessions) == [(0.0, 52, 4), (0.25, 266, 19)]
    assert [session.tenant for session in sessions] == ["client-27", "client-36"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2023-11-16 18:15:46,1", "2 values where the heading has 3"),
        ("yesterday,1,1", "Invalid isoformat"),
        ("2023-11-16 18:15:46,x,1", "ContextTokens is not a whole number: 'x'"),
        ("2023-11-16 18:15:46,1,0", "GeneratedTokens must be 1 or more"),
        ("2023-11-16 18:15:44,1,1", "the time stamp lies 1 s before"),
    ],
)
def test_a_malformed_line_is_named_or_skipped(trace: Path, line: str, reason: str) -> None:
    """By file and line, the heading being line 1."""
    trace.write_text(f"{AZURE}2023-11-16 18:15:45,1,1\n{line}\n2023-11-16 18:15:47,2,2\n")
    with pytest.raises(BadLine, match=rf"trace\.csv:3: {reason}"):
        made(azure(trace))
    assert lengths(made(azure(trace, SKIP))) == [(0.0, 1, 1), (2.0, 2, 2)]


def test_a_file_with_other_columns_is_refused_even_when_skipping(trace: Path) -> None:
    """Not read as an empty trace."""
    trace.write_text("TIMESTAMP,Tokens\n2023-11-16 18:15:46,1\n")
    with pytest.raises(BadLine, match="1: the heading has no column ContextTokens"):
        made(azure(trace, SKIP))


@pytest.mark.slow
def test_the_azure_trace_is_whole_and_shares_nothing() -> None:
    """19,366 requests in 3,502 seconds, 1,155 tokens in and 211 out on average."""
    rows = lengths(list(azure(bundled("azure-conv")).sessions))
    assert len(rows) == 19_366
    assert rows[-1][0] == pytest.approx(3502, abs=1)
    assert sum(asked for _, asked, _ in rows) / len(rows) == pytest.approx(1155, abs=1)
    assert sum(answered for _, _, answered in rows) / len(rows) == pytest.approx(211, abs=1)
    assert reuse(azure(bundled("azure-conv"))).reused_tokens == 0


@pytest.mark.slow
def test_the_servegen_sample_is_skewed() -> None:
    """14,542 requests in half an hour, 30 % of them from one of many clients."""
    sessions = list(servegen(bundled("skewed-tenants")).sessions)
    assert len(sessions) == 14_542
    [(_, most)] = Counter(session.tenant for session in sessions).most_common(1)
    assert most / len(sessions) == pytest.approx(0.302, abs=0.001)
