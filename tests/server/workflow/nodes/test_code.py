"""Code nodes: what they hand over, what they check, what their failures say."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.code_outputs import OutputLimits
from server.workflow.node import NodeError
from server.workflow.reading import GraphError
from server.workflow.services import CodeFailed
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, execute, node


class Told:
    """A runner that gives out what it is told, and keeps what it got."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.got: tuple[str, str, dict[str, Any]] | None = None

    async def run(self, language: str, source: str, arguments: dict[str, Any]) -> Any:
        self.got = (language, source, arguments)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


DATA = {
    "code_language": "python3",
    "code": "def main(a, f): ...",
    "variables": [
        {"variable": "a", "value_selector": ["start", "a"]},
        {"variable": "f", "value_selector": ["start", "files"]},
        {"variable": "gone", "value_selector": ["nowhere", "x"]},
        {"variable": "none", "value_selector": ["sys", "files"]},
    ],
    "outputs": {"result": {"type": "string", "children": None}},
}
FILE = File(type="image", transfer_method="remote_url", name="a.png", url="http://a/a.png")


async def test_arguments_are_variables_by_name() -> None:
    """Files as their dicts, what is missing as None; they are the node's inputs too."""
    code = Told({"result": "x"})
    run = FakeRun({"start": {"a": 1, "files": [FILE]}, "sys": {"files": []}}, code=code)
    result = await execute(node("code", DATA), run)
    arguments = {"a": 1, "f": [FILE.as_dict()], "gone": None, "none": None}
    assert code.got == ("python3", DATA["code"], arguments)
    assert result.inputs == arguments
    assert result.outputs == {"result": "x"}


async def test_outputs_are_checked() -> None:
    """The error names the output, and has the node's inputs with it."""
    run = FakeRun(code=Told({}))
    with pytest.raises(NodeError, match="Output result is missing") as caught:
        await execute(node("code", DATA), run)
    assert caught.value.type == "OutputValidationError"
    assert caught.value.inputs["a"] is None


async def test_numbers_with_exponents_are_read_before_the_check() -> None:
    """A text "1e+5" is a number, as in Dify."""
    data = DATA | {"outputs": {"result": {"type": "number"}}}
    result = await execute(node("code", data), FakeRun(code=Told({"result": "1e+5"})))
    assert result.outputs == {"result": 100000.0}


async def test_limits_of_the_service_count() -> None:
    """Whoever runs the code says how much it may give out."""
    code = Told({"result": "abc"})
    code.output_limits = OutputLimits(string_length=2)  # type: ignore[attr-defined]
    with pytest.raises(NodeError, match="less than 2 characters"):
        await execute(node("code", DATA), FakeRun(code=code))


async def test_code_that_fails_fails_the_node() -> None:
    """With the runner's words and type, and the node's inputs."""
    failed = CodeFailed("ZeroDivisionError: division by zero", "CodeExecutionError")
    with pytest.raises(NodeError, match="division by zero") as caught:
        await execute(node("code", DATA), FakeRun({"start": {"a": 2}}, code=Told(failed)))
    assert caught.value.type == "CodeExecutionError"
    assert caught.value.inputs["a"] == 2


async def test_a_result_without_bottom_is_too_deep() -> None:
    """It is the code's fault, not the engine's."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(NodeError, match="object too deep") as caught:
        await execute(node("code", DATA), FakeRun(code=Told({"result": deep})))
    assert caught.value.type == "DepthLimitError"


def test_what_it_reads_and_how_it_is_run() -> None:
    """Its selectors for the import's report; it may be tried again."""
    made = node("code", DATA)
    assert next(iter(made.reads())) == ("start", "a")
    assert made.retries
    assert made.work == "cpu"


def test_a_language_that_is_none_is_refused_with_its_place() -> None:
    """At compile time, naming the key."""
    with pytest.raises(GraphError, match="code_language: code is python3 or javascript"):
        node("code", DATA | {"code_language": "ruby"})
