"""`triolet bench`: options in, load out, a table and files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bench.load.flags import load_flags

if TYPE_CHECKING:
    from bench.load.chosen import Chosen
    from bench.load.result import RunResult

__all__ = ["load"]

_INTERRUPTED = 130


@click.command()
@load_flags
def load(**given: Any) -> None:
    """Measure an OpenAI-compatible endpoint under load.

    Exits with 0; with 1 if every request failed or too many did; with 130 after Ctrl-C, the report
    of what was measured until then being written all the same.
    """
    from bench.load.chosen import choose
    from bench.load.handover import command_line, report_run
    from bench.report.metrics import analyse
    from bench.report.sweep import sweep_text
    from bench.report.table import run_text
    from bench.report.write import write_reports

    chosen = choose(given)
    results = _measure(chosen, given)
    runs = [
        report_run(result, name=given["name"], command=command_line(), config=_config(given))
        for result in results
    ]
    for run in runs:
        run.warnings += chosen.bad_lines.messages[:1] and [
            f"{chosen.bad_lines.count} malformed lines were skipped, the first: "
            f"{chosen.bad_lines.messages[0]}"
        ]
    analyses = [analyse(run) for run in runs]
    for analysis in analyses:
        click.echo(run_text(analysis.run, analysis.metrics))
    if len(analyses) > 1:
        click.echo(sweep_text(analyses))
    written = write_reports(runs, given["artifact_dir"], prefix=given["profile_export_prefix"])
    click.echo(f"report: {written[0]}")
    sys.exit(_exit_code(results, given["failed_request_threshold"]))


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
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


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
        if value not in (None, (), False, "") and name not in hidden
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
