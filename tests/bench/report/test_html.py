"""The HTML report: self-contained, escaped, accessible, small, and true to the figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.record import Probe
from bench.report.html import page
from bench.report.metrics import analyse
from bench.report.plots import run_charts, sweep_charts
from bench.report.run import Run
from bench.report.svg import Axis, Chart, Point, Series, thinned
from tests.bench.report.samples import failed, noisy_run, run_of, streamed

HOSTILE = "<script>alert('x')</script><img src=//evil.example/x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Collects elements and attributes, and checks that tags are closed in order."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def report(*runs: Run) -> str:
    return page([analyse(run) for run in runs])


def test_nothing_is_loaded_from_anywhere() -> None:
    """No script, link, image or font; no attribute or style that names an address."""
    text = report(noisy_run(1, 40))
    found = Page(text)
    assert not found.open
    assert {tag for tag, _ in found.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "br", "div"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("svg", "desc", "text", "path"),
    }
    names = {name for _, attributes in found.elements for name in attributes}
    assert not names & {"src", "href", "xlink:href", "srcset", "action", "data", "style"}
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [one["content"] for one in found.tags("meta") if "http-equiv" in one]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_what_comes_from_outside_is_escaped() -> None:
    """Names, errors, addresses, command lines, options and replicas cannot become markup."""
    probe = Probe(path=HOSTILE, scheduled_s=0, sent_s=0, ended_s=0.1, status=200)
    run = run_of(
        streamed(replica=HOSTILE),
        failed(error=HOSTILE, error_message=HOSTILE),
        probes=[probe],
        model=HOSTILE,
        url=HOSTILE,
        name=HOSTILE,
        workload=HOSTILE,
        command_line=HOSTILE,
        version=HOSTILE,
        endpoint_type=HOSTILE,
        config={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
    )
    text = report(run, run)
    found = Page(text)
    assert not found.tags("script")
    assert not found.tags("img")
    assert "<script" not in text
    assert HOSTILE in "".join(found.words)


@given(st.text(max_size=30))
def test_any_text_keeps_the_page_well_formed(text: str) -> None:
    """Whatever a target calls its model or says in an error."""
    run = run_of(streamed(), failed(error_message=text, error=text), model=text, warnings=[text])
    assert not Page(report(run)).open


def test_every_chart_has_a_title_a_description_and_axes_with_units() -> None:
    """A screen reader and a reader see what it is; ids are unique within the page."""
    runs = [noisy_run(1, 30, load=load) for load in (1.0, 2.0)]
    found = Page(report(*runs))
    charts = found.tags("svg")
    assert len(charts) == 5 + 2 * 7
    assert all(chart["role"] == "img" and chart["aria-labelledby"] for chart in charts)
    ids = [one["id"] for tag, one in found.elements if tag in ("title", "desc") and "id" in one]
    assert len(ids) == len(set(ids)) == 2 * len(charts)
    for chart in sweep_charts([analyse(run) for run in runs]):
        for axis in (chart.x, chart.y):
            assert re.search(r"\(.+\)| per ", axis.label)


def test_light_and_dark() -> None:
    """Both schemes have colours."""
    text = report(run_of(streamed()))
    assert "color-scheme: light dark" in text
    assert "prefers-color-scheme: dark" in text


def test_the_figures_and_the_identity_are_in_it() -> None:
    """The table's numbers, the outcome line, command line, seed, version, warnings."""
    text = report(
        run_of(
            streamed(),
            failed(),
            version="0.1.0+abc",
            seed=42,
            command_line="triolet bench -m x",
            warnings=["the clock jumped"],
        )
    )
    words = Page(text).words
    for expected in ("50.00", "10.00", "42", "0.1.0+abc", "triolet bench -m x", "http_503"):
        assert expected in words
    assert "Warning: the clock jumped" in words
    assert any("sent 2 = 1 completed + 1 errored" in word for word in words)


def test_a_run_without_success_says_so_instead_of_drawing() -> None:
    """No empty axes, no zeros."""
    text = report(run_of(failed()))
    assert "nothing was measured" in text
    assert "no request succeeded" in text
    assert not Page(report(run_of())).open


def test_errors_are_marked_over_time() -> None:
    """A failed request is a dot of its own, where it was sent, as long as it took."""
    charts = run_charts(analyse(run_of(streamed(), failed(0.5, took_s=0.2))))
    (over_time,) = [one for one in charts if one.title.endswith("over time") and one.series[1:]]
    bad = over_time.series[1]
    assert bad.style == "bad"
    assert bad.points[0] == pytest.approx((0.5, 200))
    assert len(bad.points) == 1


def test_requests_in_flight_rise_and_fall() -> None:
    """Two overlapping requests: 1, 2, 1, 0."""
    charts = run_charts(analyse(run_of(streamed(0.0, ended_s=2.0), streamed(1.0, ended_s=3.0))))
    (chart,) = [one for one in charts if one.title == "Requests in flight"]
    assert list(chart.series[0].points) == [(0, 1), (1, 2), (2, 1), (3, 0)]


def test_throughput_over_time_holds_every_token() -> None:
    """The area under the curve is what was received."""
    charts = run_charts(analyse(noisy_run(2, 40)))
    (chart,) = [one for one in charts if one.title == "Output throughput over time"]
    points = list(chart.series[0].points)
    width = points[1][0] - points[0][0]
    assert sum(rate * width for _, rate in points) == pytest.approx(40 * 20)


def test_turns_get_a_chart_of_their_own() -> None:
    """Median by turn, counted from 1."""
    charts = run_charts(analyse(run_of(streamed(), streamed(first_s=0.02, turn=1))))
    assert charts[-1].title == "Time to First Token by turn"
    first, later = charts[-1].series[0].points
    assert first == pytest.approx((1, 50))
    assert later == pytest.approx((2, 20))


@pytest.mark.slow
def test_a_hundred_thousand_requests_stay_small() -> None:
    """Under 3 MB, however many requests there were."""
    records = [streamed(place * 0.01, chunks=2, request_id="r") for place in range(100_000)]
    assert len(report(run_of(*records))) < 300_000


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=400),
    st.integers(2, 50),
)
def test_thinning_keeps_the_peaks(points: list[Point], at_most: int) -> None:
    """The largest and the smallest value stay, the order stays, the number is bounded."""
    kept = thinned(points, at_most)
    assert len(kept) <= max(at_most, 2) + 1
    values = [y for _, y in kept]
    assert max(values) == max(y for _, y in points)
    assert min(values) == min(y for _, y in points)
    left = iter(points)
    assert all(one in left for one in kept)


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=20,
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["line", "dots", "bars", "marks"]),
)
def test_a_chart_of_anything_is_drawable(
    points: list[Point], log_x: bool, log_y: bool, kind: str
) -> None:
    """No NaN or infinity reaches the markup; every coordinate is a number within reach."""
    series = Series("", points, kind)  # type: ignore[arg-type]
    text = Chart("t", "d", Axis("x", log=log_x), Axis("y", log=log_y), [series]).svg(1)
    assert not Page(text).open
    drawn = " ".join(re.findall(r" d='([^']*)'", text))
    assert "nan" not in drawn
    assert "inf" not in drawn
