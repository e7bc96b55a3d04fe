"""What a validation found, and how it is shown: lines for a terminal, Markdown, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import msgspec

from bench.engine import Profile
from bench.validate.errors import METRICS, Comparison

__all__ = ["Result", "Total", "markdown", "text", "total"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    run: str
    profile: Profile
    engines: int
    requests: int
    prompts: str
    """Where they are from."""
    assumed: tuple[str, ...]
    preemptions: int
    cached_tokens: int
    untuned: Comparison
    held_out: Comparison | None = None
    """The later half of the requests, with constants fitted to the earlier half."""
    calibrated: Comparison | None = None
    """All requests, with constants fitted to all."""
    calibrated_profile: Profile | None = None


class Total(msgspec.Struct, frozen=True):
    """Over all runs: the median of the absolute errors of all their figures."""

    runs: int
    untuned: float
    held_out: float | None
    calibrated: float | None


def total(results: Sequence[Result]) -> Total:
    """Raises ValueError without results."""
    return Total(
        len(results),
        _median([each.untuned for each in results]) or 0.0,
        _median([each.held_out for each in results]),
        _median([each.calibrated for each in results]),
    )


def _median(comparisons: Sequence[Comparison | None]) -> float | None:
    errors = [abs(figure.error) for each in comparisons if each for figure in each.figures]
    return median(errors) if errors else None


def text(results: Sequence[Result]) -> Iterator[str]:
    """Lines for a terminal."""
    for result in results:
        yield f"{result.run}: {result.requests} requests, profile {result.profile.name}"
        yield from (f"  {line}" for line in _about(result))
        heading = ["", "measured", "predicted", "error"]
        heading += [name for name, _ in _others(result)]
        yield "  " + _columns(heading)
        yield from ("  " + _columns(row) for row in _rows(result))
        yield from (f"  {line}" for line in _sums(result))
        yield ""
    yield from _total_lines(results)


def markdown(results: Sequence[Result]) -> Iterator[str]:
    """The same as a Markdown document's tables."""
    for result in results:
        yield f"### {result.run}"
        yield ""
        yield f"{result.requests} requests, profile `{result.profile.name}`. " + " ".join(
            f"{line[:1].upper()}{line[1:]}." for line in _about(result)
        )
        yield ""
        heading = ["", "measured", "predicted", "error"]
        heading += [name for name, _ in _others(result)]
        yield f"| {' | '.join(heading)} |"
        yield f"|---|{'---:|' * (len(heading) - 1)}"
        yield from (f"| {' | '.join(row)} |" for row in _rows(result))
        yield ""
        yield from (f"- {line}" for line in _sums(result))
        yield ""
    yield from _total_lines(results)


def _about(result: Result) -> Iterator[str]:
    yield f"prompts: {result.prompts}"
    if result.engines > 1:
        yield f"{result.engines} engines behind vLLM's own balancer"
    if result.assumed:
        yield f"assumed, as the record does not say: {', '.join(result.assumed)}"
    yield f"{result.preemptions} preemptions and {result.cached_tokens} cached tokens predicted"


def _others(result: Result) -> list[tuple[str, Comparison]]:
    found = (("held out", result.held_out), ("calibrated", result.calibrated))
    return [(name, comparison) for name, comparison in found if comparison is not None]


def _rows(result: Result) -> Iterator[list[str]]:
    others = [
        {(each.metric, each.statistic): each.error for each in comparison.figures}
        for _, comparison in _others(result)
    ]
    for figure in result.untuned.figures:
        errors = [found.get((figure.metric, figure.statistic)) for found in others]
        yield [
            f"{figure.metric} {figure.statistic}, {figure.unit}",
            _number(figure.measured),
            _number(figure.predicted),
            f"{figure.error:+.1%}",
            *("" if error is None else f"{error:+.1%}" for error in errors),
        ]


def _sums(result: Result) -> Iterator[str]:
    for name, comparison in (("untuned", result.untuned), *_others(result)):
        requests = ", ".join(
            f"{metric} {comparison.request_errors[metric]:.1%}" for metric in METRICS
        )
        yield (
            f"{name}: median absolute error of the figures {comparison.median_error:.1%}; "
            f"of single requests: {requests}"
        )


def _total_lines(results: Sequence[Result]) -> Iterator[str]:
    sums = total(results)
    found = (
        ("untuned", sums.untuned),
        ("held out", sums.held_out),
        ("calibrated", sums.calibrated),
    )
    shown = ", ".join(f"{name} {error:.1%}" for name, error in found if error is not None)
    yield f"Median absolute error over all figures of {sums.runs} runs: {shown}."


def _columns(cells: Sequence[str]) -> str:
    return f"{cells[0]:<36}" + "".join(f"{cell:>12}" for cell in cells[1:])


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
