"""`scripts/bench engine`: options in, report out."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Final

import click

from bench.installation import NotInstalled
from bench.relay.machine import describe_machine
from bench.workflows import graphon
from bench.workflows.cases import CASES
from bench.workflows.contender import Contender, ContenderFailed
from bench.workflows.figures import OURS
from bench.workflows.report import Report
from bench.workflows.session import Plan, Results, measure

__all__ = ["engine"]

_ROOT: Final = Path(__file__).parents[2]
_DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_QUICK_CASES: Final = ("start-end", "chain-10", "iteration-10x5")


@click.command()
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--quick", is_flag=True, help="Less than a minute, to see that all works.")
@click.option(
    "--cases",
    default=",".join(CASES),
    show_default=True,
    metavar="NAMES",
    help="What to run, separated by commas.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Of each measurement.",
)
@click.option("--graphon/--no-graphon", "with_graphon", default=True, help="Whether to compare.")
@click.option(
    "--graphon-python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A Python from 3.12, with graphon or to make an environment of.  [default: found]",
)
@click.option(
    "--cache-dir",
    type=_DIRECTORY,
    default=_ROOT / ".bench",
    show_default=".bench beside pyproject.toml",
    help="Where graphon is installed, once.",
)
@click.option("--json", "json_file", type=_FILE, help="Write every figure to a file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write the tables for docs/.")
def engine(
    repeat: int,
    quick: bool,
    cases: str,
    seconds: float,
    with_graphon: bool,
    graphon_python: Path | None,
    cache_dir: Path,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure what the workflow engine costs: CPU, rate and memory, beside graphon and beside none.

    The full run takes about five minutes. No model is called: what counts is the engine.
    """
    if sys.platform != "linux":
        raise click.ClickException("this benchmark reads /proc: it needs Linux")
    signal.signal(signal.SIGTERM, _end)
    plan = _plan(_names(cases), repeat, seconds, quick)
    machine = describe_machine()
    notes: list[str] = []
    try:
        with ExitStack() as stack:
            contenders = _contenders(with_graphon, graphon_python, cache_dir, notes, stack)
            results = measure(contenders, plan, _say)
            versions = {one.name: one.version for one in contenders}
    except ContenderFailed as error:
        raise click.ClickException(str(error)) from error
    results.notes[:0] = notes
    recorded = _recorded(results, plan, notes) if with_graphon else {}
    settings = {"repetitions": plan.repeat, "seconds": plan.seconds, "quick": quick}
    report = Report(
        machine=machine, versions=versions, settings=settings, results=results, recorded=recorded
    )
    _write(report, json_file, markdown_file)


def _plan(cases: tuple[str, ...], repeat: int, seconds: float, quick: bool) -> Plan:
    if quick:
        chosen = tuple(name for name in cases if name in _QUICK_CASES) or cases[:1]
        return Plan(2, min(seconds, 0.3), chosen, (1, 16), 16, 200, 2_000)
    return Plan(repeat, seconds, cases, (1, 16, 256), 16, 1_000, 20_000)


def _names(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    unknown = [name for name in names if name not in CASES]
    if unknown or not names:
        complaint = f"no case {unknown[0]!r}" if unknown else "name at least one"
        raise click.UsageError(f"--cases: {complaint}; there are {', '.join(CASES)}")
    return names


def _contenders(
    with_graphon: bool, python: Path | None, cache: Path, notes: list[str], stack: ExitStack
) -> list[Contender]:
    """Each on the last core, alone while it is its turn; the log files lie in a directory that
    goes with them."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triolet-bench-")))
    cores = {max(os.sched_getaffinity(0))}
    commands = {
        OURS: [sys.executable, "-m", "server.engine_bench"],
        "raw": [sys.executable, "-m", "bench.workflows.raw_child"],
    }
    if with_graphon:
        try:
            found = graphon.interpreter(python, cache.resolve(), _say)
        except NotInstalled as error:
            notes.append(f"graphon is not measured: {error}")
            _say(notes[-1])
        else:
            script = Path(__file__).with_name("graphon_child.py")
            commands[graphon.GRAPHON] = [str(found), "-I", str(script)]
            commands[graphon.READ_ONCE] = [str(found), "-I", str(script), "read-once"]
    return [
        stack.enter_context(
            Contender(name, command, log=directory / name, cores=cores, directory=_ROOT)
        )
        for name, command in commands.items()
    ]


def _recorded(results: Results, plan: Plan, notes: list[str]) -> dict[str, float]:
    """What was measured before stands in where graphon was not measured."""
    if any(one.contender == graphon.GRAPHON for one in results.measured):
        return {}
    notes.append(f"graphon's figures are recorded ones: {graphon.RECORDED_WITH}")
    results.notes.append(notes[-1])
    return {name: graphon.RECORDED[name] for name in plan.cases if name in graphon.RECORDED}


def _write(report: Report, json_file: Path | None, markdown_file: Path | None) -> None:
    click.echo(report.text())
    for file, content in ((json_file, report.json), (markdown_file, report.markdown)):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content(), encoding="utf-8")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the benchmark as an exception does, so that its processes are ended too."""
    raise SystemExit(128 + number)
