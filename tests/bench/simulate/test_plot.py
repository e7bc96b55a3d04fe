"""The page is whole by itself, well formed, and shows what the table shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from bench.simulate.plot import page
from bench.simulate.table import lines_of
from tests.bench.simulate.made_rows import made_row

VOID = {"meta"}


class Tags(HTMLParser):
    """Checks that what is opened is closed, and collects the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def of(*rows: object, workload: str = "w", about: str = "What it is.", command: str = "c") -> str:
    return page({workload: lines_of(list(rows))}, {workload: about}, command)  # type: ignore[arg-type]


def test_page_needs_nothing_from_elsewhere() -> None:
    """No scripts, no links, no addresses: it can be kept and sent."""
    text = of(made_row("a"), made_row("b", 0.4))
    tags = Tags(text)
    assert not tags.open
    assert not tags.tags & {"script", "link", "img", "iframe", "object"}
    assert {name for name, _ in tags.attributes}.isdisjoint({"src", "href", "onload"})
    assert not re.search(r"https?:|url\(|@import", text)


def test_names_and_commands_are_escaped() -> None:
    """What users type and files contain stays text."""
    evil = "<script>alert('&')</script>"
    tags = Tags(of(made_row(evil[:30]), workload=evil, about=evil, command=evil))
    assert "script" not in tags.tags
    assert tags.text.count(evil) == 6  # three of them beside bars


def test_bars_are_as_long_as_the_values() -> None:
    """In proportion, or by the logarithm for TTFT; the best is marked, and none is off the page."""
    text = of(
        made_row("a", 0.01, hit_rate=0.2), made_row("b", 0.1, hit_rate=0.8), made_row("c", 1.0)
    )
    first, *_, hits = text.split("<svg")[1:]
    widths = [
        [float(width) for width in re.findall(r"width='([\d.]+)'", svg)] for svg in (first, hits)
    ]
    assert widths[1][1] / widths[1][0] == 4
    assert widths[0][1] - widths[0][0] == widths[0][2] - widths[0][1] > 0
    assert max(map(max, widths)) <= 340
    assert first.count("class='best'") == hits.count("class='best'") == 1


def test_nothing_measured_is_no_bar() -> None:
    """Neither an error nor a bar of length 0 that looks like a result."""
    text = of(made_row("a", None, hit_rate=None, tokens_per_s=None))
    assert "<rect" not in text
    flat = of(made_row("a", 0.0, hit_rate=0.0), made_row("b", 0.0, hit_rate=0.0))
    assert "width='0.0'" in flat


def test_ten_workloads_are_ten_sections() -> None:
    """Each under its name."""
    tables = {f"w{number}": lines_of([made_row("a")]) for number in range(10)}
    text = page(tables, {}, "c")
    assert re.findall(r"<h2>(\w+)</h2>", text) == list(tables)
