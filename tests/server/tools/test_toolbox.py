"""The toolbox: who supplies a tool, in which order, and what is said when nobody does."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from server.tools.bindings import binding_of
from server.tools.plugins import Plugins
from server.tools.toolbox import Toolbox
from server.workflow.app import App, GraphSpec, InputSpec, ToolRef
from server.workflow.node import NodeRun
from server.workflow.services import ToolFailed, ToolOutput
from server.workflow.values import File, Value
from tests.server.tools.fakes import ref, run_with, toolbox
from tests.server.web.loopback import Asked, loopback


class FakeTool:
    description = "fake"

    def __init__(self, name: str) -> None:
        self.name = name
        self.schema: dict[str, Any] = {"type": "object"}

    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        return ToolOutput(text=json.dumps([arguments, settings]))


class Crashing(FakeTool):
    async def call(
        self, arguments: dict[str, Any], settings: dict[str, Any], run: NodeRun
    ) -> ToolOutput:
        raise ZeroDivisionError("on purpose")


def good_plugin() -> list[FakeTool]:
    return [FakeTool("plugged"), Crashing("crashing")]


def bad_plugin() -> list[FakeTool]:
    raise RuntimeError("broken on purpose")


def plugins(**points: str) -> Plugins:
    return Plugins(
        {
            name: importlib.metadata.EntryPoint(name, f"{__name__}:{value}", "triolet.tools")
            for name, value in points.items()
        }
    )


def given(*names: str) -> Toolbox:
    """A toolbox whose native provider `x` has these tools, already loaded."""
    tools = Toolbox(None, native={"x": "absent:tools"}, plugins=plugins())  # type: ignore[arg-type]
    tools._native_tools["x"] = [FakeTool(name) for name in names]
    return tools


async def test_native_tools_are_found_by_the_last_part_of_the_id() -> None:
    """Plugins of the marketplace have long ids, older exports short ones."""
    tools = given("search")
    for id in ("x", "langgenius/x/x"):
        assert (await tools.find(ref(id, "search"), run_with())).name == "search"
    with pytest.raises(ToolFailed, match="has no tool 'other'; it has search"):
        await tools.find(ref("x", "other"), run_with())


async def test_settings_of_the_operator_count_before_the_graphs() -> None:
    """Those of the app before those of the configuration, of a tool before its provider's."""
    tools = given("search")
    tools._bindings = {"x": {"key": "conf", "only": 1}, "langgenius/x/x": {"long": 1}}
    run = run_with({"x": {"key": "app"}, "x:search": {"n": 2}})
    found = await tools.find(ref("langgenius/x/x", "search"), run)
    output = await found.call({"q": 1}, {"key": "graph", "format": "f"}, run)
    assert json.loads(output.text) == [
        {"q": 1},
        {"key": "app", "format": "f", "only": 1, "long": 1, "n": 2},
    ]


def test_bindings_by_key() -> None:
    """The whole id and the tool's own key are the more particular ones."""
    tool = ToolRef("builtin", "a/b/c", "t", "name")
    table = {key: {"from": key} for key in ("name", "c", "a/b/c", "c:t", "a/b/c:t")}
    assert binding_of(tool, table) == {"from": "a/b/c:t"}
    del table["a/b/c:t"]
    assert binding_of(tool, table) == {"from": "c:t"}
    assert binding_of(tool, table, {"c": {"from": "later"}}) == {"from": "later"}


@pytest.mark.parametrize(
    ("type", "message"),
    [
        ("api", r"tool:some/id\.openapi, the URL or the file"),
        ("mcp", r"tool:some/id\.mcp, the URL"),
        ("workflow", r"tool:some/id\.workflow, the id or name"),
        ("plugin", "or a package that provides it"),
    ],
)
async def test_what_nobody_has_names_its_binding(type: str, message: str) -> None:
    """The error says what to bind, for each kind of provider."""
    async with toolbox(plugins=plugins()) as tools:
        with pytest.raises(ToolFailed, match=f"'some/id:t'.*{message}") as caught:
            await tools.find(ref("some/id", "t", type), run_with())
        assert caught.value.type == "ToolNotFound"


async def test_plugins_are_loaded_late_and_their_errors_contained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that cannot be loaded is named to who asks for it, and logged once."""
    async with toolbox(plugins=plugins(good="good_plugin", bad="bad_plugin")) as tools:
        assert (await tools.find(ref("good", "plugged"), run_with())).name == "plugged"
        crashing = await tools.find(ref("good", "crashing"), run_with())
        with pytest.raises(ToolFailed, match=r"'crashing' of the plugin 'good'.*ZeroDivision"):
            await crashing.call({}, {}, run_with())
        caplog.clear()
        for _ in range(2):
            with pytest.raises(ToolFailed, match=r"'bad'.*broken on purpose") as caught:
                await tools.find(ref("a/b/bad", "x"), run_with())
            assert caught.value.type == "PluginError"
        assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1


def api(server: str) -> dict[str, Any]:
    return {
        "openapi": "3.0.0",
        "servers": [{"url": server}],
        "paths": {"/hi": {"get": {"operationId": "hi"}}},
    }


async def test_openapi_from_text_file_url_and_mapping(tmp_path: Path) -> None:
    """The operator's document may name servers inside; it is fetched once."""

    async def handler(asked: Asked) -> None:
        if asked.path == "/doc":
            await asked.answer_json({**api("x"), "servers": [{"url": "/"}]})
        else:
            await asked.answer_json([asked.path, asked.headers.get("authorization")])

    async with loopback(handler) as server, toolbox() as tools:
        document = api(server.url)
        path = tmp_path / "api.json"
        path.write_text(json.dumps(document))
        for given in (json.dumps(document), str(path), f"file:{path}", document):
            run = run_with({"p": {"openapi": given, "auth": {"bearer": "t"}}})
            found = await tools.find(ref("p", "hi", "api"), run)
            assert (await found.call({}, {}, run)).json == [["/hi", "Bearer t"]]
        for _ in range(2):
            run = run_with({"p": {"openapi": f"{server.url}/doc"}})
            found = await tools.find(ref("p", "hi", "api"), run)
            assert (await found.call({}, {}, run)).json == [["/hi", None]]
        assert [asked.path for asked in server.asked].count("/doc") == 1


async def test_a_fetched_document_does_not_lead_inside() -> None:
    """Servers of another origin, named by a document from the web, are under the guard."""

    async def inner(asked: Asked) -> None:
        await asked.answer_json({})

    async with loopback(inner) as inside:

        async def handler(asked: Asked) -> None:
            await asked.answer_json(api(inside.url))

        async with loopback(handler) as server, toolbox() as tools:
            run = run_with({"p": {"openapi": server.url}})
            found = await tools.find(ref("p", "hi", "api"), run)
            with pytest.raises(ToolFailed, match="loopback"):
                await found.call({}, {}, run)
            run = run_with({"p": {"openapi": server.url, "base_url": inside.url}})
            found = await tools.find(ref("p", "hi", "api"), run)
            assert (await found.call({}, {}, run)).text == "{}"


@pytest.mark.parametrize("openapi", ["/no/such/file", "{}", "http://127.0.0.1:1/doc", "a: [\n"])
async def test_documents_that_cannot_be_had(openapi: str) -> None:
    """Each is an error that says which part is wrong."""
    async with toolbox() as tools:
        with pytest.raises(ToolFailed, match="the OpenAPI document"):
            await tools.find(ref("p", "x", "api"), run_with({"p": {"openapi": openapi}}))


class FakeWorkflows:
    def __init__(self) -> None:
        self.ran: list[tuple[str, dict[str, Value]]] = []
        inputs = (
            InputSpec(name="q", type="text-input", label="Question", required=True),
            InputSpec(name="n", type="number"),
            InputSpec(name="kind", type="select", options=("a", "b")),
        )
        self.apps = {
            "w1": App(
                id="w1",
                name="inner",
                mode="workflow",
                graph=GraphSpec((), ()),
                description="Finds",
                inputs=inputs,
            )
        }

    def app(self, id: str) -> App | None:
        return self.apps.get(id)

    async def run(self, app_id: str, inputs: dict[str, Value], run: NodeRun) -> dict[str, Value]:
        self.ran.append((app_id, inputs))
        file = File(type="image", transfer_method="tool_file", name="f.png")
        return {"answer": inputs["q"], "pictures": [file], "text": "taken"}


async def test_a_workflow_is_a_tool() -> None:
    """By its own id or by the one that it is bound to; its form is the schema."""
    workflows = FakeWorkflows()
    async with toolbox(workflows=workflows) as tools:
        run = run_with({"other": {"workflow": "w1"}})
        for id in ("w1", "other"):
            found = await tools.find(ref(id, "search", "workflow"), run)
            assert found.description == "Finds"
            assert found.schema["required"] == ["q"]
            assert found.schema["properties"]["kind"]["enum"] == ["a", "b"]
            output = await found.call({"q": "x"}, {"kind": "a", "strange": 1}, run)
            assert output.variables["answer"] == "x"
            assert json.loads(output.text)["text"] == "taken"
            assert "text" not in output.variables
            assert [file.name for file in output.files] == ["f.png"]
        assert workflows.ran[0] == ("w1", {"kind": "a", "q": "x"})
        with pytest.raises(ToolFailed, match=r"tool:unknown\.workflow"):
            await tools.find(ref("unknown", "search", "workflow"), run)


async def test_bindings_count_before_native_tools() -> None:
    """An operator can put an own server in the place of a provider."""

    async def handler(asked: Asked) -> None:
        await asked.answer_json({"own": True})

    async with loopback(handler) as server, toolbox(native={"x": "absent:tools"}) as tools:
        run = run_with({"x": {"openapi": json.dumps(api(server.url))}})
        found = await tools.find(ref("langgenius/x/x", "hi"), run)
        assert (await found.call({}, {}, run)).json == [{"own": True}]
