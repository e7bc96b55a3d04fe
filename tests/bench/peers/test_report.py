"""The table says what was measured, and what was not and why."""

from __future__ import annotations

import json

import pytest

from bench.peers.figures import CellResult, Figures
from bench.peers.registry import PEERS
from bench.peers.report import COLUMNS, Missing, Report
from bench.peers.session import Results
from bench.peers.target import targets_of

NGINX = CellResult(
    target="nginx",
    policy="random",
    repetition=0,
    figures=Figures(ttft_p50_ms=12.34, hit_rate=0.5, skew=1.25, requests_per_s=120.4),
    sent=10,
    completed=9,
    errors={"http_502": 1},
    warnings=["client lag: 3 ms"],
)


def a_report(*cells: CellResult, missing: tuple[Missing, ...] = ()) -> Report:
    return Report(
        machine={"cpu": "some"},
        versions={"nginx": "1.2.3"},
        workers={"nginx": "one worker process"},
        settings={"requests": 10},
        about="Questions.",
        targets=targets_of("direct:round_robin,nginx:random,portkey", PEERS),
        results=Results(list(cells), ["a note"]),
        missing=missing,
    )


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_what_was_not_measured_is_in_the_table_with_the_reason(form: str) -> None:
    """Not installed, not started, not come to: three different things."""
    failed = CellResult(
        target="portkey", policy="loadbalance", repetition=0, failure="ended with code 1;\nboom"
    )
    missing = (Missing(PEERS["litellm"], "ERROR: No matching distribution"),)
    text = getattr(a_report(NGINX, failed, missing=missing), form)()
    bar = "| " if form == "markdown" else ""
    assert "not installed: ERROR: No matching distribution" in line_of(text, f"{bar}litellm")
    assert "not measured: ended with code 1;\\x0aboom" in line_of(text, f"{bar}portkey")
    assert line_of(text, f"{bar}direct").rstrip(" |").endswith("not measured")


def test_a_row_has_each_number_with_its_precision() -> None:
    """And a dash for what there is not."""
    row = line_of(a_report(NGINX).markdown(), "| nginx")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["nginx", "random", "12.3"]
    by_title = dict(zip([column.title for column in COLUMNS], cells[2:], strict=False))
    assert by_title["hits"] == "50.0%"
    assert by_title["skew"] == "1.25"
    assert by_title["req/s"] == "120"
    assert by_title["CPU/req"] == "-"
    assert cells[-1] == "1 http_502 of 10"


def test_the_document_explains_every_column() -> None:
    """And says which versions with how many workers."""
    text = a_report(NGINX).markdown()
    for column in COLUMNS:
        assert f"- **{column.title}**: " in text
    assert "- nginx 1.2.3: one worker process." in text
    assert "Questions." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_a_warning_that_many_have_is_told_once() -> None:
    """With the figures of the first, and the others' names."""
    other = CellResult(
        target="direct", policy="round_robin", repetition=0, warnings=["client lag: 4 ms"]
    )
    text = a_report(NGINX, other).text()
    assert "note: nginx:random: client lag: 3 ms (and alike at direct:round_robin)" in text
    assert "4 ms" not in text
    assert "note: a note" in text


def test_json_has_every_cell_and_the_medians() -> None:
    """So that all of the table can be made again from it."""
    again = CellResult(
        target="nginx", policy="random", repetition=1, figures=Figures(ttft_p50_ms=14.34)
    )
    missing = (Missing(PEERS["litellm"], "why"),)
    content = json.loads(a_report(NGINX, again, missing=missing).json())
    assert len(content["cells"]) == 2
    assert content["missing"] == {"litellm": "why"}
    [median] = [one for one in content["medians"] if one["target"] == "nginx"]
    assert median["figures"]["ttft_p50_ms"] == pytest.approx(13.34)
