"""The timeline of a run: every node run once, valid XML, what waited, what the length came from."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.timeline import RunSpan, draw, read
from server.timeline.path import mark_critical
from server.timeline.svg import MOST_ROWS
from tests.server.timeline.happenings import START, Story

SVG = "{http://www.w3.org/2000/svg}"


def parsed(story: Story) -> ElementTree.Element:
    return ElementTree.fromstring(draw(read(story.moments), "an app"))


def node_runs(picture: ElementTree.Element) -> list[str]:
    found = (group.get("data-node-run") for group in picture.iter(f"{SVG}g"))
    return [one for one in found if one is not None]


def row(picture: ElementTree.Element, id: str) -> ElementTree.Element:
    [found] = [one for one in picture.iter(f"{SVG}g") if one.get("data-node-run") == id]
    return found


def tooltip(picture: ElementTree.Element, id: str) -> str:
    title = row(picture, id).find(f"{SVG}title")
    assert title is not None
    return title.text or ""


def critical(run: RunSpan) -> list[str]:
    mark_critical(run)
    return [node.id for node in run.nodes if node.critical]


def fan() -> Story:
    """start, then two beside one another, then a join that waited for the slow one."""
    story = Story()
    story.start("start", 0.0, type="start")
    story.finish("start", 0.1)
    story.start("fast", 0.1, after="start", type="http-request")
    story.start("slow", 0.3, after="start")
    story.chunk("slow", 0.5)
    story.finish("fast", 0.4)
    story.finish("slow", 2.0, metadata={"total_tokens": 12})
    story.start("end", 2.0, type="end", after="slow")
    story.finish("end", 2.0)
    story.end(2.0)
    return story


def test_spans_hold_what_the_events_said() -> None:
    """Start, end, waiting, first token and tokens of a node run."""
    run = read(fan().moments)
    slow = run.nodes[2]
    assert slow.id == "slow"
    assert slow.ready_at - START == pytest.approx(0.1)
    assert slow.started_at - START == pytest.approx(0.3)
    assert slow.first_token_at == pytest.approx(START + 0.5)
    assert (slow.tokens, slow.status, run.tokens, run.status) == (12, "succeeded", 12, "succeeded")


def test_the_critical_path_goes_back_over_what_was_waited_for() -> None:
    """The fast branch is not on it."""
    assert critical(read(fan().moments)) == ["start", "slow", "end"]


def test_the_critical_path_goes_through_rounds() -> None:
    """Of parallel rounds the one that ended last, with the one that made room for it."""
    story = Story()
    story.start("it", 0.0, type="iteration")
    for number, (start, end) in enumerate([(0.0, 1.0), (0.0, 3.0), (1.0, 4.0)]):
        story.round("it", number, start)
        story.start(f"n{number}", start, within=(("it", number),), node="n")
        story.finish(f"n{number}", end)
    story.finish("it", 4.0)
    story.end(4.0)
    assert critical(read(story.moments)) == ["it", "n0", "n2"]


def test_rows_say_what_happened() -> None:
    """Tooltips with status, waiting, first token, tokens; a bar in the colour of the kind."""
    picture = parsed(fan())
    said = tooltip(picture, "slow")
    for part in ("slow (llm): succeeded", "waited 200 ms", "first token after 200 ms", "12 tokens"):
        assert part in said
    classes = [one.get("class") or "" for one in row(picture, "slow").iter()]
    assert "bar model" in classes
    assert {"token", "wait"} <= set(classes)


def test_a_wait_for_a_slot_is_pale() -> None:
    """The bar begins where it has its slot; too short a wait to see is told alone."""
    story = Story()
    story.start("n", 0.0, type="http-request")
    story.start("m", 0.0, type="http-request")
    story.finish("n", 4.0, metadata={"queued_s": 3.0})
    story.finish("m", 4.0, metadata={"queued_s": 0.002})
    story.end(4.0)
    picture = parsed(story)
    bars = {one.get("class"): one for one in row(picture, "n").iter(f"{SVG}rect")}
    assert list(bars) == ["queued io", "bar io"]
    widths = [float(one.get("width") or 0) for one in bars.values()]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)
    assert "3 s of it for a slot" in tooltip(picture, "n")
    assert "2 ms of it for a slot" in tooltip(picture, "m")
    assert [one.get("class") for one in row(picture, "m").iter(f"{SVG}rect")] == ["bar io"]


def test_each_attempt_of_a_retried_node_is_drawn() -> None:
    """Two failed ones and the one that went well."""
    story = Story()
    story.start("n", 0.0, type="http-request")
    story.retry("n", 1.0, 1.0)
    story.retry("n", 3.0, 0.5)
    story.finish("n", 5.0, elapsed_s=1.0)
    story.end(5.0)
    [node] = read(story.moments).nodes
    spans = [(one.started_at - START, one.ended_at - START, one.failed) for one in node.tries]
    assert spans == [(0.0, 1.0, True), (2.5, 3.0, True), (4.0, 5.0, False)]
    classes = [one.get("class") for one in row(parsed(story), "n").iter(f"{SVG}rect")]
    assert classes == ["try", "try", "bar io"]


def test_a_run_that_was_cut_short_is_drawn_to_its_end() -> None:
    """What never finished lasts until the last event, and looks so."""
    story = Story()
    story.start("n", 0.0)
    story.chunk("n", 7.0)
    run = read(story.moments)
    assert (run.nodes[0].status, run.nodes[0].ended_at) == ("running", START + 7.0)
    assert "bar model running" in draw(run)


def test_failures_are_named_with_their_words() -> None:
    """The error of the run and of the node, escaped."""
    story = Story()
    story.start("n", 0.0, title='<b>&"</b>\x00\ud800')
    story.finish("n", 1.0, status="failed", error="no <tag> & more")
    story.end(1.0, status="failed", error="no <tag> & more")
    picture = parsed(story)
    assert "no <tag> & more" in tooltip(picture, "n")
    assert '<b>&"</b>' in tooltip(picture, "n")
    assert any(one.get("class") == "bar failed" for one in row(picture, "n").iter())


def test_an_empty_run_is_a_picture_too() -> None:
    """No event at all, and a start alone."""
    assert node_runs(ElementTree.fromstring(draw(read([])))) == []
    assert node_runs(parsed(Story())) == []


def test_more_rows_than_can_be_read_are_counted() -> None:
    """The picture is bounded."""
    story = Story()
    for number in range(MOST_ROWS + 5):
        story.start(f"n{number}", number * 0.01)
    picture = draw(read(story.moments))
    assert picture.count("data-node-run") == MOST_ROWS
    assert "and 5 rows more" in picture


@st.composite
def stories(draw_from: st.DrawFn) -> tuple[Story, list[str]]:
    """Node runs in any nesting, any of which may lack its end, its container or its round."""
    story, ids = Story(), list[str]()
    times = st.floats(0, 100, allow_nan=False)
    withins: list[tuple[tuple[str, int], ...]] = [()]
    for number in range(draw_from(st.integers(0, 12))):
        within = draw_from(st.sampled_from(withins))
        kind = draw_from(st.sampled_from(["llm", "iteration", "loop", "code", "odd<type>"]))
        began = draw_from(times)
        node = draw_from(st.sampled_from(["a", "b", f"n{number}"]))
        after = draw_from(st.sampled_from([None, "a", "b", "none"]))
        title = draw_from(st.text(max_size=8))
        story.start(f"run-{number}", began, type=kind, within=within, node=node, after=after,
                    title=title)  # fmt: skip
        ids.append(f"run-{number}")
        if kind in ("iteration", "loop"):
            inner = draw_from(st.integers(0, 3))
            withins.append((*within, (node, inner)))
            if draw_from(st.booleans()):
                story.round(f"run-{number}", inner, draw_from(times))
        if draw_from(st.booleans()):
            story.retry(f"run-{number}", draw_from(times), draw_from(times))
        if draw_from(st.booleans()):
            story.finish(f"run-{number}", draw_from(times))
    return story, ids


@settings(max_examples=80, deadline=None)
@given(stories())
def test_every_node_run_is_drawn_once(given_story: tuple[Story, list[str]]) -> None:
    """Whatever the nesting, the order of times, and what is missing: valid XML, each row once."""
    story, ids = given_story
    assert sorted(node_runs(parsed(story))) == sorted(ids)
