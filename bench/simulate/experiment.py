"""A published prefix-balancing experiment, played again on simulated replicas.

Higress published in July 2025 what its prefix_cache plugin does for multi-turn chats (60 sessions
of 5 turns, 200 tokens in and 800 out, 20 at once, measured with GenAI-Perf): TTFT 240 -> 120 ms,
prefix cache hit rate 40 -> 80 %, 367 -> 419 output tokens per second. GPU and number of replicas
were not part of what could be taken over; four A10 with an 8B model come near its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import fmean, stdev
from typing import Final, NamedTuple

import click

from bench.simulate.cell import INFINITE_CACHE, POLICY_NAMES, Cell, simulate
from bench.simulate.command import fleet_named, names_of
from bench.simulate.figures import Row
from bench.simulate.processes import simulate_all
from bench.workload.named import ABOUT, WorkloadOptions

__all__ = ["experiment_command", "of_possible_hits", "run", "text"]

_CONCURRENCY: Final = 20
_SESSIONS: Final = 60
_SESSIONS_PER_REPLICA: Final = 15
"""Of the workload `multi-turn` at scale 1."""


class Measure(NamedTuple):
    """One line of the table."""

    title: str
    value: Callable[[Row], float]
    form: str
    published: str = ""
    """Before and after."""


def _of(row: Row, name: str, statistic: str) -> float:
    summary = getattr(row, name)
    assert summary is not None
    return float(summary.get(statistic))


MEASURES: Final = (
    Measure("TTFT avg (ms)", lambda row: 1000 * _of(row, "ttft_s", "avg"), ",.0f", "240 -> 120"),
    Measure("TTFT P99 (ms)", lambda row: 1000 * _of(row, "ttft_s", "p99"), ",.0f"),
    Measure("request latency avg (s)", lambda row: _of(row, "latency_s", "avg"), ",.1f"),
    Measure("request latency P99 (s)", lambda row: _of(row, "latency_s", "p99"), ",.1f"),
    Measure("inter token latency avg (ms)", lambda row: 1000 * _of(row, "itl_s", "avg"), ",.1f"),
    Measure(
        "output tokens per second", lambda row: row.output_tokens_per_s or 0, ",.0f", "367 -> 419"
    ),
    Measure("prefix cache hits (%)", lambda row: 100 * (row.hit_rate or 0), ".1f", "40 -> 80"),
)


def run(policies: Sequence[str], fleet: tuple[str, ...], seeds: int) -> dict[str, list[Row]]:
    """The rows of each policy, one for each seed; the workload is the same for all of a seed."""
    cells = [_cell(policy, fleet, seed) for policy in policies for seed in range(1, seeds + 1)]
    rows: dict[str, list[Row]] = {}
    with closing(simulate_all(cells)) as simulated:
        for row in simulated:
            if row.requests == 0:
                raise click.ClickException(
                    f"{row.policy}: every request was refused: none fits into a replica of "
                    f"{', '.join(dict.fromkeys(fleet))}"
                )
            rows.setdefault(row.policy, []).append(row)
    return rows


def _cell(policy: str, fleet: tuple[str, ...], seed: int) -> Cell:
    # The workload is sized by the replica; the experiment had so many sessions in all.
    share = 1 / len(fleet)
    options = WorkloadOptions(
        replicas=len(fleet),
        rate=_CONCURRENCY * share,
        scale=_SESSIONS / _SESSIONS_PER_REPLICA * share,
        seed=seed,
    )
    return Cell(workload="multi-turn", policy=policy, fleet=fleet, options=options)


def text(rows: dict[str, list[Row]]) -> str:
    """Means over the seeds with their standard deviations, and the ratio to the first policy."""
    policies = list(rows)
    lines = [["", *policies, "last : first", "published"]]
    for measure in MEASURES:
        values = {policy: [measure.value(row) for row in rows[policy]] for policy in policies}
        first, last = fmean(values[policies[0]]), fmean(values[policies[-1]])
        ratio = f"{last / first:.2f}" if first else "-"
        cells = [_mean(values[policy], measure.form) for policy in policies]
        lines.append([measure.title, *cells, ratio, measure.published])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def of_possible_hits(
    rows: dict[str, list[Row]], fleet: tuple[str, ...], seeds: int
) -> dict[str, float]:
    """For each policy, what it hit by what one cache that forgets nothing would."""
    limits = (simulate(_cell(INFINITE_CACHE, fleet, seed)) for seed in range(1, seeds + 1))
    possible = fmean(row.hit_rate or 0.0 for row in limits)
    return {
        policy: fmean(row.hit_rate or 0.0 for row in of_policy) / possible
        for policy, of_policy in rows.items()
    }


def _mean(values: Sequence[float], form: str) -> str:
    spread = f" ±{format(stdev(values), form)}" if len(values) > 1 else ""
    return format(fmean(values), form) + spread


@click.command("prefix-experiment")
@click.option("--fleet", default="a10-llama-8b:4", show_default=True, metavar="PROFILE:COUNT")
@click.option(
    "--policy",
    "policies",
    default="round_robin,least_request,higress_prefix",
    show_default=True,
    metavar="NAMES",
    help="Separated by commas; the ratio is that of the last to the first.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
def experiment_command(fleet: str, policies: str, seeds: int) -> None:
    """Play the published prefix-balancing experiment again: round robin against prefix-aware."""
    names = names_of(policies, POLICY_NAMES, "policy")
    replicas = fleet_named(fleet)
    click.echo(f"{ABOUT['multi-turn']}\nReplicas: {fleet} (simulated); means of {seeds} seeds.\n")
    rows = run(names, replicas, seeds)
    click.echo(text(rows))
    shares = of_possible_hits(rows, replicas, seeds)
    told = ", ".join(f"{policy} {share:.3f}" for policy, share in shares.items())
    click.echo(f"\nOf the hits of an infinite cache: {told}")
