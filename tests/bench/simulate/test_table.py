"""The table shows means, marks the best and only what cannot be told from it, and hides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from bench.report.statistics import summarize
from bench.simulate.cell import CLAIRVOYANT, INFINITE_CACHE
from bench.simulate.figures import Row, TierRow
from bench.simulate.table import COLUMNS, Column, Line, best_of, lines_of, markdown, text
from tests.bench.simulate.made_rows import made_row

TTFT = COLUMNS[0]
[HITS] = [column for column in COLUMNS if column.title == "hit %"]


def seeds(policy: str, *ttfts_ms: float) -> list[Row]:
    return [
        made_row(policy, ttft_ms / 1000, seed=seed)
        for seed, ttft_ms in enumerate(ttfts_ms, start=1)
    ]


def best(*rows: list[Row], column: Column = TTFT) -> set[str]:
    return best_of(column, lines_of([row for each in rows for row in each]))


def test_least_time_and_most_hits_are_best() -> None:
    """Each column in its own direction."""
    rows = [made_row("a", 0.1, hit_rate=0.2), made_row("b", 0.2, hit_rate=0.9)]
    assert best(rows) == {"a"}
    assert best(rows, column=HITS) == {"b"}


def test_within_a_percent_is_as_good() -> None:
    """And not beyond it."""
    assert best(seeds("a", 100), seeds("b", 101), seeds("c", 101.1)) == {"a", "b"}


def test_nobody_is_best_if_all_are_the_same() -> None:
    """A mark on everything says nothing; nor does one on a policy that is alone."""
    assert best(seeds("a", 100), seeds("b", 100.5)) == set()
    assert best(seeds("a", 100)) == set()
    assert best(seeds("a", 0.0), seeds("b", 0.0), column=HITS) == set()


def test_limits_do_not_compete() -> None:
    """However good they are."""
    limits = [*seeds(CLAIRVOYANT, 1), *seeds(INFINITE_CACHE, 1)]
    assert best(limits, seeds("a", 100), seeds("b", 200)) == {"a"}
    assert best(limits) == set()


def test_what_was_not_measured_is_not_best() -> None:
    """A policy without a value is left out, and shown as a dash."""
    rows = [made_row("a", None), made_row("b", 0.3), made_row("c", 0.4)]
    assert best(rows) == {"b"}
    assert text(lines_of(rows)).splitlines()[1].split()[:2] == ["a", "-"]


def test_best_is_what_chance_does_not_explain() -> None:
    """Differences seed by seed: traffic that is slower for all does not hide who is faster."""
    faster = seeds("faster", 100, 200, 300, 400)
    slower = seeds("slower", 110, 211, 309, 410)
    assert best(faster, slower) == {"faster"}
    either = seeds("either", 130, 180, 340, 385)
    assert best(faster, either, seeds("far", 900, 900, 900, 900)) == {"faster", "either"}


def test_marks_end_at_the_first_that_is_worse() -> None:
    """One that varies wildly is not marked behind one that is surely worse."""
    wild = seeds("wild", 40, 900, 30, 700)
    surely_worse = seeds("worse", 110, 112, 109, 110)
    assert best(seeds("best", 100, 102, 99, 100), surely_worse, wild) == {"best"}


def test_means_and_deviations_over_the_seeds() -> None:
    """The sample's standard deviation; with one seed there is none."""
    [_, line] = text(lines_of(seeds("a", 100, 104))).splitlines()
    assert line.split()[:3] == ["a", "102", "±3"]
    [_, line] = text(lines_of(seeds("a", 100))).splitlines()
    assert "±" not in line


def test_text_is_aligned_and_marked() -> None:
    """One line for each policy, columns to the right, a star behind the best."""
    rows = [made_row("short", 0.05), made_row("a longer name", 12.345)]
    head, first, second = text(lines_of(rows)).splitlines()
    assert first.index("50*") + 3 == second.index("12,345") + 7 == head.index(" ms") + 3
    assert head.startswith("policy")


def test_markdown_is_a_table_with_the_best_in_bold() -> None:
    """As many cells in each line as in its head."""
    lines = markdown(lines_of([made_row("a", 0.05), made_row("b", 0.2)])).splitlines()
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 2}
    assert lines[2].startswith("| a | **50** | **50** | **50** | - | 100 |")
    assert lines[3].startswith("| b | 200 | 200 |")


def test_runs_and_tiers_have_columns_where_there_are_any() -> None:
    """And nowhere else."""
    plain = made_row("a")
    assert "run" not in text(lines_of([plain]))
    with_runs = msgspec.structs.replace(plain, runs_s=summarize([2.5]))
    assert text(lines_of([with_runs, made_row("b")])).splitlines()[0].endswith("run p50 s")
    tiers = [
        TierRow(
            tier=tier,
            requests=1,
            refused=0,
            ttft_s=summarize([ttft_s]),
            output_tokens_per_s=tokens_per_s,
        )
        for tier, ttft_s, tokens_per_s in (("batch", 9.0, 500.0), ("interactive", 0.25, 60.0))
    ]
    head, line = text(lines_of([msgspec.structs.replace(plain, tiers=tiers)])).splitlines()
    assert head.endswith("interactive TTFT p50  interactive TTFT p99  interactive tokens/s")
    assert line.split()[-6:] == ["9,000", "9,000", "500", "250", "250", "60"]


@pytest.mark.parametrize("write", [text, markdown])
def test_refused_requests_are_told(write: Callable[[Sequence[Line]], str]) -> None:
    """Under the table: for each policy, or once if all refused the same."""
    told = write([Line("a", [made_row("a", refused=3, not_sent=2)]), Line("b", [made_row("b")])])
    assert told.splitlines()[-1] == "a: 3 requests refused, and 2 turns after them not sent"
    same = [made_row(policy, refused=3) for policy in ("a", "b", CLAIRVOYANT)]
    assert write(lines_of(same)).splitlines()[-1] == "every policy: 3 requests refused"
