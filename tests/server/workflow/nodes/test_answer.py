"""answer."""

from __future__ import annotations

from server.workflow.nodes.answer import Answer
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, execute, node

FILE = File(type="image", transfer_method="remote_url", name="a", url="http://h/a.png")


async def test_text_and_files() -> None:
    """Variables in Markdown; files are linked, and given out beside."""
    run = FakeRun({"n": {"l": ["a", "b"], "f": FILE, "fs": [FILE], "none": None, "e": []}})
    text = "{{#n.l#}}|{{#n.f#}}|{{#n.fs#}}|{{#n.none#}}{{#n.e#}}|{{#n.gone#}}"
    result = await execute(node("answer", {"answer": text}), run)
    link = "![a](http://h/a.png)"
    assert result.outputs == {
        "answer": f"- a\n- b|{link}|{link}||n.gone",
        "files": [FILE, FILE],
    }


def test_what_is_shown() -> None:
    """Its template."""
    tested = node("answer", {"answer": "a {{#n.x#}}"})
    assert isinstance(tested, Answer)
    assert tested.shows == ("a ", ("n", "x"))
    assert list(tested.reads()) == [("n", "x")]
