"""end."""

from __future__ import annotations

from server.workflow.nodes.end import End
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, execute, node

FILE = File(type="image", transfer_method="remote_url", url="http://h/a.png")


def end(*outputs: tuple[str, list[str]]) -> End:
    listed = [{"variable": name, "value_selector": selector} for name, selector in outputs]
    found = node("end", {"outputs": listed})
    assert isinstance(found, End)
    return found


async def test_outputs() -> None:
    """Values as they are; what is not there is None."""
    run = FakeRun({"n": {"a": [1], "f": FILE, "o": {"k": 2}}})
    tested = end(("x", ["n", "a"]), ("f", ["n", "f"]), ("k", ["n", "o", "k"]), ("z", ["m", "a"]))
    result = await execute(tested, run)
    assert result.outputs == result.inputs == {"x": [1], "f": FILE, "k": 2, "z": None}


def test_what_is_shown() -> None:
    """Its selectors with line breaks between."""
    tested = end(("x", ["n", "a"]), ("y", []), ("z", ["m", "b", "c"]))
    assert tested.shows == (("n", "a"), "\n", ("m", "b", "c"))
    assert end().shows == ()
    assert list(tested.reads()) == [("n", "a"), (), ("m", "b", "c")]
