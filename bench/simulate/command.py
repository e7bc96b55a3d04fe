"""`triolet simulate`: options in, the policy table out."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from bench.simulate.cell import LIMITS, POLICY_NAMES, Cell, parse_fleet, simulate
from bench.simulate.figures import Row
from bench.simulate.plot import page
from bench.simulate.table import markdown, text
from bench.workload.named import ABOUT, WORKLOADS, WorkloadOptions

__all__ = ["simulate_command"]

_FLEETS = {"mixed-fleet": "h100-llama-8b:2,a100-llama-8b:1,l40s-llama-8b:1"}
"""Of workloads that are about their fleet."""
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("simulate")
@click.option(
    "--workload",
    "workloads",
    default="all",
    show_default=True,
    metavar="NAMES",
    help="Separated by commas: " + ", ".join(WORKLOADS) + ".",
)
@click.option(
    "--policy",
    "policies",
    default="all",
    show_default=True,
    metavar="NAMES",
    help="Separated by commas; --list shows them.",
)
@click.option(
    "--fleet",
    metavar="PROFILE:COUNT,...",
    help="The replicas, as h100-llama-8b:4.  [default: h100-llama-8b:4; a mixed one for "
    "mixed-fleet]",
)
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How much of each workload: at 0.5 half as many sessions at the same rate.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Sessions a second and replica; in a closed loop sessions at once per replica.  "
    "[default: the workload's own]",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(min=1),
    help="The pool's bound for each replica; more wait in front of it.  [default: none]",
)
@click.option(
    "--limits/--no-limits",
    default=True,
    show_default=True,
    help="Show what no policy can beat as well.",
)
@click.option("--seed", default=1, show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one for each core]")
@click.option("--json", "json_file", type=_FILE, help="Write all figures to a file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write the tables for docs/.")
@click.option("--html", "html_file", type=_FILE, help="Write a page of charts.")
@click.option("--list", "list_only", is_flag=True, help="List workloads and policies, and stop.")
def simulate_command(
    workloads: str,
    policies: str,
    fleet: str | None,
    scale: float,
    rate: float | None,
    max_in_flight: int | None,
    limits: bool,
    seed: int,
    jobs: int | None,
    json_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
    list_only: bool,
) -> None:
    """Play workloads on simulated replicas behind the balancer, in virtual time.

    The balancer's own pool and policies, and policies of other projects written from their public
    descriptions, over engines that batch, cache and preempt as vLLM does. No GPU, no network.
    """
    if list_only:
        _list()
        return
    chosen = _names(workloads, tuple(WORKLOADS), "workload")
    names = (*_names(policies, POLICY_NAMES, "policy"), *(LIMITS if limits else ()))
    cells = []
    for workload in chosen:
        replicas = _fleet(fleet or _FLEETS.get(workload, "h100-llama-8b:4"))
        options = WorkloadOptions(replicas=len(replicas), scale=scale, rate=rate, seed=seed)
        cells += [
            Cell(
                workload=workload,
                policy=policy,
                fleet=replicas,
                options=options,
                max_in_flight=max_in_flight,
            )
            for policy in names
        ]
    tables: dict[str, list[Row]] = {}
    try:
        for rows in _tables(cells, len(names), jobs or os.cpu_count() or 1):
            workload = rows[0].workload
            tables[workload] = rows
            click.echo(f"\n{workload}: {ABOUT[workload]}\n{text(rows)}", nl=True)
    finally:  # after Ctrl-C too: what is simulated is not lost
        _write(tables, json_file, markdown_file, html_file)


def _tables(cells: Sequence[Cell], columns: int, jobs: int) -> Iterator[list[Row]]:
    """The rows of one workload after the other, as soon as they are all there."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, len(cells))) as pool:
        done = pool.imap(simulate, cells)
        for first in range(0, len(cells), columns):
            yield [next(done) for _ in cells[first : first + columns]]


def _names(given: str, known: Sequence[str], kind: str) -> tuple[str, ...]:
    if given == "all":
        return tuple(known)
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        if name not in known:
            raise click.UsageError(f"there is no {kind} {name!r}; there are {', '.join(known)}")
    return names


def _fleet(given: str) -> tuple[str, ...]:
    try:
        return parse_fleet(given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _list() -> None:
    click.echo("workloads")
    for name, about in ABOUT.items():
        click.echo(f"  {name}: {about}")
    click.echo("policies\n  " + "\n  ".join(POLICY_NAMES))


def _write(
    tables: dict[str, list[Row]],
    json_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
) -> None:
    command = "triolet simulate " + " ".join(sys.argv[2:])
    if json_file is not None:
        document = {"command": command, "workloads": tables}
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    if markdown_file is not None:
        parts = [
            f"### {name}\n{ABOUT[name]}\n\n{markdown(rows)}\n" for name, rows in tables.items()
        ]
        markdown_file.write_text("\n".join(parts))
    if html_file is not None:
        html_file.write_text(page(tables, ABOUT, command))
