"""human-input."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from server.workflow.events import InputRequired, InputTaken
from server.workflow.forms import FormBook
from server.workflow.node import GraphError, Result
from tests.server.workflow.fakes import FakeRun, execute, node

DATA: dict[str, Any] = {
    "form_content": "Send {{#n.draft#}}? {{#$output.note#}} {{#$output.kind#}}",
    "inputs": [
        {
            "type": "paragraph",
            "output_variable_name": "note",
            "default": {"type": "variable", "selector": ["n", "draft"], "value": ""},
        },
        {
            "type": "select",
            "output_variable_name": "kind",
            "default": {"type": "constant", "selector": [], "value": "b"},
            "option_source": {"type": "variable", "selector": ["n", "kinds"]},
        },
    ],
    "user_actions": [{"id": "yes", "title": "Send it"}, {"id": "no", "title": "Drop it"}],
    "timeout": 2,
    "timeout_unit": "hour",
}


def fake(book: FormBook) -> FakeRun:
    return FakeRun({"n": {"draft": "hello", "kinds": ["a", "b"]}}, forms=book)


async def test_an_answer_chooses_the_branch(autojump_clock: trio.testing.MockClock) -> None:
    """The form is shown with its defaults; what was answered comes out, and fills it in."""
    book = FormBook()
    run, results = fake(book), list[Result]()
    tested = node("human-input", DATA)
    assert tested.branches

    async def ask() -> None:
        results.append(await execute(tested, run))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        (kind, required), *others = run.told
        assert kind is InputRequired
        assert others == []
        form = required["form"]
        assert form["form_content"] == "Send hello? {{#$output.note#}} {{#$output.kind#}}"
        assert form["resolved_default_values"] == {"note": "hello", "kind": "b"}
        assert form["inputs"][1]["options"] == ["a", "b"]
        book.submit(required["token"], "yes", {"note": "now", "kind": "a"})
    (result,) = results
    assert result.handle == "yes"
    assert result.outputs == {
        "note": "now",
        "kind": "a",
        "__action_id": "yes",
        "__action_value": "Send it",
        "__rendered_content": "Send hello? now a",
    }
    kind, taken = run.told[1]
    assert kind is InputTaken
    assert (taken["action"], taken["values"]) == ("yes", {"note": "now", "kind": "a"})
    assert len(book) == 0


async def test_nobody_answers(autojump_clock: trio.testing.MockClock) -> None:
    """After the time, in its unit, along "__timeout"."""
    book = FormBook()
    run = fake(book)
    result = await execute(node("human-input", DATA), run)
    assert trio.current_time() == pytest.approx(2 * 3600)
    assert result.handle == "__timeout"
    assert result.outputs["__action_id"] == ""
    assert result.outputs["__rendered_content"] == "Send hello?  "
    assert run.told[1][1]["action"] == "__timeout"
    assert len(book) == 0


async def test_days(autojump_clock: trio.testing.MockClock) -> None:
    """The longest wait is 30 of them."""
    await execute(node("human-input", DATA | {"timeout_unit": "day"}), fake(FormBook()))
    assert trio.current_time() == pytest.approx(2 * 86400)
    await execute(
        node("human-input", DATA | {"timeout": 400, "timeout_unit": "day"}), fake(FormBook())
    )
    assert trio.current_time() == pytest.approx(32 * 86400)


async def test_a_cancelled_run_closes_its_form(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is left in the book."""
    book = FormBook()
    with trio.move_on_after(5) as scope:
        await execute(node("human-input", DATA), fake(book))
    assert scope.cancelled_caught
    assert len(book) == 0


def test_units_that_there_are_not() -> None:
    """Named with their place; the variables it reads are in the report."""
    with pytest.raises(GraphError, match=r"node\.timeout_unit: expected hour or day"):
        node("human-input", DATA | {"timeout_unit": "moon"})
    reads = list(node("human-input", DATA).reads())
    assert reads == [("n", "draft"), ("n", "draft"), ("n", "kinds")]
