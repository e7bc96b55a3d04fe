"""The clients run one after the other against one server, several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.clients.process import run_client
from bench.clients.registry import Client
from bench.clients.result import ClientFailed, Load, Result
from bench.clients.server import Seen, Served

__all__ = ["Run", "run_clients"]

_RUN_LIMIT_S: Final = 600.0


class Run(NamedTuple):
    """One client's run, by its own account and by the replicas'."""

    repetition: int
    result: Result
    seen: Seen


def run_clients(
    clients: Sequence[Client],
    load: Load,
    served: Served,
    *,
    repeat: int,
    directory: Path,
    say: Callable[[str], None],
    failures: list[str],
) -> list[Run]:
    """Every client `repeat` times, there and back in turn, so that what changes slowly on the
    machine falls on all alike. What goes wrong is told in `failures`."""
    runs: list[Run] = []
    for repetition in range(repeat):
        order = clients if repetition % 2 == 0 else clients[::-1]
        for client in order:
            place = directory / f"{client.name.replace(' ', '-')}-{repetition + 1}"
            place.mkdir(parents=True)
            try:
                run = Run(repetition, *_run(client, load, served, place))
            except (ClientFailed, OSError) as error:
                failures.append(f"{client.name}, repetition {repetition + 1}: {error}")
                say(failures[-1])
            else:
                say(_line(run))
                runs.append(run)
    return runs


def _run(client: Client, load: Load, served: Served, place: Path) -> tuple[Result, Seen]:
    before = served.look()
    command = client.command(load, served.url, place)
    log = place / "output.log"
    run_client(command, client.environment(load), log=log, limit_s=_RUN_LIMIT_S)
    return client.read(place, load), served.look().since(before)


def _line(run: Run) -> str:
    result = run.result
    return (
        f"{run.repetition + 1}  {result.client:<14} {result.sent} sent, {result.errors} failed, "
        f"TTFT {_shown(result.times.ttft_avg_ms)} ms, ITL {_shown(result.times.itl_avg_ms)} ms, "
        f"{_shown(result.tokens_per_s)} tokens/s"
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
