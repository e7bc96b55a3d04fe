"""`scripts/bench relay`: options in, report out."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import click

from bench.installation import NotInstalled
from bench.relay import targets, workloads
from bench.relay.children import ChildFailed
from bench.relay.fake import raise_descriptor_limit
from bench.relay.figures import HeldRun, Run
from bench.relay.machine import describe_machine
from bench.relay.peers import PEERS, install
from bench.relay.report import Report
from bench.relay.session import Cores, Plan, Results, Session
from bench.relay.targets import DIRECT, TRIOLET, Proxy, Running
from bench.version import NOT_INSTALLED, triolet_version

_ROOT = Path(__file__).parents[2]
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--quick", is_flag=True, help="Half a minute, to see that all works.")
@click.option(
    "--peers",
    default=",".join(PEERS),
    show_default=True,
    metavar="NAMES",
    help="Routers to compare with, separated by commas; empty for none.",
)
@click.option(
    "--workloads",
    "workload_names",
    default=",".join(workloads.NAMES),
    show_default=True,
    metavar="NAMES",
    help="What to run, separated by commas. CPU per chunk needs no-stream too, TTFT is taken "
    "from staggered-32, memory from held.",
)
@click.option(
    "--triolet",
    metavar="COMMAND",
    help="How to start Triolet; --config FILE is added. Empty leaves it out.  [default: the "
    "installed `triolet serve`]",
)
@click.option("--replicas", type=click.IntRange(min=1, max=64), default=1, show_default=True)
@click.option("--prompt-bytes", type=click.IntRange(min=1), default=1024, show_default=True)
@click.option(
    "--cache-dir",
    type=_DIRECTORY,
    default=_ROOT / ".bench",
    show_default=".bench beside pyproject.toml",
    help="Where the routers are installed, once.",
)
@click.option("--json", "json_file", type=_FILE, help="Write every figure and run to a file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write the tables for docs/.")
@click.option(
    "--profile",
    type=_DIRECTORY,
    help="Also record Triolet with py-spy and write stacks and flame graphs there.",
)
def relay(
    repeat: int,
    quick: bool,
    peers: str,
    workload_names: str,
    triolet: str | None,
    replicas: int,
    prompt_bytes: int,
    cache_dir: Path,
    json_file: Path | None,
    markdown_file: Path | None,
    profile: Path | None,
) -> None:
    """Measure what relaying costs: CPU, memory and delay, beside Rust routers in the same run.

    The full run takes about eleven minutes. Everything stays on loopback, apart from the
    installation of the routers on first use.
    """
    if sys.platform != "linux":
        raise click.ClickException("this benchmark reads /proc and uses epoll: it needs Linux")
    signal.signal(signal.SIGTERM, _end)
    raise_descriptor_limit()
    wanted = _names(peers, tuple(PEERS), "--peers: no router")
    chosen = _names(workload_names, workloads.NAMES, "--workloads: no workload")
    if not chosen:
        raise click.UsageError("--workloads: name at least one")
    machine = describe_machine()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triolet-bench-")))
        cores = Cores.share_out(sorted(os.sched_getaffinity(0)))
        fakes = _start_fakes(replicas, directory, cores, stack)
        missing: list[str] = []
        proxies = _proxies(triolet, wanted, fakes, cache_dir, missing)
        plan = Plan(
            1 if quick else repeat, quick, prompt_bytes, directory, profile, frozenset(chosen)
        )
        session = Session(plan, cores, fakes, _say)
        session.results.notes += missing + _core_notes(cores)
        results = session.run(proxies)
    settings = {"repetitions": plan.repeat, "quick": quick, "prompt bytes": prompt_bytes}
    settings |= {"replicas": replicas}
    versions = {proxy.name: proxy.version for proxy in proxies}
    report = Report(machine, versions, settings, plan.measured(), results)
    _write(report, json_file, markdown_file)
    _fail_on_errors(results, proxies)


def _names(given: str, known: Sequence[str], complaint: str) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"{complaint} {unknown[0]!r}; there are {', '.join(known)}")
    return names


def _start_fakes(count: int, directory: Path, cores: Cores, stack: ExitStack) -> list[Running]:
    started = []
    for index in range(count):
        try:
            fake = targets.start_fake(index, directory=directory, cores=set(cores.fake))
        except ChildFailed as error:
            raise click.ClickException(str(error)) from error
        if fake.child is not None:
            stack.enter_context(fake.child)
        started.append(fake)
    return started


def _proxies(
    triolet: str | None,
    peers: list[str],
    fakes: list[Running],
    cache: Path,
    missing: list[str],
) -> list[Proxy]:
    """The proxies that can be had; what cannot is told in `missing`."""
    urls = [f"http://127.0.0.1:{fake.port}" for fake in fakes]
    proxies = (
        []
        if triolet == ""
        else [targets.triolet(triolet, triolet_version() or NOT_INSTALLED, urls)]
    )
    for name in peers:
        try:
            environment = install(PEERS[name], cache.resolve(), _say)
        except NotInstalled as error:
            missing.append(f"{name} is left out, it cannot be installed: {error}")
            _say(missing[-1])
        else:
            proxies.append(targets.router(PEERS[name], environment, urls))
    return proxies


def _core_notes(cores: Cores) -> list[str]:
    if cores.proxy == cores.client:
        return ["one core only: client, replica and proxy share it, so TTFT and rates say little"]
    return []


def _write(report: Report, json_file: Path | None, markdown_file: Path | None) -> None:
    click.echo(report.text())
    for file, content in ((json_file, report.json), (markdown_file, report.markdown)):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content(), encoding="utf-8")


def _fail_on_errors(results: Results, proxies: list[Proxy]) -> None:
    """Exit with 1 where the fake replica itself gave errors, or Triolet was not measured."""
    everything: list[Run | HeldRun] = [*results.runs, *results.held]
    if any(run.target == DIRECT and run.errors for run in everything):
        raise click.ClickException("requests to the fake replica itself failed; see the tables")
    if any(proxy.name == TRIOLET for proxy in proxies) and not any(
        run.target == TRIOLET for run in everything
    ):
        raise click.ClickException("triolet was not measured; see the notes")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the benchmark as an exception does, so that its processes are ended too."""
    raise SystemExit(128 + number)
