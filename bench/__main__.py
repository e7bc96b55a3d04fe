"""`python -m bench`: the benchmarks, one sub-command each."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

_COMMANDS: Final = {
    "load": "bench.load.command:load",
    "calibrate": "bench.load.calibrate_command:calibrate",
    "compare": "bench.report.command:compare",
    "validate": "bench.validate.command:validate",
    "simulate": "bench.simulate.command:simulate_command",
    "prefix-experiment": "bench.simulate.experiment:experiment_command",
    "decision-cost": "bench.simulate.decision_cost:decision_cost_command",
    "peers": "bench.peers.command:peers",
    "clients": "bench.clients.command:clients",
    "relay": "bench.relay.command:relay",
    "engine": "bench.workflows.command:engine",
}
"""Where each is; imported when it is asked for, since each brings its own libraries."""

_DEFAULT: Final = "load"


class _Benchmarks(click.Group):
    """Finds its commands by `_COMMANDS`; options without a command are those of `load`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("--help", "--version"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Their first lines, with `load` first: it is what options without a command mean."""
        super().format_commands(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text("Options without a command are those of load: bench -u URL -m MODEL.")


@click.group(cls=_Benchmarks)
def main() -> None:
    """Measure: load against an endpoint, simulated policies, and what others do on the same run."""


if __name__ == "__main__":
    main(prog_name="triolet bench")
