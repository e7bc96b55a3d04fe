"""`triolet bench validate`: recorded runs in, errors of the prediction out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec

from bench.engine import Profile, ProfileError, find_profile
from bench.engine.profile import read_profile
from bench.validate.described import Described, describe
from bench.validate.errors import compare
from bench.validate.facts import FactsError
from bench.validate.fit import fit
from bench.validate.prompts import Prompts, find_prompts
from bench.validate.recording import (
    Recording,
    RecordingError,
    Served,
    bundled_recordings,
    find_recordings,
)
from bench.validate.replay import replay
from bench.validate.results import Result, markdown, text, total
from bench.workload.lines import BadLine

__all__ = ["validate"]

_FEWEST_TO_HALVE = 20
_FRONT_END = find_profile("h100-llama-8b")


@click.command("validate")
@click.argument(
    "paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]..."
)
@click.option(
    "--workload",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The requests' prompts, as blocks or token ids. By default the file that the run's record "
    "names, if it is found; without it no prompt shares anything.",
)
@click.option(
    "--profile",
    "named",
    metavar="NAME|FILE",
    help="Profile of the engine. By default from the GPU and the model that the record names.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Fit the profile's constants: to the earlier half of the requests, judged by the later "
    "half; and to all of them. Prints the latter as JSON for `--profile`.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the results there.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print tables in Markdown.")
def validate(
    paths: tuple[Path, ...],
    workload: Path | None,
    named: str | None,
    calibrate: bool,
    json_file: Path | None,
    as_markdown: bool,
) -> None:
    """Compare the simulator with recorded runs of real engines.

    PATH is a directory with recorded runs or a requests.jsonl with one line for each request, in
    the form of LLMServingSim's benchmark (input_toks, output_toks, arrival_time, first_token_ts,
    last_token_ts), beside a meta.json. Without PATH: the runs that come with the package.
    """
    try:
        given = _profile(named)
        recordings = find_recordings(paths, _warn) if paths else bundled_recordings()
        results = _results(recordings, given, workload, calibrate)
    except (ProfileError, RecordingError, FactsError, BadLine, OSError) as error:
        raise click.ClickException(str(error)) from error
    for line in (markdown if as_markdown else text)(results):
        click.echo(line)
    for each in results:
        if each.calibrated_profile is not None:
            click.echo(f"\n{each.run}, calibrated (save it and give it to `--profile FILE`):")
            click.echo(msgspec.json.format(msgspec.json.encode(each.calibrated_profile)))
    if json_file is not None:
        content = {"total": total(results), "runs": results}
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    if len(results) < len(recordings):
        raise click.ClickException(f"runs left out: {len(recordings) - len(results)}; see above")


def _results(
    recordings: Sequence[Recording], given: Profile | None, workload: Path | None, calibrate: bool
) -> list[Result]:
    """Of all runs that can be predicted; the others are told. Raises if that is none of them."""
    results: list[Result] = []
    refused: list[ProfileError | RecordingError] = []
    for recording in recordings:
        try:
            results.append(_result(recording, given, workload, calibrate))
        except (ProfileError, RecordingError) as error:
            refused.append(error)
    if not results:
        raise refused[0]
    for reason in refused:
        _warn(str(reason))
    return results


def _warn(reason: str) -> None:
    click.echo(f"left out: {reason}", err=True)


def _profile(named: str | None) -> Profile | None:
    if named is None:
        return None
    if named.endswith(".json") or Path(named).is_file():
        return read_profile(Path(named))
    return find_profile(named)


def _result(
    recording: Recording, given: Profile | None, workload: Path | None, calibrate: bool
) -> Result:
    described = describe(recording.facts, given)
    prompts = find_prompts(recording, workload)
    replayed = replay(recording, prompts, described.profile, described.engines)
    result = Result(
        run=recording.name,
        profile=described.profile,
        engines=described.engines,
        requests=len(recording.requests),
        prompts=prompts.source,
        assumed=described.assumed,
        preemptions=replayed.preemptions,
        cached_tokens=replayed.cached_tokens,
        untuned=compare(recording.requests, replayed.requests),
    )
    return _calibrated(result, recording, described, prompts) if calibrate else result


def _calibrated(
    result: Result, recording: Recording, described: Described, prompts: Prompts
) -> Result:
    click.echo(f"{recording.name}: fitting ...", err=True)
    requests = recording.requests
    half = len(requests) // 2

    def predict(part: slice) -> Callable[[Profile], Sequence[Served]]:
        return lambda profile: replay(recording, prompts, profile, described.engines).requests[part]

    everything, early, late = slice(None), slice(half), slice(half, None)
    best = fit(described.profile, requests, predict(everything))
    held_out = None
    if len(requests) >= _FEWEST_TO_HALVE:
        from_early = fit(described.profile, requests[early], predict(early))
        held_out = compare(requests[late], predict(late)(from_early))
    return msgspec.structs.replace(
        result,
        held_out=held_out,
        calibrated=compare(requests, predict(everything)(best)),
        calibrated_profile=_named_calibrated(best, recording),
    )


def _named_calibrated(profile: Profile, recording: Recording) -> Profile:
    """As an engine behind HTTP has them: the front end's times, which no engine's stamp tells."""
    return msgspec.structs.replace(
        profile,
        name=f"{profile.name}-calibrated",
        request_s=_FRONT_END.request_s,
        request_token_s=_FRONT_END.request_token_s,
        source=f"{profile.source}; constants fitted to run {recording.name}",
    )
