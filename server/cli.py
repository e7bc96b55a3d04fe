"""The command `triolet`."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from server import __version__
from server.cli_apps import apps
from server.cli_gpu import gpu_agent
from server.cli_replicas import replicas
from server.cli_run import run

__all__ = ["main"]

_WRONG_CONFIG = 2
_FAILED = 1

_config_option = click.option(
    "--config", "path", metavar="FILE", help="Configuration; default ./triolet.toml if it exists."
)
_set_option = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key of the configuration, such as limits.body_bytes=1048576.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="triolet")
def main() -> None:
    """Relay LLM chat traffic to self-hosted replicas, and run LLM workflows."""


main.add_command(apps)
main.add_command(gpu_agent)
main.add_command(replicas)
main.add_command(run)


def _flags(settings: tuple[str, ...], **named: object) -> dict[str, object]:
    flags: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
        flags[key.strip()] = value
    flags |= {name: value for name, value in named.items() if value not in (None, ())}
    return flags


def _load(path: str | None, flags: dict[str, object]) -> Any:
    from server.config import load

    return load(path, environ=os.environ, flags=flags)


def _load_or_exit(path: str | None, flags: dict[str, object]) -> Any:
    from server.config import ConfigError

    try:
        return _load(path, flags)
    except ConfigError as exc:
        click.echo(str(exc), err=True)
        sys.exit(_WRONG_CONFIG)


@main.command()
@_config_option
@click.option("--listen", multiple=True, metavar="URL", help="Address to listen on; repeatable.")
@click.option("--drain-s", type=float, help="Seconds for streams to finish after SIGTERM.")
@click.option("--log-format", type=click.Choice(["text", "json"]))
@click.option("--access-log/--no-access-log", default=None, help="One line for each exchange.")
@_set_option
def serve(
    path: str | None,
    listen: tuple[str, ...],
    drain_s: float | None,
    log_format: str | None,
    access_log: bool | None,
    settings: tuple[str, ...],
) -> None:
    """Serve: relay to the configured replicas, to engines found here, or to a demo."""
    flags = _flags(
        settings, listen=listen, drain_s=drain_s, log_format=log_format, access_log=access_log
    )
    config = _load_or_exit(path, flags)
    _raise_file_limit(config.limits.connections + 100)

    from server.main import serve as run

    try:
        run(config, lambda: _load(path, flags))
    except OSError as exc:
        click.echo(f"triolet: {exc.strerror or exc}", err=True)
        sys.exit(_FAILED)


@main.command("check-config")
@_config_option
@_set_option
def check_config(path: str | None, settings: tuple[str, ...]) -> None:
    """Check the configuration and print what would be in force."""
    from server.config import describe

    click.echo(describe(_load_or_exit(path, _flags(settings))))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8001, show_default=True, help="0 takes any free port.")
@click.option("--model", default="demo", show_default=True)
@click.option("--name", default="demo-0", show_default=True, help="What it calls itself.")
@click.option("--seed", default=0, show_default=True)
@click.option("--ttft-s", default=0.15, show_default=True, help="Seconds to the first token.")
@click.option("--tokens-per-s", default=40.0, show_default=True)
@click.option(
    "--profile", metavar="NAME", help="Simulate this engine: h100-llama-8b, or a JSON file."
)
@click.option("--kv-tokens", type=int, help="Room for keys and values, in tokens.")
@click.option("--max-num-seqs", type=int, help="Sequences in a batch.")
@click.option("--max-num-batched-tokens", type=int, help="Tokens computed in one step.")
@click.option("--max-model-len", type=int, help="Prompt and answer together, in tokens.")
@click.option("--time-scale", type=float, help="All simulated times are multiplied by this.")
@click.option("--slow", type=float, help="Steps take so many times as long.")
@click.option("--foreign-load", type=float, help="Share of the GPU that others use, 0 to 0.8.")
@click.option("--error-rate", type=float, help="Share of requests that fail, 0 to 1.")
@click.option("--error-status", type=int, help="The status they fail with.")
@click.option("--warmup-s", type=float, help="So long after a start, steps are erratically slow.")
@click.option("--warmup-slow", type=float, help="How many times as long they take at most then.")
@click.option("--old-metric-names", is_flag=True, help="Metric names of vLLM before 0.9.2.")
@click.pass_context
def replica(context: click.Context, /, host: str, port: int, **given: Any) -> None:
    """Run a replica: a simulated model server that speaks OpenAI's API."""
    from server.demo import run_replica

    try:
        settings = _replica_settings(context, given)
        _raise_file_limit()
        run_replica(host, port, settings)
    except (OSError, ValueError) as exc:
        click.echo(f"triolet: {exc}", err=True)
        sys.exit(_FAILED)


_STEADY_OPTIONS = ("ttft_s", "tokens_per_s")
_PROFILE_OPTIONS = (
    *("kv_tokens", "max_num_seqs", "max_num_batched_tokens"),
    *("max_model_len", "time_scale"),
)
_FAULT_OPTIONS = (
    *("slow", "foreign_load", "error_rate", "error_status"),
    *("warmup_s", "warmup_slow"),
)
_OTHER_OPTIONS = ("model", "name", "seed", "old_metric_names")


def _replica_settings(context: click.Context, given: dict[str, Any]) -> Any:
    """Raises ValueError for a value out of range, UsageError for options that exclude others."""
    from bench.replica import Faults, ReplicaSettings, load_profile

    default = click.core.ParameterSource.DEFAULT
    typed = {key for key in given if context.get_parameter_source(key) is not default}
    name = given.pop("profile")
    if name is None:
        _refuse_options(typed & {*_PROFILE_OPTIONS, *_FAULT_OPTIONS}, "needs --profile")
        return ReplicaSettings(**{key: given[key] for key in (*_OTHER_OPTIONS, *_STEADY_OPTIONS)})
    _refuse_options(typed & {*_STEADY_OPTIONS}, "has no effect with --profile")
    return ReplicaSettings(
        **{key: given[key] for key in _OTHER_OPTIONS},
        profile=load_profile(name, **{key: given[key] for key in _PROFILE_OPTIONS if key in typed}),
        faults=Faults(**{key: given[key] for key in _FAULT_OPTIONS if key in typed}),
    )


def _refuse_options(keys: set[str], why: str) -> None:
    for key in sorted(keys):
        raise click.UsageError(f"--{key.replace('_', '-')} {why}")


_PASSED_ON: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
    "add_help_option": False,
}


@main.command(**_PASSED_ON)
@click.pass_context
def bench(context: click.Context) -> None:
    """Measure an endpoint under load, and more. `triolet bench --help` lists what."""
    _exec_bench(*context.args)


@main.command(**_PASSED_ON)
@click.pass_context
def simulate(context: click.Context) -> None:
    """Compare placement policies on simulated replicas: `triolet bench simulate`."""
    _exec_bench("simulate", *context.args)


def _exec_bench(*args: str) -> NoReturn:
    # A process of its own: the measuring side shares nothing with the server.
    os.execv(sys.executable, [sys.executable, "-m", "bench", *args])


def _raise_file_limit(wanted: int = 0) -> None:
    """A stream takes two descriptors: use what the system lets us have, and say if it is less."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (ValueError, OSError) as exc:
        click.echo(f"triolet: the limit of {soft} open files stays: {exc}", err=True)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        click.echo(
            f"triolet: limits.connections needs {wanted} open files and more, the system allows "
            f"{soft} (raise `ulimit -n`, or lower limits.connections)",
            err=True,
        )


if __name__ == "__main__":
    main()
