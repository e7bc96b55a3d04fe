"""`triolet bench`: options in, load out, a table and files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from bench.load.flags import load_flags

if TYPE_CHECKING:
    from bench.load.chosen import Chosen
    from bench.load.result import RunResult
    from bench.report.run import Run

__all__ = ["load"]

_INTERRUPTED = 130


@click.command()
@load_flags
def load(**given: Any) -> None:
    """Measure an OpenAI-compatible endpoint under load.

    Exits with 0; with 1 if every request failed or too many did; with 130 after Ctrl-C or
    SIGTERM, the report of what was measured until then being written all the same; a second one
    ends even that.
    """
    try:
        sys.exit(_load(given))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _load(given: dict[str, Any]) -> int:
    """Measure and report; the exit code."""
    from bench.load.chosen import choose
    from bench.load.handover import command_line, report_run
    from bench.report.metrics import analyse
    from bench.report.sweep import sweep_text
    from bench.report.table import run_text

    chosen = choose(given)
    _check_destination(given)
    results = _measure(chosen, given)
    runs = [
        report_run(result, name=given["name"], command=command_line(), config=_config(given))
        for result in results
    ]
    for number, run in enumerate(runs):
        run.warnings += _of_data(chosen, again=number > 0)
    analyses = [analyse(run) for run in runs]
    tables = [run_text(analysis.run, analysis.metrics) for analysis in analyses]
    if len(analyses) > 1:
        tables.append(sweep_text(analyses))
    _deliver(runs, "\n".join(tables), given)
    return _exit_code(results, given["failed_request_threshold"])


def _of_data(chosen: Chosen, *, again: bool) -> Iterator[str]:
    """What the report of a load point, the first or one that came again, should say of its data."""
    skipped = chosen.bad_lines
    if skipped.count:
        yield f"{skipped.count} malformed lines were skipped, the first: {skipped.messages[0]}"
    if again and any(session.texts for session in islice(chosen.workload.sessions, 1)):
        yield (
            "an earlier load point sent the same recorded prompts: they can have been in the "
            "target's prefix cache"
        )


def _check_destination(given: dict[str, Any]) -> None:
    from bench.report.write import check_destination

    try:
        check_destination(given["artifact_dir"], given["profile_export_prefix"])
    except (OSError, ValueError) as error:
        raise click.UsageError(f"the report could not be written: {error}") from error


def _deliver(runs: list[Run], tables: str, given: dict[str, Any]) -> None:
    """Files first: nothing is lost where nobody reads what is printed."""
    from bench.report.write import write_reports

    try:
        written = write_reports(runs, given["artifact_dir"], prefix=given["profile_export_prefix"])
    except OSError as error:
        click.echo(tables)
        raise click.ClickException(f"the report could not be written: {error}") from error
    click.echo(tables)
    click.echo(f"report: {written[0]}")
    if not given["streaming"]:
        click.echo(
            "not streamed, so without time to first token: --streaming measures it", err=True
        )


def _measure(chosen: Chosen, given: dict[str, Any]) -> list[RunResult]:
    from bench.load.progress import live_line
    from bench.load.runner import run, run_alone, stop_on_interrupt
    from bench.relay.fake import raise_descriptor_limit

    raise_descriptor_limit()
    shown = live_line() if given["ui"] == "auto" else None

    async def points() -> list[RunResult]:
        results: list[RunResult] = []
        async with stop_on_interrupt() as stop:
            for number, plan in enumerate(chosen.plans * given["num_profile_runs"]):
                if stop.is_set():
                    break
                results.append(
                    await run(
                        plan,
                        chosen.workload,
                        render=_words_of_point(number),
                        stop=stop,
                        shown=shown,
                        count=chosen.tokenizer.count,
                    )
                )
        return results

    try:
        return run_alone(points)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _words_of_point(number: int) -> Any:
    """Each load point has words of its own: what one left in the target's prefix cache must not
    help the next. Their numbers, and what shares a prefix with what, are the same."""
    from bench.workload.model import segment_key
    from bench.workload.text import render

    salt = segment_key("load point", number) if number else 0
    return lambda key, tokens: render(key ^ salt, tokens)


def _config(given: dict[str, Any]) -> dict[str, Any]:
    hidden = {"api_key", "headers"}
    plain = (str, int, float, bool, list, tuple)
    return {
        name.replace("_", "-"): value if isinstance(value, plain) else str(value)
        for name, value in given.items()
        if value is not None and value is not False and value not in ((), "") and name not in hidden
    }


def _exit_code(results: list[RunResult], threshold: float | None) -> int:
    if any(result.was_cancelled for result in results):
        return _INTERRUPTED
    for result in results:
        measured = result.measured
        failed = sum(record.outcome in ("error", "unfinished") for record in measured)
        if not any(record.outcome == "ok" for record in measured):
            return 1
        if threshold is not None and failed > threshold * len(measured):
            return 1
    return 0
