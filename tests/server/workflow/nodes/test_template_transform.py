"""template-transform."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from server.workflow.jinja import InProcessJinja, TieredJinja
from server.workflow.node import NodeError
from server.workflow.nodes.template_transform import MOST_CHARACTERS, TemplateTransform
from server.workflow.services import CodeFailed
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, execute, node

FILE = File(type="image", transfer_method="remote_url", name="a.png", url="http://h/a.png")


class Worker:
    def __init__(self, text: str = "slow", error: CodeFailed | None = None) -> None:
        self.text, self.error = text, error
        self.values: list[dict[str, Any]] = []

    async def render(self, source: str, values: dict[str, Any]) -> str:
        self.values.append(values)
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        return self.text


def template(source: str, **selectors: list[str]) -> TemplateTransform:
    variables = [{"variable": name, "value_selector": s} for name, s in selectors.items()]
    found = node("template-transform", {"template": source, "variables": variables})
    assert isinstance(found, TemplateTransform)
    return found


def fake(worker: Worker | None = None) -> FakeRun:
    jinja = TieredJinja(InProcessJinja(), worker or Worker())
    values = {"x": "a", "list": list(range(2000)), "file": FILE, "big": "b" * MOST_CHARACTERS}
    return FakeRun({"n": values}, jinja=jinja)


async def test_a_plain_template_does_not_wait() -> None:
    """What is cheap is there at once; what is not in sight is None."""
    tested = template(
        "{{ x }} {{ gone }} {{ f.filename }}", x=["n", "x"], gone=["m", "y"], f=["n", "file"]
    )
    result = tested.at_once(fake())
    assert result is not None
    assert result.outputs == {"output": "a None a.png"}
    assert result.inputs == {"x": "a", "gone": None, "f": FILE}
    with trio.testing.assert_no_checkpoints():
        assert await execute(tested, fake()) == result


async def test_what_is_not_cheap_goes_to_the_worker() -> None:
    """Files as their dicts, since it is another process."""
    worker = Worker()
    source = "{% for a in l %}{% for b in l %}{{ f.url }}{% endfor %}{% endfor %}"
    tested = template(source, l=["n", "list"], f=["n", "file"])
    assert tested.at_once(fake(worker)) is None
    assert (await execute(tested, fake(worker))).outputs == {"output": "slow"}
    assert worker.values == [{"l": list(range(2000)), "f": FILE.as_dict()}]


@pytest.mark.parametrize("source", ["{{ x.y.z }}", "{{ x", "{{ x * x }}"])
async def test_errors(source: str) -> None:
    """Those of the template and of the worker are the node's, with what it was given."""
    worker = Worker(error=CodeFailed("broken", "TypeError"))
    with pytest.raises(NodeError) as error:
        await execute(template(source, x=["n", "x"]), fake(worker))
    assert error.value.type in ("UndefinedError", "TemplateSyntaxError", "TypeError")
    assert error.value.inputs == {"x": "a"}


async def test_the_output_is_bounded() -> None:
    """As in Dify, whoever rendered it."""
    message = "Output length exceeds 400000 characters"
    with pytest.raises(NodeError, match=message):
        await execute(template("{{ x }}!", x=["n", "big"]), fake())
    result = await execute(template("{{ x }}", x=["n", "big"]), fake())
    assert len(result.outputs["output"]) == MOST_CHARACTERS
    worker = Worker("b" * (MOST_CHARACTERS + 1))
    with pytest.raises(NodeError, match=message):
        await execute(template("{{ x * x }}", x=["n", "x"]), fake(worker))
