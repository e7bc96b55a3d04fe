"""`triolet bench compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["compare"]


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="[NAME=]RUN...")
@click.option(
    "--confidence", default=0.95, show_default=True, help="Of the intervals, between 0 and 1."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write JSON here.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Also write HTML here.")
def compare(
    runs: tuple[str, ...], confidence: float, json_file: Path | None, html_file: Path | None
) -> None:
    """Compare RUNs: directories that `triolet bench` wrote, of one run or of a sweep.

    Ratios are to the first. RUNs of one NAME (as given here or when they were measured) are taken
    as repetitions of one another: their interval covers what differs from run to run.
    """
    from bench.report.compare import compare as compared
    from bench.report.compare import comparison_text
    from bench.report.compare_files import comparison_json, comparison_page, gather
    from bench.report.write import ReadError, replace_file

    try:
        found = compared(gather(runs), confidence=confidence)
        if not found:
            raise click.ClickException("the runs have no load in common with the first")
        click.echo("\n".join(map(comparison_text, found)), nl=False)
        for file, content in ((json_file, comparison_json), (html_file, comparison_page)):
            if file is not None:
                replace_file(file, [content(found)])
    except (ReadError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.FileError(str(error.filename), error.strerror) from error
