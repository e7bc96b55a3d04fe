"""Formats of traces, told by the first line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.workload.data import bundled
from bench.workload.lines import BadLine
from bench.workload.traces import TraceOptions, read_trace, trace_format


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("conversation", "mooncake"),
        ("azure-conv", "azure"),
        ("coding-agent", "weka"),
        ("skewed-tenants", "servegen"),
        ("sharegpt300", "mooncake"),
    ],
)
def test_the_bundled_traces_are_recognised(name: str, form: str) -> None:
    """Each by its own first line, and read by the reader for it."""
    assert trace_format(bundled(name)) == form
    assert read_trace(bundled(name)).name == form


def test_burstgpt_is_recognised(tmp_path: Path) -> None:
    """By its columns."""
    trace = tmp_path / "burst.csv"
    trace.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n")
    assert trace_format(trace) == "burstgpt"


@pytest.mark.parametrize("text", ["{", '{"text": "a"}', "a,b\n1,2", "\x00\xff", "", "\n\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file, and what could have been there."""
    trace = tmp_path / "what.jsonl"
    trace.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadLine, match=r"what\.jsonl:1: (no trace of a known format|the file is)"):
        read_trace(trace)


def test_a_format_can_be_given(tmp_path: Path) -> None:
    """An unknown one is named with the known ones."""
    with pytest.raises(ValueError, match="'cooncake'; known are mooncake"):
        read_trace(bundled("conversation"), form="cooncake")
    assert read_trace(bundled("conversation"), TraceOptions(limit=1), "mooncake").name == "mooncake"
