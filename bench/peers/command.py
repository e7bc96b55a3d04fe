"""`scripts/bench peers`: options in, table out."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from bench.peers.registry import PEERS
from bench.peers.triolet import TRIOLET, triolet
from bench.peers.workload import workload_names
from bench.version import NOT_INSTALLED, triolet_version

if TYPE_CHECKING:
    from bench.peers.cores import Cores
    from bench.peers.gateway import Gateway
    from bench.peers.report import Missing, Report
    from bench.peers.session import Results, Settings
    from bench.peers.target import Target

__all__ = ["peers"]

_ROOT = Path(__file__).parents[2]
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_QUICK_REQUESTS = 60


@click.command()
@click.option(
    "--targets",
    default="",
    metavar="NAMES",
    help="What to compare, separated by commas: NAME for all its policies, NAME:POLICY for one; "
    f"names are direct, {TRIOLET}, {', '.join(PEERS)}.  [default: everything]",
)
@click.option(
    "--workload",
    type=click.Choice(workload_names()),
    default=workload_names()[0],
    show_default=True,
    help="What is asked, always with so many sessions at once (`--concurrency`).",
)
@click.option("--concurrency", type=_COUNT, default=24, show_default=True, help="Sessions at once.")
@click.option("--requests", type=_COUNT, default=300, show_default=True, help="For each target.")
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=48,
    show_default=True,
    metavar="REQUESTS",
    help="Sent before, in other words, and not counted.",
)
@click.option("--replicas", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option(
    "--profile",
    default="h100-llama-8b",
    show_default=True,
    metavar="NAME",
    help="The engine that the replicas simulate, or a JSON file; empty for fixed times without a "
    "prefix cache.",
)
@click.option("--repeat", type=_COUNT, default=1, show_default=True)
@click.option("--quick", is_flag=True, help="Each target's default policy, few requests.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of requests and order.")
@click.option(
    "--gateway-cores", default="", metavar="CORES", help="Such as 2,3.  [default: the last one]"
)
@click.option(
    "--triolet",
    "triolet_command",
    metavar="COMMAND",
    help="How to start Triolet; --config FILE is added.  [default: the installed `triolet serve`]",
)
@click.option(
    "--cache-dir",
    type=_DIRECTORY,
    default=_ROOT / ".bench",
    show_default=".bench beside pyproject.toml",
    help="Where the gateways are installed, once.",
)
@click.option("--json", "json_file", type=_FILE, help="Write every figure to a file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write the table for docs/.")
def peers(
    targets: str,
    workload: str,
    concurrency: int,
    requests: int,
    warmup: int,
    replicas: int,
    profile: str,
    repeat: int,
    quick: bool,
    seed: int,
    gateway_cores: str,
    triolet_command: str | None,
    cache_dir: Path,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Compare Triolet with other gateways: the same replicas, the same requests, one by one.

    Everything stays on loopback, apart from the installation of the gateways on first use. Ctrl-C
    ends it with a table of what was measured.
    """
    from bench.peers.cores import parse_cores, share_out
    from bench.peers.session import Session, Settings
    from bench.peers.target import targets_of
    from bench.relay.machine import describe_machine

    if sys.platform != "linux":
        raise click.ClickException("this benchmark reads /proc and pins processes: it needs Linux")
    signal.signal(signal.SIGTERM, _end)
    machine = describe_machine()
    gateways = {TRIOLET: triolet(triolet_command), **PEERS}
    try:
        chosen = targets_of(targets, gateways, default_only=quick)
        cores = share_out(os.sched_getaffinity(0), parse_cores(gateway_cores))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="triolet-peers-") as directory:
        settings = Settings(
            directory=Path(directory),
            workload=workload,
            concurrency=concurrency,
            requests=min(requests, _QUICK_REQUESTS) if quick else requests,
            warmup=warmup,
            replicas=replicas,
            repeat=repeat,
            seed=seed,
            profile=profile or None,
        )
        installed = _install(chosen, cache_dir.resolve())
        there = [one for one in chosen if one.gateway is None or one.name in installed.homes]
        results = Session(settings, cores, installed.homes, _say).run(there)
    _write(_report(machine, settings, cores, there, installed, results), json_file, markdown_file)
    if results.interrupted:
        sys.exit(130)
    _fail_if_unmeasured(results)


class _Installed:
    """What is there, and what is not."""

    def __init__(self) -> None:
        self.homes: dict[str, Path] = {}
        self.versions: dict[str, str] = {}
        self.workers: dict[str, str] = {}
        self.missing: list[Missing] = []


def _install(chosen: list[Target], cache: Path) -> _Installed:
    from bench.installation import NotInstalled
    from bench.peers.report import Missing

    installed = _Installed()
    wanted = {target.name: target.gateway for target in chosen if target.gateway is not None}
    for name, gateway in wanted.items():
        try:
            home, version = _home_and_version(gateway, cache)
        except NotInstalled as error:
            _say(f"{name}: not installed: {error}")
            installed.missing.append(Missing(gateway, str(error)))
            continue
        installed.homes[name], installed.versions[name] = home, version
        installed.workers[name] = gateway.workers
    return installed


def _home_and_version(gateway: Gateway, cache: Path) -> tuple[Path, str]:
    from bench.peers.install import found_version, install

    home = install(gateway, cache, _say)
    return home, found_version(gateway, home) or triolet_version() or NOT_INSTALLED


def _report(
    machine: Mapping[str, str],
    settings: Settings,
    cores: Cores,
    targets: list[Target],
    installed: _Installed,
    results: Results,
) -> Report:
    from bench.peers.report import Report
    from bench.peers.workload import workload_of

    workload = workload_of(
        settings.workload,
        requests=settings.requests,
        concurrency=settings.concurrency,
        replicas=settings.replicas,
        seed=settings.seed,
    )
    shown: Mapping[str, object] = {
        "workload": settings.workload,
        "requests": settings.requests,
        "at once": settings.concurrency,
        "warm-up": settings.warmup,
        "replicas": settings.replicas,
        "engine": settings.profile or "fixed times",
        "repetitions": settings.repeat,
        "seed": settings.seed,
        "cores": str(cores),
    }
    return Report(
        machine=machine,
        versions=installed.versions,
        workers=installed.workers,
        settings=shown,
        about=workload.about,
        targets=targets,
        results=results,
        missing=installed.missing,
    )


def _write(report: Report, json_file: Path | None, markdown_file: Path | None) -> None:
    click.echo(report.text())
    for file, content in ((json_file, report.json), (markdown_file, report.markdown)):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content(), encoding="utf-8")


def _fail_if_unmeasured(results: Results) -> None:
    """Exit with 1 where Triolet or the replicas themselves were to be measured and were not."""
    failed = [cell for cell in results.cells if cell.target in ("direct", TRIOLET)]
    for cell in failed:
        if cell.failure is not None or not cell.completed:
            raise click.ClickException(f"{cell.target}:{cell.policy} was not measured; see above")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM is Ctrl-C: the processes are ended, and what was measured is written."""
    signal.raise_signal(signal.SIGINT)
