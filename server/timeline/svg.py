"""The picture of a run: a row for each node run, containers and their rounds nested. Pure.

Colours are in a style sheet of the picture itself, for light and for dark. Each row has its facts
as a tooltip. All text of the run is escaped: it came from a file, a model or a web page.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from typing import Final, NamedTuple

from server.timeline.path import mark_critical
from server.timeline.reading import NodeSpan, RoundSpan, RunSpan, Within

__all__ = ["MOST_ROWS", "draw"]

MOST_ROWS: Final = 5_000
"""Rows that are drawn; of more the last line says how many are left out."""

_WIDTH: Final = 1200
_LABELS: Final = 330
_RIGHT: Final = 92
_TOP: Final = 78
_ROW: Final = 20
_BAR: Final = 12
_INDENT: Final = 14
_LEAST: Final = 1.5
"""Pixels of the shortest bar: what ran is seen."""
_LONGEST_TEXT: Final = 300
_LONGEST_NAME: Final = 30

_KINDS: Final = {
    **dict.fromkeys(("llm", "question-classifier", "parameter-extractor", "agent"), "model"),
    **dict.fromkeys(("http-request", "tool", "knowledge-retrieval"), "io"),
    **dict.fromkeys(("code", "template-transform", "document-extractor"), "cpu"),
    **dict.fromkeys(("iteration", "loop"), "container"),
    "human-input": "people",
}
"""What a node waits for, by its type; of others "logic"."""

_LEGEND: Final = (
    *(("model", "model"), ("io", "HTTP, tools"), ("cpu", "code"), ("container", "container")),
    *(("people", "people"), ("logic", "logic"), ("failed", "failed")),
    *(("exception", "failed, handled"), ("stopped", "stopped")),
)

_STYLE: Final = """
.page{fill:#fff}text{font:12px system-ui,sans-serif;fill:#1d2733}
.head{font-size:15px;font-weight:600}.small{font-size:11px;fill:#5b6876}.end{text-anchor:end}
.mid{text-anchor:middle}.grid{stroke:#dde3ea;stroke-width:1}.odd{fill:#f5f7fa}
.round{fill:#dfe6ee}.wait{stroke:#8593a3;stroke-width:2;stroke-dasharray:2 3}
.model{fill:#3b6fd4}.io{fill:#16908a}.cpu{fill:#8457c9}.container{fill:#93a3b5}
.people{fill:#c2772b}.logic{fill:#5f7387}
.failed{fill:#d13b3b}.exception{fill:#d9960b}.stopped{fill:#a9b1ba}
.running{fill-opacity:.55}.queued{fill-opacity:.3}.try{fill:#d13b3b;fill-opacity:.55}
.token{fill:none;stroke:#0b0f14;stroke-width:2}.critical .bar{stroke:#e0218a;stroke-width:2}
.critical .name{font-weight:600}.path{stroke:#e0218a;stroke-width:2;fill:none}
@media (prefers-color-scheme:dark){.page{fill:#12171d}text{fill:#e3e9f0}.small{fill:#9aa7b5}
.grid{stroke:#2a333d}.odd{fill:#171d24}.round{fill:#27313c}.token{stroke:#fff}
.model{fill:#6d9bf5}.io{fill:#38b8b1}.cpu{fill:#a985e6}.container{fill:#6b7b8d}
.people{fill:#e09a52}.logic{fill:#8ea0b3}}
"""


class _Row(NamedTuple):
    """One line of the picture."""

    depth: int
    node: NodeSpan | None
    round: RoundSpan | None


def draw(run: RunSpan, name: str = "") -> str:
    """The SVG document of a run; `name` is the app's. Marks the run's critical path."""
    mark_critical(run)
    rows = list(_Rows(run).all())
    shown = rows[:MOST_ROWS]
    height = _TOP + _ROW * (len(shown) + (len(rows) > len(shown))) + 16
    scale = _Scale.of(run)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}">',
        f"<title>{_clean(name or 'run')}: {_clean(run.status)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        *_heading(run, name),
        *_axis(scale, height),
    ]
    for number, row in enumerate(shown):
        parts += _drawn(row, _TOP + number * _ROW, number, scale)
    if len(rows) > len(shown):
        more = f"and {len(rows) - len(shown)} rows more"
        parts.append(_text("small", 10, height - 18, more))
    return "\n".join([*parts, "</svg>", ""])


class _Rows:
    """The lines in reading order: a container, its rounds, what ran in each."""

    def __init__(self, run: RunSpan) -> None:
        self._nodes: dict[Within, list[NodeSpan]] = defaultdict(list)
        self._rounds: dict[tuple[str, Within], list[RoundSpan]] = defaultdict(list)
        for node in run.nodes:
            self._nodes[node.within].append(node)
        for one in sorted(run.rounds, key=lambda one: one.number):
            self._rounds[one.container_id, one.within].append(one)

    def all(self) -> Iterator[_Row]:
        """What is inside a container that never started comes last."""
        yield from self._inside((), 0)
        for within in sorted(self._nodes):
            for node in self._nodes[within]:
                yield _Row(len(within), node, None)

    def _inside(self, within: Within, depth: int) -> Iterator[_Row]:
        for node in self._nodes.pop(within, ()):
            yield _Row(depth, node, None)
            for one in self._rounds.pop((node.node_id, within), ()):
                yield _Row(depth + 1, None, one)
                yield from self._inside((*within, (node.node_id, one.number)), depth + 2)


class _Scale(NamedTuple):
    """From times to pixels."""

    start: float
    length_s: float

    @classmethod
    def of(cls, run: RunSpan) -> _Scale:
        ends = [run.ended_at, *(node.ended_at for node in run.nodes)]
        starts = [run.started_at, *(node.ready_at for node in run.nodes)]
        start = min(starts)
        return cls(start, max(max(ends) - start, 1e-6))

    def at(self, time: float) -> float:
        share = (time - self.start) / self.length_s
        return _LABELS + (_WIDTH - _RIGHT - _LABELS) * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Round times within, in seconds since the start, about six."""
        rough = self.length_s / 7
        power = 10.0 ** _floor_log10(rough)
        step = next(one * power for one in (1, 2, 5, 10) if one * power >= rough * 0.999)
        return [step * number for number in range(int(self.length_s / step + 1e-9) + 1)]


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _heading(run: RunSpan, name: str) -> Iterator[str]:
    facts = [run.status, _duration(run.ended_at - run.started_at), f"{len(run.nodes)} node runs"]
    if run.tokens:
        facts.append(f"{run.tokens} tokens")
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    title = " · ".join([short, *facts] if name else facts)
    yield _text("head", 10, 22, title)
    if run.error:
        yield _text("small", 10, 38, run.error)
    across = float(_WIDTH - 10)
    for style, label in reversed(_LEGEND):
        yield _text("small end", across, 22, label)
        across -= 6.1 * len(label) + 6
        yield f'<rect class="{style}" x="{across - 10:.1f}" y="13" width="10" height="10" rx="2"/>'
        across -= 22
    yield _text(
        "small end",
        _WIDTH - 10,
        40,
        "pink: critical path · dashed: waiting · pale: for a slot · |: first token",
    )


def _axis(scale: _Scale, height: int) -> Iterator[str]:
    for tick in scale.ticks():
        across = scale.at(scale.start + tick)
        yield f'<path class="grid" d="M{across:.1f} {_TOP - 8}V{height - 12}"/>'
        yield _text("small mid", across, _TOP - 13, _duration(tick))


def _drawn(row: _Row, top: int, number: int, scale: _Scale) -> list[str]:
    parts = []
    if number % 2:
        parts.append(f'<rect class="odd" x="0" y="{top}" width="{_WIDTH}" height="{_ROW}"/>')
    if row.node is not None:
        parts += _node(row.node, row.depth, top, scale)
    elif row.round is not None:
        parts += _round(row.round, row.depth, top, scale)
    return parts


def _round(one: RoundSpan, depth: int, top: int, scale: _Scale) -> list[str]:
    left, width = _extent(one.started_at, one.ended_at, scale)
    return [
        f"<g><title>round {one.number}: {_duration(one.ended_at - one.started_at)}</title>",
        _text("small", 10 + _INDENT * depth, top + 14, f"round {one.number}"),
        f'<rect class="round" x="{left:.1f}" y="{top + 8}" width="{width:.1f}" height="5" rx="2"/>',
        "</g>",
    ]


def _node(node: NodeSpan, depth: int, top: int, scale: _Scale) -> list[str]:
    left, width = _extent(node.started_at, node.ended_at, scale)
    middle = top + _ROW / 2
    style = _KINDS.get(node.type, "logic")
    if node.status in ("failed", "exception", "stopped"):
        style = node.status
    elif node.status == "running":
        style += " running"
    critical = ' class="critical"' if node.critical else ""
    parts = [
        f'<g data-node-run="{_clean(node.id)}"{critical}>',
        f"<title>{_clean(_facts(node, scale))}</title>",
        _text("name", 10 + _INDENT * depth, top + 14, _label(node, depth)),
    ]
    if scale.at(node.started_at) - scale.at(node.ready_at) >= 1:
        parts.append(_waiting(node.ready_at, node.started_at, middle, scale))
    if node.tries:
        parts += _tries(node, style, top, scale)
    else:
        parts += _whole(node, style, top, scale)
    if node.first_token_at is not None:
        mark = scale.at(node.first_token_at)
        parts.append(f'<path class="token" d="M{mark:.1f} {top + 2}V{top + _ROW - 2}"/>')
    parts.append(_text("small", left + width + 4, top + 14, _duration(_length_s(node))))
    return [*parts, "</g>"]


def _whole(node: NodeSpan, style: str, top: int, scale: _Scale) -> Iterator[str]:
    """The bar of a node that had one try; lighter as long as it waited for a slot."""
    ran_from = node.started_at + node.queued_s
    queued = scale.at(ran_from) - scale.at(node.started_at)
    if queued >= 1:
        yield _bar(f"queued {style}", scale.at(node.started_at), top, queued)
        left, width = _extent(ran_from, node.ended_at, scale)
    else:
        left, width = _extent(node.started_at, node.ended_at, scale)
    yield _bar(f"bar {style}", left, top, width)


def _tries(node: NodeSpan, style: str, top: int, scale: _Scale) -> Iterator[str]:
    """Each attempt, and the pauses between them."""
    yield _waiting(node.started_at, node.ended_at, top + _ROW / 2, scale)
    last = len(node.tries) - 1
    for number, one in enumerate(node.tries):
        left, width = _extent(one.started_at, one.ended_at, scale)
        own = f"bar {style}" if number == last and node.status != "running" else "try"
        yield _bar(own, left, top, width)


def _bar(style: str, left: float, top: int, width: float) -> str:
    y = top + (_ROW - _BAR) // 2
    return (
        f'<rect class="{style}" x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
    )


def _waiting(start: float, end: float, middle: float, scale: _Scale) -> str:
    return f'<path class="wait" d="M{scale.at(start):.1f} {middle:g}H{scale.at(end):.1f}"/>'


def _extent(start: float, end: float, scale: _Scale) -> tuple[float, float]:
    left = min(scale.at(start), _WIDTH - _RIGHT - _LEAST)
    return left, max(scale.at(end) - left, _LEAST)


def _length_s(node: NodeSpan) -> float:
    return node.ended_at - node.started_at


def _label(node: NodeSpan, depth: int) -> str:
    name = node.title or node.node_id
    room = max((_LABELS - 20 - _INDENT * depth) // 7, 8)
    return name if len(name) <= room else name[: room - 1] + "…"


def _facts(node: NodeSpan, scale: _Scale) -> str:
    """What the tooltip says."""
    lines = [
        f"{node.title or node.node_id} ({node.type}): {node.status}",
        f"at {_duration(node.started_at - scale.start)} for {_duration(_length_s(node))}",
    ]
    if node.started_at - node.ready_at >= 0.001:
        lines.append(f"waited {_duration(node.started_at - node.ready_at)} before")
    if node.queued_s:
        lines.append(f"{_duration(node.queued_s)} of it for a slot")
    if node.first_token_at is not None:
        lines.append(f"first token after {_duration(node.first_token_at - node.started_at)}")
    if len(node.tries) > 1:
        lines.append(f"{len(node.tries)} attempts")
    if node.tokens:
        lines.append(f"{node.tokens} tokens")
    if node.error:
        lines.append(node.error)
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds >= 100:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms"


def _text(style: str, x: float, y: float, text: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:g}">{_clean(text)}</text>'


_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    """As it may stand in XML: escaped, bounded, without what XML cannot hold."""
    return escape(_NOT_IN_XML.sub("\ufffd", text[:_LONGEST_TEXT]))
