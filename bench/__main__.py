"""`python -m bench`: the benchmarks, one sub-command each."""

from __future__ import annotations

import click

from bench.relay.command import relay


@click.group()
def main() -> None:
    """Measure Triolet from outside."""


main.add_command(relay)

if __name__ == "__main__":
    main(prog_name="bench")
