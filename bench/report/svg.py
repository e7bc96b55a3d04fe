"""Charts as SVG text: axes, lines, points and bars, and nothing from elsewhere.

Colours come from CSS classes (`s0` to `s5`, `bad`), so that the page decides them for light and
dark. Every chart has a title and a description for those who do not see it, and axes with units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Final, Literal, NamedTuple

__all__ = ["Axis", "Chart", "Point", "Series", "thinned"]

WIDTH: Final = 560
HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 42, 46
_LARGEST: Final = 1e15
"""What is beyond this (or not a number) is no measurement and is left out."""
_ROOM: Final = 0.03
"""Of an axis, left free beyond the outermost values."""

Point = tuple[float, float]


class Axis(NamedTuple):
    """What an axis shows."""

    label: str
    """With the unit, in brackets."""
    log: bool = False
    """Values of zero and below are left out then."""
    from_zero: bool = False


class Series(NamedTuple):
    """What is drawn in one colour."""

    name: str
    points: Sequence[Point]
    kind: Literal["line", "dots", "bars", "marks"] = "line"
    """`bars`: each from its point's x to the next one's; `marks`: a line with a dot at each."""
    style: str = ""
    """A CSS class; without one, `s0`, `s1`, ... by place."""
    labels: Sequence[str] = ()
    """Text at each point."""


class Chart(NamedTuple):
    """One picture."""

    title: str
    description: str
    x: Axis
    y: Axis
    series: Sequence[Series]

    def svg(self, number: int) -> str:
        """The `<svg>` element; `number` makes its ids unique within a page."""
        shown = [_visible(one, self.x, self.y) for one in self.series]
        points = [point for one in shown for point in one.points]
        if not points:
            return f"<p class='none'>{escape(self.title)}: nothing was measured.</p>"
        across = _Scale.fitted([p[0] for p in points], self.x, _LEFT, WIDTH - _RIGHT)
        up = _Scale.fitted([p[1] for p in points], self.y, HEIGHT - _BOTTOM, _TOP)
        parts = [
            f"<svg role='img' viewBox='0 0 {WIDTH} {HEIGHT}' aria-labelledby='t{number} d{number}'>"
            f"<title id='t{number}'>{escape(self.title)}</title>"
            f"<desc id='d{number}'>{escape(self.description)}</desc>",
            _text("title", _LEFT, 16, self.title),
            *_x_axis(self.x, across),
            *_y_axis(self.y, up),
            *(part for place, one in enumerate(shown) for part in _drawn(one, place, across, up)),
            *_legend(shown),
            "</svg>",
        ]
        return "".join(parts)


class _Scale(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def fitted(cls, values: Sequence[float], axis: Axis, start: float, end: float) -> _Scale:
        low, high = min(values), max(values)
        if axis.log:
            low, high = math.log10(low), math.log10(high)
        elif axis.from_zero:
            low = min(low, 0.0)
        largest = max(abs(low), abs(high))
        if high - low <= 1e-9 * max(largest, 1e-3):
            low, high = low - 0.1 * largest - 0.5, high + 0.1 * largest + 0.5
        room = _ROOM * (high - low)
        below = 0.0 if axis.from_zero and low == 0 else room
        return cls(low - below, high + room, start, end, axis.log)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        place = math.log10(value) if self.log else value
        share = (place - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within, about five."""
        if not self.log:
            return _linear_ticks(self.low, self.high)
        low, high, span = 10**self.low, 10**self.high, self.high - self.low
        decades = range(math.floor(self.low), math.ceil(self.high) + 1, math.ceil(span / 8))
        steps = (1,) if span > 4 else (1, 3) if span > 1 else (1, 2, 5)
        found = [step * 10.0**d for d in decades for step in steps]
        inside = [one for one in found if low * 0.999 <= one <= high * 1.001]
        return inside if len(inside) > 2 else _linear_ticks(low, high)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _number(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _pixel(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(style: str, x: float, y: float, text: str) -> str:
    return f"<text class='{style}' x='{_pixel(x)}' y='{_pixel(y)}'>{escape(text)}</text>"


def _visible(series: Series, x: Axis, y: Axis) -> Series:
    kept = [
        place
        for place, point in enumerate(series.points)
        if all(abs(value) <= _LARGEST for value in point)
        and not (x.log and point[0] < 1 / _LARGEST)
        and not (y.log and point[1] < 1 / _LARGEST)
    ]
    labels = [series.labels[place] for place in kept] if series.labels else ()
    return series._replace(points=[series.points[place] for place in kept], labels=labels)


def _x_axis(axis: Axis, scale: _Scale) -> Iterator[str]:
    base = HEIGHT - _BOTTOM
    for tick in scale.ticks():
        place = _pixel(scale.at(tick))
        yield f"<path class='grid' d='M{place} {_TOP}V{base}'/>"
        yield _text("tick mid", scale.at(tick), base + 15, _number(tick))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    yield f"<path class='axis' d='M{_LEFT} {base}H{WIDTH - _RIGHT}'/>"
    yield _text("label mid", middle, HEIGHT - 10, _axis_label(axis))


def _axis_label(axis: Axis) -> str:
    return f"{axis.label}, logarithmic" if axis.log else axis.label


def _y_axis(axis: Axis, scale: _Scale) -> Iterator[str]:
    for tick in scale.ticks():
        place = scale.at(tick)
        yield f"<path class='grid' d='M{_LEFT} {_pixel(place)}H{WIDTH - _RIGHT}'/>"
        yield _text("tick end", _LEFT - 6, place + 4, _number(tick))
    middle = _pixel((_TOP + HEIGHT - _BOTTOM) / 2)
    yield (
        f"<text class='label mid' transform='translate(14 {middle}) rotate(-90)'>"
        f"{escape(_axis_label(axis))}</text>"
    )


def _drawn(series: Series, place: int, x: _Scale, y: _Scale) -> Iterator[str]:
    if not series.points:
        return
    pixels = [(x.at(one), y.at(other)) for one, other in series.points]
    style = series.style or f"s{place % 6}"
    if series.kind == "bars":
        yield f"<path class='bar {style}' d='{_bars(pixels)}'/>"
    if series.kind in ("line", "marks"):
        yield f"<path class='line {style}' d='{_line(pixels)}'/>"
    if series.kind in ("dots", "marks"):
        size = "dot big" if series.kind == "marks" or series.style == "bad" else "dot"
        yield f"<path class='{size} {style}' d='{_dots(pixels)}'/>"
    for (across, up), text in zip(pixels, series.labels, strict=False):
        yield _text("tick", across + 6, up - 5, text)


def _line(pixels: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_pixel(x)} {_pixel(y)}" for x, y in pixels)


def _dots(pixels: Sequence[Point]) -> str:
    return "".join(f"M{_pixel(x)} {_pixel(y)}h0" for x, y in pixels)


def _bars(pixels: Sequence[Point]) -> str:
    base = HEIGHT - _BOTTOM
    spans = pairwise(pixels)
    return "".join(
        f"M{_pixel(x)} {base}V{_pixel(y)}H{_pixel(end)}V{base}Z" for (x, y), (end, _) in spans
    )


def _legend(series: Sequence[Series]) -> Iterator[str]:
    named = [(place, one) for place, one in enumerate(series) if one.name and one.points]
    if len(named) < 2:
        return
    right = float(WIDTH - _RIGHT)
    for place, one in reversed(named):
        style = one.style or f"s{place % 6}"
        yield _text("tick end", right, _TOP - 9, one.name)
        right -= 6.2 * len(one.name) + 9
        yield f"<path class='dot big {style}' d='M{_pixel(right)} {_TOP - 13}h0'/>"
        right -= 12


def thinned(
    points: Sequence[Point], at_most: int, weight: Callable[[Point], float] = lambda point: point[1]
) -> Sequence[Point]:
    """At most `at_most` points that look like all of them: of each stretch the least and the most
    by `weight`, in their order, so that no peak is lost."""
    if len(points) <= at_most:
        return points
    size = math.ceil(2 * len(points) / at_most)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = sorted({_place(part, weight, min), _place(part, weight, max)})
        kept.extend(part[place] for place in ends)
    return kept


def _place(
    part: Sequence[Point],
    weight: Callable[[Point], float],
    choose: Callable[..., int],
) -> int:
    return choose(range(len(part)), key=lambda place: weight(part[place]))
