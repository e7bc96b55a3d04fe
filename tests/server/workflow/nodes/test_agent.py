"""The agent node: tools in rounds, by calls and in text, streamed, bounded, cancelled."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from server.workflow.events import AgentLog
from server.workflow.node import NodeError, Result, Run
from server.workflow.reading import GraphError
from server.workflow.services import (
    ModelFacts,
    ModelFailed,
    ToolCall,
    ToolFailed,
    ToolOutput,
    Usage,
)
from server.workflow.values import File
from tests.server.workflow.agents.tool_fakes import FakeTool, FakeTools
from tests.server.workflow.fakes import FakeRun, app, execute, node, services
from tests.server.workflow.scripted_models import Says, ScriptedModels

MODEL = {"provider": "langgenius/openai/openai", "model": "gpt-4o", "mode": "chat"}


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"enabled": True, "provider_name": "time", "type": "builtin", "tool_name": name} | more


def data(*tools: dict[str, Any], strategy: str = "function_calling", **told: Any) -> dict[str, Any]:
    constants = {
        "model": MODEL,
        "tools": list(tools),
        "query": "{{#sys.query#}}",
        "instruction": "Be brief.",
        "maximum_iterations": 3,
    } | told
    return {
        "agent_strategy_name": strategy,
        "agent_strategy_provider_name": "langgenius/agent/agent",
        "agent_parameters": {
            name: value
            if isinstance(value, dict) and value.get("type") == "variable"
            else {"type": "constant", "value": value}
            for name, value in constants.items()
        },
    }


def calls(*asked: tuple[str, str]) -> Says:
    return Says(
        tool_calls=tuple(
            ToolCall(id=f"c{number}", name=name, arguments=arguments)
            for number, (name, arguments) in enumerate(asked)
        )
    )


def a_run(models: ScriptedModels, *tools: FakeTool, **more: Any) -> FakeRun:
    given = services(models=models, tools=more.pop("toolbox", None) or FakeTools(*tools))
    run = Run(id="run", app=app(), services=given, **more)
    return FakeRun({"sys": {"query": "What now?"}, "kb": {"result": [{"content": "P."}]}}, run=run)


async def run_agent(settings: dict[str, Any], run: FakeRun) -> Result:
    return await execute(node("agent", settings), run)


def text_of(run: FakeRun) -> str:
    return "".join(text for name, text in run.streamed if name == "text")


def logs(run: FakeRun, label: str) -> list[dict[str, Any]]:
    return [
        fields
        for kind, fields in run.told
        if kind is AgentLog and fields["label"].startswith(label)
    ]


async def test_rounds_of_calls_end_in_an_answer() -> None:
    """A tool is called, its result told to the model, the answer streamed, usage summed."""
    models = ScriptedModels(calls(("now", '{"q": "x"}')), Says(pieces=["It is ", "noon."]))
    tool = FakeTool("now", "12:00")
    run = a_run(models, tool)
    result = await run_agent(data(entry("now")), run)
    assert tool.calls == [({"q": "x"}, {})]
    assert run.streamed == [("text", "It is "), ("text", "noon.")]
    assert result.outputs["text"] == "It is noon."
    assert result.outputs["files"] == []
    assert result.usage == Usage(20, 10)
    assert result.outputs["usage"]["total_tokens"] == 30
    first, second = models.calls
    assert [message["role"] for message in first.messages] == ["system", "user"]
    assert first.messages[0]["content"] == "Be brief."
    assert first.messages[1]["content"] == "What now?"
    assert second.messages[2]["tool_calls"][0]["function"]["name"] == "now"
    assert second.messages[3] == {
        "role": "tool",
        "tool_call_id": "c0",
        "name": "now",
        "content": "12:00",
    }
    assert run.closed == ["text"]


async def test_log_is_enough_for_agent_thoughts() -> None:
    """Each round tells position, thought, tool, its input and what was observed."""
    models = ScriptedModels(
        Says(pieces=["Let me see."], tool_calls=(ToolCall("c", "now", '{"q": "x"}'),)), "Noon."
    )
    run = a_run(models, FakeTool("now", "12:00"))
    result = await run_agent(data(entry("now", tool_label="Clock")), run)
    rounds = logs(run, "ROUND 1")
    assert [one["status"] for one in rounds] == ["start", "start", "success"]
    assert len({one["id"] for one in rounds}) == 1
    last = rounds[-1]["data"]
    assert (last["position"], last["thought"], last["tool"]) == (1, "Let me see.", "now")
    assert json.loads(last["tool_input"]) == {"now": {"q": "x"}}
    assert json.loads(last["observation"]) == {"now": "12:00"}
    assert last["tool_labels"]["now"]["en_US"] == "Clock"
    call = logs(run, "CALL now")
    assert [one["status"] for one in call] == ["start", "success"]
    assert call[0]["parent_id"] == rounds[0]["id"]
    assert call[-1]["metadata"]["provider"] == "time"
    assert logs(run, "gpt-4o Thought")[-1]["metadata"]["total_tokens"] == 15
    assert logs(run, "ROUND 2")[-1]["data"]["thought"] == "Noon."
    assert [one["label"] for one in result.outputs["json"][:-1]] == [
        *("ROUND 1", "gpt-4o Thought", "CALL now", "ROUND 2", "gpt-4o Thought"),
    ]
    assert result.outputs["json"][-1] == {"data": []}


async def test_text_of_several_rounds_is_streamed_apart() -> None:
    """What a round says before its call is the client's too; a line break parts it."""
    spoken = Says(pieces=["Looking."], tool_calls=(ToolCall("c", "now", "{}"),))
    run = a_run(ScriptedModels(spoken, Says(pieces=["No", "on."])), FakeTool("now"))
    result = await run_agent(data(entry("now")), run)
    assert text_of(run) == "Looking.\nNoon." == result.outputs["text"]


async def test_calls_of_one_answer_run_side_by_side(autojump_clock: trio.testing.MockClock) -> None:
    """Five calls of a second each, four at once, take two seconds, and keep their order."""

    async def slow(arguments: dict[str, Any]) -> ToolOutput:
        await trio.sleep(1)
        return ToolOutput(text=arguments["q"])

    asked = calls(*(("slow", json.dumps({"q": str(n)})) for n in range(5)))
    models = ScriptedModels(asked, "done")
    await run_agent(data(entry("slow")), a_run(models, FakeTool("slow", slow)))
    assert trio.current_time() == pytest.approx(2, abs=0.01)
    told = [message["content"] for message in models.messages if message["role"] == "tool"]
    assert told == ["0", "1", "2", "3", "4"]


BROKEN = [
    ("tool", '{"q": "a"', {"q": "a"}),
    ("tool", "", {}),
    ("tool", '"{\\"q\\": \\"a\\"}"', {"q": "a"}),
    ("tool", "Paris", {"q": "Paris"}),
    ("Tool", '{"q": "a"}', {"q": "a"}),
]


@pytest.mark.parametrize(("name", "written", "arguments"), BROKEN)
async def test_what_models_write_badly_is_understood(
    name: str, written: str, arguments: dict[str, Any]
) -> None:
    """Broken JSON, none, JSON in JSON, a bare text, another case."""
    tool = FakeTool("tool")
    await run_agent(data(entry("tool")), a_run(ScriptedModels(calls((name, written)), "ok"), tool))
    assert tool.calls == [(arguments, {})]


async def test_what_cannot_be_done_is_told_to_the_model() -> None:
    """An unknown tool, arguments without sense and a failing tool are observations; the agent goes
    on, and the log shows the error."""
    models = ScriptedModels(calls(("none", "{}"), ("bad", "[1]"), ("bad", '{"q": ""}')), "Sorry.")
    run = a_run(models, FakeTool("bad", ToolFailed("it is down", "ToolInvokeError")))
    result = await run_agent(data(entry("bad")), run)
    told = [message["content"] for message in models.messages if message["role"] == "tool"]
    assert told[0] == "Error: there is no tool named 'none'; there are: bad"
    assert "not a JSON object" in told[1]
    assert told[2] == "Error: it is down"
    assert result.outputs["text"] == "Sorry."
    assert logs(run, "CALL bad")[-1]["status"] == "error"


async def test_last_round_has_no_tools() -> None:
    """A model that never stops calling is asked once more without tools."""
    models = ScriptedModels(calls(("now", "{}")), calls(("now", "{}")), "Enough.")
    tool = FakeTool("now")
    result = await run_agent(data(entry("now"), maximum_iterations=2), a_run(models, tool))
    assert [bool(call.tools) for call in models.calls] == [True, True, False]
    assert len(tool.calls) == 2
    assert result.outputs["text"] == "Enough."


async def test_settings_and_fixed_arguments_are_not_the_models() -> None:
    """What the author has set (auto 0), plain values and form fields are hidden from the model and
    added to the call; `auto: 1` and empty ones are left to it."""
    tool = FakeTool(
        "s",
        schema={
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("q", "depth", "zone", "when")},
            "required": ["q", "depth"],
        },
    )
    given = entry(
        "s",
        parameters={
            "q": {"auto": 1, "value": None},
            "depth": {"auto": 0, "value": {"type": "constant", "value": "{{#sys.query#}}!"}},
            "when": {"auto": 0, "value": {"type": "variable", "value": ["sys", "query"]}},
        },
        settings={"format": {"value": "%Y"}, "empty": {"value": None}},
        schemas=[{"name": "zone", "form": "form"}, {"name": "q", "form": "llm"}],
        extra={"description": "My words."},
    )
    models = ScriptedModels(calls(("s", '{"q": "a", "depth": "mine"}')), "ok")
    await run_agent(data(given), a_run(models, tool))
    function = models.calls[0].tools[0]["function"]
    assert function["description"] == "My words."
    assert list(function["parameters"]["properties"]) == ["q"]
    assert function["parameters"]["required"] == ["q"]
    asked, settings = tool.calls[0]
    assert asked == {"q": "a", "depth": "What now?!", "when": "What now?"}
    assert settings == {"format": "%Y"}


async def test_tools_of_agent_chat_apps_are_read() -> None:
    """provider_type, provider_id and tool_parameters, the empty ones left to the model."""
    given = {
        "enabled": True,
        "provider_type": "builtin",
        "provider_id": "duckduckgo",
        "provider_name": "duckduckgo",
        "tool_name": "ddgo_search",
        "tool_label": "DuckDuckGo",
        "tool_parameters": {"q": "", "n": 5},
    }
    toolbox = FakeTools(FakeTool("ddgo_search"))
    models = ScriptedModels("hi")
    settings = data(given, entry("off", enabled=False), strategy="function_call")
    await run_agent(settings, a_run(models, toolbox=toolbox))
    assert [tool.key for tool in toolbox.found] == ["duckduckgo:ddgo_search"]
    assert list(models.calls[0].tools[0]["function"]["parameters"]["properties"]) == ["q"]


async def test_tools_of_the_same_name_are_told_apart() -> None:
    """Names are made unique, and of letters that the API takes."""
    toolbox = FakeTools(FakeTool("now"), mcp=(FakeTool("now"), FakeTool("\u67e5\u8be2")))
    models = ScriptedModels("hi")
    config = '{"amap": {"url": "https://mcp.example/sse"}}'
    settings = data(entry("now"), strategy="mcp_sse_function_calling", mcp_server=config)
    await run_agent(settings, a_run(models, toolbox=toolbox))
    assert toolbox.servers == [config]
    names = [tool["function"]["name"] for tool in models.calls[0].tools]
    assert names == ["now", "now_2", "tool"]


async def test_missing_tool_fails_the_node_by_name() -> None:
    """An agent without one of its tools does not run in silence."""
    with pytest.raises(ToolFailed, match="time:gone"):
        await run_agent(data(entry("gone")), a_run(ScriptedModels("x")))


async def test_failing_model_fails_the_node_and_closes_its_log() -> None:
    """The log's open steps end in an error."""
    models = ScriptedModels(Says(failure=ModelFailed("no replica", "ModelError")))
    run = a_run(models)
    with pytest.raises(ModelFailed):
        await run_agent(data(), run)
    assert logs(run, "ROUND 1")[-1]["status"] == "error"
    assert logs(run, "gpt-4o Thought")[-1]["error"] == "no replica"


async def test_files_of_tools_are_outputs() -> None:
    """They are gathered over the rounds, and the model hears of them."""
    image = File(type="image", transfer_method="tool_file", name="a.png", related_id="1")
    models = ScriptedModels(calls(("draw", "{}")), "Here.")
    tool = FakeTool("draw", ToolOutput(files=[image]))
    result = await run_agent(data(entry("draw")), a_run(models, tool))
    assert result.outputs["files"] == [image]
    assert "a.png" in models.messages[-1]["content"]


async def test_json_of_tools_is_observed() -> None:
    """A tool that gives no text is observed by its JSON."""
    models = ScriptedModels(calls(("s", "{}")), "ok")
    await run_agent(
        data(entry("s")), a_run(models, FakeTool("s", ToolOutput(json=[{"a": "\u00e9"}])))
    )
    assert models.messages[-1]["content"] == '{"a": "\u00e9"}'


async def test_context_and_memory_reach_the_model() -> None:
    """Passages stand in the system message, the latest rounds of the conversation before the
    question; resources are shown to clients."""
    history = tuple(
        {"role": role, "content": f"{role}{number}"}
        for number in range(3)
        for role in ("user", "assistant")
    )
    models = ScriptedModels("ok")
    settings = data(context={"type": "variable", "value": ["kb", "result"]})
    settings["memory"] = {"window": {"enabled": True, "size": 1}}
    await run_agent(settings, a_run(models, history=history))
    system, *others = models.messages
    assert "<context>\nP.\n</context>" in system["content"]
    assert "Be brief." in system["content"]
    assert [message["content"] for message in others] == ["user2", "assistant2", "What now?"]


async def test_react_acts_in_text_and_streams_only_the_answer() -> None:
    """Thoughts and actions are in the log; the observation is the next message; stops are set."""
    models = ScriptedModels(
        Says(pieces=["Thought: look\nAct", 'ion: {"action": "now", "action_input": {"q": "x"}}']),
        Says(pieces=["Thought: known\nFinal ", "Answer: It is", " noon."]),
    )
    tool = FakeTool("now", "12:00")
    run = a_run(models, tool)
    result = await run_agent(data(entry("now"), strategy="ReAct"), run)
    assert run.streamed == [("text", "It is"), ("text", " noon.")]
    assert result.outputs["text"] == "It is noon."
    assert tool.calls == [({"q": "x"}, {})]
    assert models.messages[-1]["content"] == "Observation: 12:00"
    assert models.messages[-2]["content"].endswith('{"q": "x"}}')
    assert not models.calls[0].tools
    assert models.calls[0].parameters["stop"] == ["Observation:"]
    assert '"name": "now"' in models.calls[0].messages[0]["content"]
    assert logs(run, "ROUND 1")[-1]["data"]["thought"] == "look"


async def test_react_takes_a_plain_answer() -> None:
    """A model that does not keep to the form is heard all the same."""
    run = a_run(ScriptedModels(Says(pieces=["It is ", "noon."])), FakeTool("now"))
    result = await run_agent(data(entry("now"), strategy="cot"), run)
    assert text_of(run) == result.outputs["text"] == "It is noon."


async def test_react_ends_after_its_rounds() -> None:
    """The last round says that no tool is left; what was thought is the answer if none is given."""
    action = 'Thought: again\nAction: {"action": "now", "action_input": {}}'
    models = ScriptedModels(action)
    tool = FakeTool("now")
    settings = data(entry("now"), strategy="ReAct", maximum_iterations=2)
    result = await run_agent(settings, a_run(models, tool))
    assert len(tool.calls) == 2
    assert len(models.calls) == 3
    assert "No further tool" in models.messages[-1]["content"]
    assert result.outputs["text"] == "again"


async def test_react_of_a_completion_model_is_one_prompt() -> None:
    """Models that only complete get the messages as one text."""
    models = ScriptedModels("Final Answer: yes")
    settings = data(entry("now"), model=MODEL | {"mode": "completion"})
    result = await run_agent(settings, a_run(models, FakeTool("now")))
    prompt = models.calls[0].prompt
    assert prompt is not None
    assert prompt.endswith("User: What now?\n\nAssistant:")
    assert result.outputs["text"] == "yes"


async def test_model_without_calls_of_its_own_acts_in_text() -> None:
    """Function calling falls back where the engine is known not to have it."""
    models = ScriptedModels("Final Answer: yes", facts=ModelFacts(tools=False))
    await run_agent(data(entry("now")), a_run(models, FakeTool("now")))
    assert not models.calls[0].tools
    assert "Final Answer" in models.calls[0].messages[0]["content"]


async def test_cancelling_ends_a_running_tool() -> None:
    """Nothing is left of the calls of a run that was stopped."""
    ended = []

    async def hang(arguments: dict[str, Any]) -> ToolOutput:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(arguments["q"])
        raise AssertionError

    models = ScriptedModels(calls(("hang", '{"q": "1"}'), ("hang", '{"q": "2"}')))
    run = a_run(models, FakeTool("hang", hang))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_agent, data(entry("hang")), run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(ended) == ["1", "2"]


async def test_tool_that_never_answers_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A hung tool costs its time limit, not the run."""

    async def hang(arguments: dict[str, Any]) -> ToolOutput:
        await trio.sleep_forever()
        raise AssertionError

    models = ScriptedModels(calls(("hang", "{}")), "Sorry.")
    result = await run_agent(data(entry("hang")), a_run(models, FakeTool("hang", hang)))
    assert result.outputs["text"] == "Sorry."
    assert "no result within 600 s" in models.messages[-1]["content"]


async def test_unknown_strategy_is_an_error_of_the_node() -> None:
    """It compiles, so that the rest of the graph can be read, and says what is missing."""
    settings = {"agent_strategy_name": "TOD", "agent_strategy_provider_name": "svcvit/agent/agent"}
    with pytest.raises(NodeError, match=r"'TOD' of svcvit/agent/agent is not supported"):
        await run_agent(settings, a_run(ScriptedModels("x")))


def test_agent_without_a_model_is_refused_with_its_place() -> None:
    """The error names where in the file the model is missing."""
    with pytest.raises(GraphError, match=r"agent_parameters\.model"):
        node("agent", {"agent_strategy_name": "ReAct", "agent_parameters": {}})


def test_tools_that_are_no_list_are_refused() -> None:
    """With their place."""
    settings = data()
    settings["agent_parameters"]["tools"] = {"type": "constant", "value": 7}
    with pytest.raises(GraphError, match=r"agent_parameters\.tools: expected a list of tools"):
        node("agent", settings)


def test_variables_that_it_reads_are_named() -> None:
    """Those of its parameters and of its tools' settings."""
    given = entry(
        "s", parameters={"n": {"auto": 0, "value": {"type": "mixed", "value": "{{#a.b#}}"}}}
    )
    found = set(map(tuple, node("agent", data(given)).reads()))
    assert found == {("sys", "query"), ("a", "b")}


async def test_long_results_make_room() -> None:
    """The oldest results of tools are left out when the conversation outgrows the model."""
    models = ScriptedModels(
        *[calls(("now", '{"q": "x"}'))] * 3, "done", facts=ModelFacts(context_tokens=1000)
    )
    tool = FakeTool("now", "word " * 300)
    await run_agent(data(entry("now"), maximum_iterations=5), a_run(models, tool))
    told = [message["content"] for message in models.messages if message["role"] == "tool"]
    assert [text.startswith("word") for text in told] == [False, True, True]


async def test_thoughts_in_tags_are_not_told_again() -> None:
    """The model's own reasoning does not come back to it with the results."""
    spoken = Says(pieces=["<think>hm</think>Wait."], tool_calls=(ToolCall("c", "now", "{}"),))
    models = ScriptedModels(spoken, "ok")
    await run_agent(data(entry("now")), a_run(models, FakeTool("now")))
    assert models.messages[2]["content"] == "Wait."


async def test_what_the_author_decides_is_not_the_models() -> None:
    """Arguments that the schema does not name are dropped; a schema that names none takes all."""
    tool, free = FakeTool("s"), FakeTool("free", schema={"type": "object"})
    models = ScriptedModels(calls(("s", '{"q": "a", "key": "b"}'), ("free", '{"any": 1}')), "ok")
    await run_agent(data(entry("s"), entry("free")), a_run(models, tool, free))
    assert tool.calls[0][0] == {"q": "a"}
    assert free.calls[0][0] == {"any": 1}


async def test_react_mends_a_broken_action() -> None:
    """JSON that is nearly right is put right; what makes no sense is told back."""
    broken = 'Action: {"action": "now", "action_input": {"q": "x",}'
    models = ScriptedModels(broken, 'Action: {"": ,', "Final Answer: ok")
    tool = FakeTool("now", "12:00")
    await run_agent(data(entry("now"), strategy="ReAct"), a_run(models, tool))
    assert tool.calls == [({"q": "x"}, {})]
    assert "this action is not valid JSON" in models.messages[-1]["content"]


async def test_refusal_of_tools_is_learned() -> None:
    """An engine that turns out to take no tools is asked again in text."""
    refusal = Says(failure=ModelFailed("no tools here", "ModelError"), learned={"tools": False})
    models = ScriptedModels(refusal, "Final Answer: yes")
    result = await run_agent(data(entry("now")), a_run(models, FakeTool("now")))
    assert result.outputs["text"] == "yes"
    assert [bool(call.tools) for call in models.calls] == [True, False]


async def test_keys_of_servers_are_not_shown() -> None:
    """Clients see what the agent was told, but not where its servers are."""
    models = ScriptedModels("hi")
    settings = data(mcp_server="https://mcp.example/sse?key=secret")
    result = await run_agent(settings, a_run(models))
    assert result.inputs["query"] == "What now?"
    assert "secret" not in str(result.inputs)


async def test_agents_of_version_2_are_named() -> None:
    """They compile, and fail with the reason."""
    with pytest.raises(NodeError, match="version 2"):
        await run_agent(
            {"agent_node_kind": "dify_agent", "version": "2"}, a_run(ScriptedModels("x"))
        )


async def test_results_beyond_the_limit_are_told_to_the_model() -> None:
    """Writing them out would hold all other runs up; the agent goes on."""
    large = FakeTool("big", ToolOutput(json=[["x" * 1_000] * 3_000]))
    models = ScriptedModels(calls(("big", "{}")), "Sorry.")
    run = a_run(models, large)
    await run_agent(data(entry("big")), run)
    (told,) = [m["content"] for m in models.calls[1].messages if m["role"] == "tool"]
    assert "big gave a result that cannot be shown: as JSON it has" in told
