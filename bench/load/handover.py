"""A result as the reports take it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bench.load.plan import Plan, Rated, Scheduled
from bench.load.result import ClientFacts, RunResult
from bench.report.run import ClientLag, Mode, Run, ServerFacts
from bench.version import triolet_version

__all__ = ["command_line", "report_run"]

_SECRET_FLAGS: Final = ("--api-key", "--header", "-H")


def report_run(
    result: RunResult, *, name: str = "", command: str = "", config: dict[str, Any] | None = None
) -> Run:
    """The run of a result, with what is known of this machine and version."""
    plan = result.plan
    return Run(
        records=result.records,
        probes=result.probes,
        idle_probes=result.idle_probes,
        started_at=result.started_at,
        duration_s=result.duration_s,
        mode=_mode(plan),
        load=plan.load,
        model=plan.model,
        url=", ".join(plan.urls),
        endpoint_type=plan.endpoint_type,
        streamed=plan.streaming,
        name=name,
        workload=result.workload,
        command_line=command,
        seed=plan.seed,
        version=triolet_version() or "",
        config=msgspec.to_builtins(plan) if config is None else config,
        environment=_environment(result.client),
        was_cancelled=result.was_cancelled,
        warnings=[*_of_sessions(result), *result.warnings],
        client_lag=_lag(result.client),
        goodput=plan.goodput,
        server=_server(result),
    )


def _server(result: RunResult) -> ServerFacts | None:
    if not result.metrics_before and not result.metrics_after:
        return None
    return ServerFacts(metrics_before=result.metrics_before, metrics_after=result.metrics_after)


def _of_sessions(result: RunResult) -> list[str]:
    if not result.turns_not_sent:
        return []
    return [f"{result.turns_not_sent} later turns were not sent: their sessions ended early"]


def _mode(plan: Plan) -> Mode:
    if isinstance(plan.loop, Scheduled):
        return "schedule"
    return "request_rate" if isinstance(plan.loop, Rated) else "concurrency"


def _lag(client: ClientFacts) -> ClientLag:
    return ClientLag(
        mean_s=client.lag_mean_s,
        p99_s=client.lag_p99_s,
        max_s=client.lag_max_s,
        late_sends=client.late_sends,
        cpu_share=client.cpu_s / client.wall_s if client.wall_s else None,
        spoiled=client.spoiled,
    )


def _environment(client: ClientFacts) -> dict[str, str]:
    per_chunk, per_request = client.cpu_us_per_chunk, client.cpu_us_per_request
    costs = {
        "client CPU per chunk": None if per_chunk is None else f"{per_chunk:.1f} us",
        "client CPU per request": None if per_request is None else f"{per_request:.1f} us",
        "client loop busy": f"{client.busy_share:.1%}",
        "client loop pass p99": f"{client.pass_p99_s * 1e3:.3g} ms",
    }
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": str(os.cpu_count()),
        **{name: text for name, text in costs.items() if text is not None},
    }


def command_line(arguments: Sequence[str] | None = None) -> str:
    """How this program was called, without keys and headers' values."""
    shown: list[str] = []
    hide = False
    for argument in ["triolet", "bench", *sys.argv[1:]] if arguments is None else arguments:
        if argument.startswith("-H") and argument != "-H":
            argument = "-H=***"  # its value stands in the same word
        flag, equals, _ = argument.partition("=")
        secret = flag in _SECRET_FLAGS
        shown.append("***" if hide else f"{flag}=***" if secret and equals else argument)
        hide = secret and not equals
    return " ".join(map(_quoted, shown))


def _quoted(argument: str) -> str:
    plain = argument and not any(sign in argument for sign in " \"'\\$`|&;<>(){}*?")
    return argument if plain or argument == "***" else "'" + argument.replace("'", "'\\''") + "'"
