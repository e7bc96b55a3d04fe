"""The whole comparison with real tools, where a cache directory holds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.clients.install import TOOLS

CACHE = os.environ.get("BENCH_CLIENTS_CACHE")
ROOT = Path(__file__).parents[3]
LIMIT_S = 600

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CACHE,
        reason="set BENCH_CLIENTS_CACHE to a directory: it holds, or will hold, the tools",
    ),
]


def names() -> str:
    """Locust, which is small enough to be installed here, and what is installed already."""
    there = [
        tool.name
        for tool in TOOLS.values()
        if (Path(CACHE or "") / "clients" / f"{tool.name}-{tool.version}" / "installed").exists()
    ]
    return ",".join(dict.fromkeys(["locust", *there]))


def test_tools_see_what_ours_sees(tmp_path: Path) -> None:
    """Every tool runs against Triolet offline, loses no request, and confirms our figures.

    Only those that a busy machine cannot spoil: averages that hardly depend on a client's haste.
    """
    start = "from bench.clients.command import clients; clients()"
    options = ["--clients", names(), "--cache-dir", str(CACHE), "--repeat", "1"]
    options += ["--request-count", "24", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(
        [sys.executable, "-c", start, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode in (0, 1), done.stderr
    assert (tmp_path / "found.json").exists(), done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["notes"] == []
    ran = [run["result"] for run in found["runs"]]
    assert {one["client"] for one in ran} == {"triolet bench", *names().split(",")}
    assert [one["errors"] for one in ran] == [0] * len(ran)
    robust = {"itl_avg_ms", "latency_avg_ms", "tokens_per_s", "requests_per_s"}
    off = [
        (one["client"], one["metric"], one["ratio"], one["verdict"])
        for one in found["comparisons"]
        if one["metric"] in robust and one["verdict"] != "agrees"
    ]
    assert off == []
