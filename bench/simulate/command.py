"""`triolet bench simulate`: options in, the policy table out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import click

from bench.simulate.cell import LIMITS, POLICY_NAMES, Cell, parse_fleet
from bench.simulate.conditions import Conditions, Counts
from bench.simulate.planning import USUAL_FLEET, Asked, cells_of, scenes_of
from bench.simulate.processes import simulate_all
from bench.simulate.report import Files, Report
from bench.workload.named import ABOUT, WORKLOADS

__all__ = ["fleet_named", "names_of", "simulate_command"]


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
    f"{USUAL_FLEET}; a mixed one for mixed-fleet]",
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
@click.option(
    "--counts",
    type=click.Choice(["estimated", "exact"]),
    default="estimated",
    show_default=True,
    help="How policies see prompt tokens: as a router estimates them, or as the engine counts.",
)
@click.option(
    "--cached-tokens/--no-cached-tokens",
    default=True,
    show_default=True,
    help="Whether engines report how much of a prompt was cached.",
)
@click.option(
    "--prior-error",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="FACTOR",
    help="Multiply the first guess of every replica's speed.",
)
@click.option(
    "--tiers/--no-tiers",
    default=True,
    show_default=True,
    help="Whether the pool tells interactive requests from batch.",
)
@click.option(
    "--slow",
    multiple=True,
    metavar="REPLICA:FACTOR",
    help="Replica so many times slower, such as sim-0:2. Compared with the fleet undisturbed, and "
    "without it. May be repeated.",
)
@click.option(
    "--foreign",
    multiple=True,
    metavar="REPLICA:SHARE",
    help="A foreign job takes this share of the replica's GPU, such as sim-0:0.5, 20 s of every "
    "40. Compared as --slow. May be repeated.",
)
@click.option(
    "--hold-out",
    is_flag=True,
    help="Play variants of the workloads: other rates, lengths, fleets and engines.",
)
@click.option(
    "--static-weights",
    is_flag=True,
    help="Show the best weighted round robin too, found by trying a grid of weights.",
)
@click.option(
    "--alone",
    metavar="TIER",
    help="Play this tier without the others too, and compare its tokens/s.",
)
@click.option(
    "--judge",
    metavar="POLICY",
    default="expected_cost",
    show_default=True,
    help="Which policy the summary and --within are about.",
)
@click.option(
    "--within",
    type=click.FloatRange(min=1),
    metavar="FACTOR",
    help="Exit with 1 and name each cell in which that policy is more than so many times worse "
    "than the best.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one for each core]")
@_file_option("json", "Write all figures to a file.")
@_file_option("markdown", "Write the tables for docs/.")
@_file_option("ratios", "Write the summary of ratios to the best for docs/.")
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
    counts: Counts,
    cached_tokens: bool,
    prior_error: float,
    tiers: bool,
    slow: tuple[str, ...],
    foreign: tuple[str, ...],
    hold_out: bool,
    static_weights: bool,
    alone: str | None,
    judge: str,
    within: float | None,
    jobs: int | None,
    json_file: Path | None,
    markdown_file: Path | None,
    ratios_file: Path | None,
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
    names = names_of(policies, POLICY_NAMES, "policy")
    if within is not None and judge not in names:
        raise click.UsageError(f"--within judges {judge!r}, which --policy leaves out")
    try:
        asked = Asked(
            workloads=names_of(workloads, tuple(WORKLOADS), "workload"),
            policies=(*names, *(LIMITS if limits else ())),
            seeds=range(seed, seed + seeds),
            fleet=fleet,
            scale=scale,
            rate=rate,
            max_in_flight=max_in_flight,
            conditions=Conditions(
                counts=counts,
                reports_cached=cached_tokens,
                prior_error=prior_error,
                tiers=tiers,
            ),
            slow=slow,
            foreign=foreign,
            hold_out=hold_out,
            static_weights=static_weights,
            alone=alone,
        )
        scenes = scenes_of(asked)
        cells = [cell for scene in scenes for cell in cells_of(asked, scene)]
    except ValueError as error:  # such as for `nan`, which is in every range
        raise click.UsageError(str(error)) from error
    report = Report(scenes, judge, seeds)
    try:
        _simulate(cells, jobs, report)
    finally:  # after Ctrl-C too: what is simulated is not lost
        report.write(_command_line(), Files(json_file, markdown_file, ratios_file, html_file))
    click.echo(report.closing())
    if within is not None:
        _judge(report, within)


def _simulate(cells: Sequence[Cell], jobs: int | None, report: Report) -> None:
    """Fill the report, and print the table of each scene that is complete."""
    last = {cell.title: number for number, cell in enumerate(cells)}
    with closing(simulate_all(cells, jobs)) as simulated:
        for number, cell in enumerate(cells):
            _tell(f"{number} of {len(cells)} simulated; {cell.title}, {cell.policy}")
            report.rows.append(next(simulated))
            if last[cell.title] == number:
                _tell("")
                click.echo(report.table_of(cell.title))


def _judge(report: Report, within: float) -> None:
    misses = report.misses(within)
    if misses:
        click.echo(f"\n{report.judged} is not within {within:g} times of the best:", err=True)
        click.echo("\n".join(f"  {miss}" for miss in misses), err=True)
        raise SystemExit(1)
    click.echo(f"\n{report.judged} is within {within:g} times of the best everywhere")


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
