"""`triolet bench simulate`: options in, the policy table out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import click
import msgspec

from bench.simulate.cell import LIMITS, POLICY_NAMES, Cell, parse_fleet
from bench.simulate.figures import Row
from bench.simulate.plot import page
from bench.simulate.processes import simulate_all
from bench.simulate.table import lines_of, markdown, text
from bench.version import triolet_version
from bench.workload.named import ABOUT, WORKLOADS, WorkloadOptions

__all__ = ["fleet_named", "names_of", "simulate_command"]

_FLEETS = {"mixed-fleet": "h100-llama-8b:2,a100-llama-8b:1,l40s-llama-8b:1"}
"""Of workloads that are about their fleet."""
_USUAL_FLEET = "h100-llama-8b:4"


def _in_a_directory(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    # Said before minutes of simulation, not after them.
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"there is no directory {str(path.parent)!r}")
    return path


_Function = Callable[..., None]


def _file_option(name: str, help: str) -> Callable[[_Function], _Function]:
    path = click.Path(dir_okay=False, writable=True, path_type=Path)
    return click.option(f"--{name}", f"{name}_file", type=path, callback=_in_a_directory, help=help)


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
    help=f"The replicas. A profile is a name or a JSON file that calibrate wrote.  [default: "
    f"{_USUAL_FLEET}; a mixed one for mixed-fleet]",
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
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Repeat with so many seeds, from --seed on; the table then shows means ± standard "
    "deviations.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one for each core]")
@_file_option("json", "Write all figures to a file.")
@_file_option("markdown", "Write the tables for docs/.")
@_file_option("html", "Write a page of charts.")
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
    seeds: int,
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
    chosen = names_of(workloads, tuple(WORKLOADS), "workload")
    names = (*names_of(policies, POLICY_NAMES, "policy"), *(LIMITS if limits else ()))
    cells = []
    for workload in chosen:
        replicas = fleet_named(fleet or _FLEETS.get(workload, _USUAL_FLEET))
        options = [
            _options(len(replicas), scale, rate, one_seed) for one_seed in range(seed, seed + seeds)
        ]
        cells += [
            Cell(
                workload=workload,
                policy=policy,
                fleet=replicas,
                options=of_seed,
                max_in_flight=max_in_flight,
            )
            for policy in names
            for of_seed in options
        ]
    rows: list[Row] = []
    try:
        _simulate(cells, jobs, rows)
    finally:  # after Ctrl-C too: what is simulated is not lost
        _write(_command_line(), cells, rows, json_file, markdown_file, html_file)


def _options(replicas: int, scale: float, rate: float | None, seed: int) -> WorkloadOptions:
    try:
        return WorkloadOptions(replicas=replicas, scale=scale, rate=rate, seed=seed)
    except ValueError as error:  # such as for `nan`, which is in every range
        raise click.UsageError(str(error)) from error


def _simulate(cells: Sequence[Cell], jobs: int | None, rows: list[Row]) -> None:
    """Append the cells' rows to `rows`, and print the table of each workload that is complete."""
    last = {cell.workload: number for number, cell in enumerate(cells)}
    with closing(simulate_all(cells, jobs)) as simulated:
        for number, cell in enumerate(cells):
            _tell(f"{number} of {len(cells)} simulated; {cell.workload}, {cell.policy}")
            rows.append(next(simulated))
            if last[cell.workload] == number:
                _tell("")
                table = text(lines_of([row for row in rows if row.workload == cell.workload]))
                click.echo(f"\n{cell.workload}: {ABOUT[cell.workload]}\n{table}")


def _tell(progress: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{progress}\x1b[K", nl=False, err=True)


def names_of(given: str, known: Sequence[str], kind: str) -> tuple[str, ...]:
    """`all`, or some of `known` separated by commas. Raises UsageError for any other."""
    if given == "all":
        return tuple(known)
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise click.UsageError(f"there is no {kind} {name!r}; there are {', '.join(known)}")
    if not names:
        raise click.UsageError(f"no {kind} is named in {given!r}; there are {', '.join(known)}")
    return names


def fleet_named(given: str) -> tuple[str, ...]:
    """As `parse_fleet`, with UsageError for what is wrong."""
    try:
        return parse_fleet(given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _list() -> None:
    click.echo("workloads")
    for name, about in ABOUT.items():
        click.echo(f"  {name}: {about}")
    click.echo("policies\n  " + "\n  ".join(POLICY_NAMES))


def _command_line() -> str:
    """What was asked for, so that it can be run again."""
    return shlex.join(["triolet", "bench", *sys.argv[1:]])


class _Document(msgspec.Struct):
    """What `--json` writes."""

    command: str
    version: str
    """Triolet's; empty if it is not installed."""
    fleets: Mapping[str, Sequence[str]]
    """By workload: each replica's profile."""
    workloads: Mapping[str, Sequence[Row]]
    """By workload: one row for each policy, limit and seed."""


def _write(
    command: str,
    cells: Iterable[Cell],
    rows: Sequence[Row],
    json_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
) -> None:
    by_workload: dict[str, list[Row]] = {}
    for row in rows:
        by_workload.setdefault(row.workload, []).append(row)
    tables = {name: lines_of(of_workload) for name, of_workload in by_workload.items()}
    if json_file is not None:
        fleets = {cell.workload: cell.fleet for cell in cells}
        document = _Document(command, triolet_version() or "", fleets, by_workload)
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    if markdown_file is not None:
        parts = [
            f"### {name}\n{ABOUT[name]}\n\n{markdown(lines)}\n" for name, lines in tables.items()
        ]
        markdown_file.write_text("\n".join(parts), encoding="utf-8")
    if html_file is not None:
        html_file.write_text(page(tables, ABOUT, command), encoding="utf-8")
