"""`scripts/bench clients`: options in, comparison out."""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.clients.report import Report
    from bench.clients.result import Load
    from bench.clients.server import Pace

__all__ = ["clients"]

_ROOT = Path(__file__).parents[2]
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)


@click.command()
@click.option(
    "--clients",
    "names",
    default="aiperf,genai-perf,guidellm,locust",
    show_default=True,
    metavar="NAMES",
    help="What to compare with, separated by commas.",
)
@click.option("--repeat", type=_COUNT, default=3, show_default=True)
@click.option("--concurrency", type=_COUNT, default=4, show_default=True)
@click.option("--request-count", type=_COUNT, default=120, show_default=True)
@click.option("--warmup-request-count", type=_COUNT, default=4, show_default=True)
@click.option("--isl", type=_COUNT, default=200, show_default=True, help="Tokens of a prompt.")
@click.option("--osl", type=_COUNT, default=50, show_default=True, help="Tokens of an answer.")
@click.option("--random-seed", type=int, default=1, show_default=True)
@click.option("--replicas", type=_COUNT, default=2, show_default=True)
@click.option("--ttft-s", type=click.FloatRange(min=0), default=0.05, show_default=True)
@click.option(
    "--tokens-per-s",
    type=click.FloatRange(min=0, min_open=True),
    default=100.0,
    show_default=True,
    help="Of one answer. All together should stay below 1,000 on two cores: more holds up the "
    "slower clients, and then they measure themselves.",
)
@click.option(
    "--direct",
    is_flag=True,
    help="Go to one replica without Triolet, to see what is the clients' own.",
)
@click.option(
    "--cache-dir",
    type=_DIRECTORY,
    default=_ROOT / ".bench",
    show_default=".bench beside pyproject.toml",
    help="Where the tools are installed, once; some 4 GB for all.",
)
@click.option("--keep", type=_DIRECTORY, help="Keep every client's own files in this directory.")
@click.option("--json", "json_file", type=_FILE, help="Write every run and comparison to a file.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write the table for docs/.")
def clients(
    names: str,
    repeat: int,
    concurrency: int,
    request_count: int,
    warmup_request_count: int,
    isl: int,
    osl: int,
    random_seed: int,
    replicas: int,
    ttft_s: float,
    tokens_per_s: float,
    direct: bool,
    cache_dir: Path,
    keep: Path | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Do other load clients see what ours sees? All run against Triolet, one after the other.

    Takes about seven minutes and, once the tools are installed, no network. Exits with 1 if a
    number differs by over 5 % and it is not known why.
    """
    from bench.clients.result import Load
    from bench.clients.server import Pace

    if keep is not None and keep.is_dir() and any(keep.iterdir()):
        raise click.UsageError(f"--keep: {keep} is not empty: old results would be mixed with new")
    signal.signal(signal.SIGTERM, _end)
    load = Load(
        concurrency=concurrency,
        requests=request_count,
        warmup_requests=warmup_request_count,
        input_tokens=isl,
        output_tokens=osl,
        seed=random_seed,
    )
    pace = Pace(1 if direct else replicas, ttft_s, tokens_per_s)
    report = _measure(_names(names), load, pace, direct, repeat, cache_dir.resolve(), keep)
    click.echo(report.text())
    for file, content in ((json_file, report.json), (markdown_file, report.markdown)):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content(), encoding="utf-8")
    if not report.agrees:
        raise click.ClickException("not all numbers agree; see above")


def _measure(
    names: list[str],
    load: Load,
    pace: Pace,
    direct: bool,
    repeat: int,
    cache: Path,
    keep: Path | None,
) -> Report:
    from bench.clients.registry import installed_clients, own_client
    from bench.clients.report import Report
    from bench.clients.server import serve
    from bench.clients.session import run_clients
    from bench.relay.children import ChildFailed
    from bench.relay.machine import describe_machine

    notes: list[str] = []
    all_clients = [own_client(), *installed_clients(names, cache, _say, notes)]
    machine = describe_machine()
    with ExitStack() as stack:
        place = keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="triolet-clients-"))
        )
        try:
            served = stack.enter_context(serve(load.model, pace, direct=direct))
        except ChildFailed as error:
            raise click.ClickException(str(error)) from error
        runs = run_clients(
            all_clients,
            load,
            served,
            repeat=repeat,
            directory=place.resolve(),
            say=_say,
            failures=notes,
        )
    return Report(
        own=all_clients[0].name,
        load=load,
        pace=pace,
        direct=direct,
        repeat=repeat,
        runs=runs,
        versions={client.name: client.version for client in all_clients},
        machine=machine,
        notes=notes,
    )


def _names(given: str) -> list[str]:
    from bench.clients.registry import NAMES

    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        what = f"no client {unknown[0]!r}" if unknown else "name at least one"
        raise click.UsageError(f"--clients: {what}; there are {', '.join(NAMES)}")
    return names


def _say(text: str) -> None:
    click.echo(text, err=True)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the comparison as an exception does, so that its processes are ended too."""
    sys.exit(128 + number)
