"""The llm node: what the model is asked, and what the run gets of its answer."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from server.workflow.app import OPEN_MODEL, ModelRef
from server.workflow.events import ReasoningChunk
from server.workflow.node import GraphError, NodeError, Result, Run
from server.workflow.services import Message, ModelFacts, ModelFailed, ServiceFailed, Usage
from server.workflow.values import File, Value
from tests.server.workflow.fakes import FakeRun, app, execute, node, services
from tests.server.workflow.scripted_models import Says, ScriptedModels, json_says

MODEL = {"provider": "openai", "name": "gpt-4o", "mode": "chat", "completion_params": {}}
PNG = File(type="image", transfer_method="local_file", name="a.png", mime_type="image/png")
REFUSED = ModelFailed("response_format is not supported", "InvokeBadRequestError")


def llm(*prompts: tuple[str, str], **data: Any) -> dict[str, Any]:
    """A node's data; prompts as (role, text)."""
    template = [{"role": role, "text": text} for role, text in prompts or (("user", "Hi"),)]
    return {"model": MODEL, "prompt_template": template} | data


class Shelf:
    """Files whose bytes are "<name>"."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, str, str]] = []

    async def read(self, file: File, most_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if file.name == "gone.png":
            raise ServiceFailed("gone.png is not here", "FileError")
        if file.size > most_bytes:
            raise ServiceFailed(f"more than {most_bytes} bytes", "FileError")
        return f"<{file.name}>".encode()

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        self.kept.append((content, name, mime_type))
        return File(type="image", transfer_method="tool_file", name=name, mime_type=mime_type)


class Upper:
    """A template engine that answers the source with its values in capitals."""

    async def render(self, source: str, values: dict[str, Any]) -> str:
        await trio.lowlevel.checkpoint()
        return f"{source}|{sorted(values.items())}".upper()

    def render_now(self, source: str, values: dict[str, Any]) -> str | None:
        return None if "slow" in source else f"{source}|{sorted(values.items())}"


def run_with(
    models: ScriptedModels,
    variables: dict[str, dict[str, Value]] | None = None,
    history: tuple[Message, ...] = (),
    **given: Any,
) -> FakeRun:
    served = services(models=models, files=Shelf(), jinja=Upper(), **given)
    return FakeRun(variables, run=Run(id="run", app=app(), services=served, history=history))


async def ask(
    data: dict[str, Any],
    models: ScriptedModels | None = None,
    variables: dict[str, dict[str, Value]] | None = None,
    history: tuple[Message, ...] = (),
) -> tuple[ScriptedModels, FakeRun, Result]:
    models = models or ScriptedModels("Good day")
    run = run_with(models, variables, history)
    return models, run, await execute(node("llm", data), run)


def talk(rounds: int) -> tuple[Message, ...]:
    """A conversation; each round has about 2 x 14 tokens."""
    said = []
    for number in range(rounds):
        said.append({"role": "user", "content": f"question {number} ".ljust(40, "?")})
        said.append({"role": "assistant", "content": f"answer {number} ".ljust(40, "!")})
    return tuple(said)


async def test_a_plain_answer() -> None:
    """What is asked, streamed, given out and recorded."""
    says = Says(pieces=["Good", " day"], usage=Usage(12, 64))
    data = llm(("system", "You are {{#env.who#}}."), ("user", "Say {{#start.what#}}!"))
    variables: dict[str, dict[str, Value]] = {"env": {"who": "kind"}, "start": {"what": "hi"}}
    models, run, result = await ask(data, ScriptedModels(says), variables)
    assert models.messages == [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "Say hi!"},
    ]
    assert run.streamed == [("text", "Good"), ("text", " day")]
    assert run.closed == ["text"]
    assert run.drained == 2
    usage = {
        "prompt_tokens": 12,
        "prompt_unit_price": "0",
        "prompt_price_unit": "0",
        "prompt_price": "0",
        "completion_tokens": 64,
        "completion_unit_price": "0",
        "completion_price_unit": "0",
        "completion_price": "0",
        "total_tokens": 76,
        "total_price": "0",
        "currency": "USD",
        "latency": 1.0,
        "time_to_first_token": 0.25,
        "time_to_generate": 0.75,
    }
    assert result.outputs == {
        "text": "Good day",
        "reasoning_content": "",
        "usage": usage,
        "finish_reason": "stop",
    }
    assert result.inputs == {
        "#env.who#": "kind",
        "#start.what#": "hi",
        "model_provider": "openai",
        "model_name": "gpt-4o",
    }
    assert result.process_data == {
        "model_mode": "chat",
        "prompts": [
            {"role": "system", "text": "You are kind.", "files": []},
            {"role": "user", "text": "Say hi!", "files": []},
        ],
        "usage": usage,
        "finish_reason": "stop",
        "model_provider": "openai",
        "model_name": "gpt-4o",
        "served_by": "small",
    }
    assert result.metadata == {"total_tokens": 76, "total_price": "0", "currency": "USD"}
    assert result.usage == Usage(12, 64)


async def test_a_variable_that_is_not_there() -> None:
    """The node fails by its name: it may be on a branch that was not taken."""
    with pytest.raises(NodeError, match=r"^Variable #gone\.text# not found$") as failed:
        await ask(llm(("user", "See {{#gone.text#}}")))
    assert failed.value.type == "VariableNotFoundError"


async def test_empty_values() -> None:
    """None is no missing variable; a message without text is left out; none left is an error."""
    data = llm(("system", "{{#a.x#}}"), ("user", "Hi"))
    models, _, result = await ask(data, variables={"a": {"x": None}})
    assert models.messages == [{"role": "user", "content": "Hi"}]
    assert result.inputs["#a.x#"] == ""
    with pytest.raises(NodeError, match="No prompt found in the LLM configuration") as failed:
        await ask(llm(("system", "{{#a.x#}}")), variables={"a": {"x": ""}})
    assert failed.value.type == "NoPromptFoundError"


# Parameters


async def test_parameters() -> None:
    """Those with variables are filled in; what reads as a number or a boolean becomes one."""
    parameters = {
        "temperature": "{{#a.warm#}}",
        "enable_thinking": "{{#a.think#}}",
        "stop": ["x"],
        "reasoning_effort": "{{#a.effort#}}",
        "seed": "{{#gone.x#}}",
        "user": "{{#a.long#}}",
    }
    variables: dict[str, dict[str, Value]] = {
        "a": {"warm": "0.7", "think": "true", "effort": "low", "long": "x" * 5000}
    }
    data = llm(model=MODEL | {"completion_params": parameters})
    models, _, _ = await ask(data, variables=variables)
    assert models.calls[0].parameters == {
        "temperature": 0.7,
        "enable_thinking": True,
        "stop": ["x"],
        "reasoning_effort": "low",
        "seed": "gone.x",
        "user": "x" * 1024,
    }


# Context


async def test_a_context() -> None:
    """It stands where the template says so; its own text is not looked into."""
    data = llm(
        ("system", "Use {{#context#}}!"),
        context={"enabled": True, "variable_selector": ["k", "result"]},
    )
    models, _, result = await ask(data, variables={"k": {"result": "a {{#env.secret#}} b"}})
    assert models.messages[0]["content"] == "Use a {{#env.secret#}} b!"
    assert result.inputs["#context#"] == "a {{#env.secret#}} b"


async def test_passages() -> None:
    """Their contents are the context, and they are told as what the answer rests on."""
    passage = {
        "content": "Trio is small.",
        "title": "Trio",
        "summary": "On Trio.",
        "metadata": {
            "_source": "knowledge",
            "dataset_id": "d",
            "document_name": "Trio",
            "score": 0.5,
            "segment_hit_count": 3,
        },
    }
    data = llm(
        ("user", "{{#context#}}"),
        context={"enabled": True, "variable_selector": ["k", "result"]},
    )
    items: list[Value] = [passage, {"content": "no metadata"}, "plain"]
    models, _, result = await ask(data, variables={"k": {"result": items}})
    assert models.messages[0]["content"] == "On Trio.\nTrio is small.\nno metadata\nplain"
    (resource,) = result.metadata["retriever_resources"]
    assert (resource["dataset_id"], resource["document_name"], resource["score"]) == (
        "d",
        "Trio",
        0.5,
    )
    assert (resource["content"], resource["hit_count"]) == ("Trio is small.", 3)


async def test_odd_contexts() -> None:
    """None is an empty context; an item without content is an error."""
    data = llm(
        ("user", "Hi {{#context#}}"),
        context={"enabled": True, "variable_selector": ["k", "result"]},
    )
    contexts: list[dict[str, dict[str, Value]]]
    contexts = [{}, {"k": {"result": None}}, {"k": {"result": []}}, {"k": {"result": 7}}]
    for variables in contexts:
        models, _, result = await ask(data, variables=variables)
        assert models.messages[0]["content"] == "Hi "
        assert "#context#" not in result.inputs
    with pytest.raises(NodeError, match="Invalid context structure") as failed:
        await ask(data, variables={"k": {"result": [{"title": "x"}]}})
    assert failed.value.type == "InvalidContextStructureError"


# Memory


async def test_memory() -> None:
    """The conversation, and after it what the user says now."""
    data = llm(("system", "Be kind."), memory={"query_prompt_template": "{{#sys.query#}}?"})
    models, _, result = await ask(data, variables={"sys": {"query": "and now"}}, history=talk(2))
    assert models.messages == [
        {"role": "system", "content": "Be kind."},
        *talk(2),
        {"role": "user", "content": "and now?"},
    ]
    assert result.inputs["#sys.query#"] == "and now"


@pytest.mark.parametrize("memory", [None, {}])
async def test_without_memory(memory: Any) -> None:
    """Nothing of the conversation is shown."""
    models, _, _ = await ask(llm(memory=memory), history=talk(2))
    assert models.messages == [{"role": "user", "content": "Hi"}]


async def test_memory_without_a_query_template() -> None:
    """Then it is what the user says; outside of a conversation nothing."""
    data = llm(("system", "x"), memory={"window": {"enabled": False}})
    models, _, _ = await ask(data, variables={"sys": {"query": "now"}})
    assert models.messages[1:] == [{"role": "user", "content": "now"}]
    models, _, _ = await ask(data)
    assert models.messages[1:] == []


@pytest.mark.parametrize(
    ("memory", "facts", "rounds"),
    [
        ({"window": {"enabled": True, "size": 3}}, ModelFacts(), 3),
        ({"window": {"enabled": False, "size": 3}}, ModelFacts(), 71),
        ({"window": {"enabled": True, "size": 0}}, ModelFacts(context_tokens=10**6), 500),
        ({"window": {"enabled": False}}, ModelFacts(context_tokens=600), 3),
        (
            {"window": {"enabled": False}},
            ModelFacts(context_tokens=600, tokens_per_estimate=2),
            1,
        ),
    ],
)
async def test_the_memory_window(memory: Any, facts: ModelFacts, rounds: int) -> None:
    """The latest rounds, by their number and by the tokens that are left beside the answer's."""
    data = llm(memory=memory, model=MODEL | {"completion_params": {"max_tokens": 500}})
    models = ScriptedModels("x", facts=facts)
    await ask(data, models, {"sys": {"query": "now"}}, talk(600))
    assert models.messages[1:-1] == list(talk(600))[-2 * rounds :]


# Files


async def test_vision() -> None:
    """Files go before the text of what the user says last, their bytes along with them."""
    vision = {"enabled": True, "configs": {"variable_selector": ["sys", "files"], "detail": "low"}}
    data = llm(("system", "See."), ("user", "What is it?"), vision=vision)
    models, _, result = await ask(data, variables={"sys": {"files": [PNG]}})
    url = "data:image/png;base64,PGEucG5nPg=="
    image = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    assert models.messages[1:] == [
        {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}
    ]
    assert result.inputs["#files#"] == [PNG.as_dict()]
    (recorded,) = result.process_data["prompts"][1]["files"]
    assert recorded["type"] == "image"
    assert "PGEucG5nPg==" not in recorded["data"]


async def test_vision_without_a_user_message() -> None:
    """The files are a message of their own."""
    data = llm(("system", "See."), vision={"enabled": True})
    models, _, _ = await ask(data, variables={"sys": {"files": [PNG]}})
    assert [message["role"] for message in models.messages] == ["system", "user"]
    assert models.messages[1]["content"][0]["type"] == "image_url"


async def test_files_in_prompts() -> None:
    """A variable that holds files has no text: they follow as a message of the same role."""
    video = File(type="video", transfer_method="remote_url", url="https://x/v.mp4")
    sound = File(type="audio", transfer_method="local_file", name="s.mp3", extension=".mp3")
    pdf = File(type="document", transfer_method="local_file", name="p.pdf")
    facts = ModelFacts(audio=True, documents=True)
    data = llm(("user", "See {{#a.files#}} and {{#a.one#}}!"))
    variables: dict[str, dict[str, Value]] = {"a": {"files": [PNG, video, sound, pdf], "one": PNG}}
    models, _, _ = await ask(data, ScriptedModels("x", facts=facts), variables)
    text, files = models.messages
    assert text == {"role": "user", "content": "See  and !"}
    assert [part["type"] for part in files["content"]] == [
        *("image_url", "video_url", "input_audio", "file", "image_url")
    ]
    assert files["content"][1]["video_url"] == {"url": "https://x/v.mp4"}
    assert files["content"][2]["input_audio"] == {"data": "PHMubXAzPg==", "format": "mp3"}


async def test_a_model_without_eyes() -> None:
    """What it cannot take is left out, and the record says so."""
    data = llm(("user", "See {{#sys.files#}}"), vision={"enabled": True})
    models, _, result = await ask(
        data, ScriptedModels("x", facts=ModelFacts(vision=False)), {"sys": {"files": [PNG]}}
    )
    assert models.messages == [{"role": "user", "content": "See "}]
    assert result.process_data["files_left_out"] == ["a.png", "a.png"]


async def test_files_are_bounded() -> None:
    """In number and in size; one that is not there is an error of its keeper."""
    data = llm(vision={"enabled": True})
    with pytest.raises(NodeError, match="20 files at most"):
        await ask(data, variables={"sys": {"files": [PNG] * 21}})
    big = File(type="image", transfer_method="local_file", name="b.png", size=11 * 1024 * 1024)
    with pytest.raises(ServiceFailed, match="more than 8388608 bytes"):
        await ask(data, variables={"sys": {"files": [big]}})
    url = "data:image/png;base64," + "A" * 4 * 1024 * 1024
    given = File(type="image", transfer_method="remote_url", name="u.png", url=url)
    with pytest.raises(NodeError, match="8,388,608 bytes at most"):
        await ask(data, variables={"sys": {"files": [given] * 3}})
    gone = File(type="image", transfer_method="local_file", name="gone.png")
    with pytest.raises(ServiceFailed, match="not here"):
        await ask(data, variables={"sys": {"files": [gone]}})


async def test_vision_of_what_is_no_file() -> None:
    """Nothing is fine, a text is not."""
    data = llm(vision={"enabled": True})
    for files in (None, [], ["x"]):
        await ask(data, variables={"sys": {"files": files}})
    with pytest.raises(NodeError, match="is no file") as failed:
        await ask(data, variables={"sys": {"files": "x"}})
    assert failed.value.type == "InvalidVariableTypeError"


async def test_pictures_that_the_model_makes() -> None:
    """They are kept, and are the output `files`."""
    says = Says(pieces=["Here"], images=("data:image/webp;base64,AAA=", "data:image/png;base64,!"))
    models = ScriptedModels(says)
    run = run_with(models)
    result = await execute(node("llm", llm()), run)
    (file,) = result.outputs["files"]
    assert file.name == "image_1.webp"
    assert run.run.services.files.kept == [(b"\0\0", "image_1.webp", "image/webp")]  # type: ignore[attr-defined]


# Jinja and completion models


@pytest.mark.parametrize("source", ["Hi", "slow"])
async def test_jinja(source: str) -> None:
    """Rendered at once where that is cheap, elsewhere if not; with values as they are."""
    prompt = [{"role": "user", "edition_type": "jinja2", "jinja2_text": source, "text": "no"}]
    config = {"jinja2_variables": [{"variable": "x", "value_selector": ["a", "x"]}]}
    data = llm(prompt_template=prompt, prompt_config=config)
    models, _, result = await ask(data, variables={"a": {"x": [1, {"b": 2}]}})
    expected = f"{source}|[('x', [1, {{'b': 2}}])]"
    content = models.messages[0]["content"]
    assert content == (expected.upper() if source == "slow" else expected)
    assert result.inputs["x"] == [1, {"b": 2}]
    with pytest.raises(NodeError, match="Variable x not found"):
        await ask(data)


async def test_a_completion_model() -> None:
    """One text; the conversation stands where the text says so."""
    model = MODEL | {"mode": "completion"}
    text = "Talk:\n{{#histories#}}\nHuman: {{#sys.query#}}\n"
    memory = {"role_prefix": {"user": "", "assistant": "Robot"}, "window": {"enabled": False}}
    data = llm(model=model, prompt_template={"text": text}, memory=memory)
    history: tuple[Message, ...] = (
        {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "image_url"}]},
        {"role": "assistant", "content": "a"},
    )
    models, _, result = await ask(data, variables={"sys": {"query": "now"}}, history=history)
    expected = "Talk:\nHuman: q\n[image]\nRobot: a\nHuman: now\n"
    assert models.calls[0].prompt == expected
    assert models.messages == []
    assert result.process_data["prompts"] == [{"role": "user", "text": expected, "files": []}]
    data = llm(model=model, prompt_template={"text": "Go on"}, memory=memory)
    models, _, _ = await ask(data, history=history[1:], variables={"sys": {"query": "now"}})
    assert models.calls[0].prompt == "Go on"
    models, _, _ = await ask(data, history=talk(1))
    assert models.calls[0].prompt == (
        f"Human: {talk(1)[0]['content']}\nRobot: {talk(1)[1]['content']}\nGo on"
    )


# Reasoning


async def test_tagged_reasoning() -> None:
    """Tags stay in the text; thoughts that the engine sends apart are put into tags."""
    says = Says(pieces=[("reasoning", "Hm"), ("reasoning", "m"), "Hi", " you"])
    _, run, result = await ask(llm(), ScriptedModels(says))
    assert result.outputs["text"] == "<think>\nHmm\n</think>Hi you"
    assert result.outputs["reasoning_content"] == ""
    assert "".join(text for _, text in run.streamed) == result.outputs["text"]
    _, _, result = await ask(llm(), ScriptedModels("<think>a</think>b"))
    assert result.outputs["text"] == "<think>a</think>b"
    _, _, result = await ask(llm(), ScriptedModels(Says(pieces=[("reasoning", "Hm")])))
    assert result.outputs["text"] == "<think>\nHm\n</think>"


async def test_separated_reasoning() -> None:
    """It leaves the stream and the text, wherever the tags are cut, and is told apart."""
    pieces = ["<th", "ink>a", "b</thi", "nk>\n\nHi <", "b> you"]
    _, run, result = await ask(
        llm(reasoning_format="separated"), ScriptedModels(Says(pieces=pieces))
    )
    assert (result.outputs["text"], result.outputs["reasoning_content"]) == ("Hi <b> you", "ab")
    assert "".join(text for _, text in run.streamed) == "Hi <b> you"
    assert run.told == [
        (ReasoningChunk, {"text": "a"}),
        (ReasoningChunk, {"text": "b"}),
        (ReasoningChunk, {"text": "", "final": True}),
    ]


async def test_separated_reasoning_of_the_engine() -> None:
    """The same for what comes apart already."""
    says = Says(pieces=[("reasoning", "Hm"), "Hi"])
    _, run, result = await ask(llm(reasoning_format="separated"), ScriptedModels(says))
    assert (result.outputs["text"], result.outputs["reasoning_content"]) == ("Hi", "Hm")
    assert run.streamed == [("text", "Hi")]
    assert len(run.told) == 2


# Structured output

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "number"}}},
    "required": ["a"],
}
STRUCTURED = {"structured_output_enabled": True, "structured_output": {"schema": SCHEMA}}


@pytest.mark.parametrize("key", ["structured_output_enabled", "structured_output_switch_on"])
async def test_structured_output(key: str) -> None:
    """Engines that can are given the schema; what they answer is an output."""
    data = llm(**{key: True, "structured_output": {"schema": SCHEMA}})
    models, _, result = await ask(data, ScriptedModels(json_says({"a": [1, 2]})))
    assert result.outputs["structured_output"] == {"a": [1, 2]}
    assert result.outputs["text"] == '{"a":[1,2]}'
    call = models.calls[0]
    assert call.response_format is not None
    assert call.response_format["json_schema"]["schema"] == SCHEMA
    assert call.messages == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "answer",
    [
        'Sure!\n```json\n{"a": [1]}\n```',
        'It is {"a": [1]}, as you see.',
        "<think>{no}</think>{'a': [1,],",
        '{"a": [1',
    ],
)
async def test_structured_output_in_words(answer: str) -> None:
    """Engines that cannot are told in the prompt; what is nearly JSON is repaired."""
    models = ScriptedModels(answer, facts=ModelFacts(json_schema=False))
    _, _, result = await ask(llm(("system", "Be kind."), ("user", "Hi"), **STRUCTURED), models)
    assert result.outputs["structured_output"] == {"a": [1]}
    assert models.calls[0].response_format is None
    system = models.messages[0]["content"]
    assert system.startswith("Be kind.\n\n")
    assert '"required": ["a"]' in system
    assert len(models.calls) == 1


async def test_an_engine_that_refuses_a_schema() -> None:
    """It is asked again in words; the record has what was sent last."""
    refuses = Says(failure=REFUSED, learned={"json_schema": False})
    models, _, result = await ask(llm(**STRUCTURED), ScriptedModels(refuses, '{"a": []}'))
    assert result.outputs["structured_output"] == {"a": []}
    assert [call.response_format is None for call in models.calls] == [False, True]
    assert result.process_data["prompts"][0]["role"] == "system"


async def test_an_answer_that_does_not_fit() -> None:
    """The model is told what is wrong and asked once more; its tokens count."""
    says = ['{"a": ["x"]}', '{"a": [1]}']
    models, run, result = await ask(llm(**STRUCTURED), ScriptedModels(*says))
    assert result.outputs["structured_output"] == {"a": [1]}
    assert result.outputs["text"] == '{"a": ["x"]}'
    assert run.streamed == [("text", '{"a": ["x"]}')]
    assert result.usage == Usage(20, 10)
    *_, answered, corrected = models.messages
    assert answered == {"role": "assistant", "content": '{"a": ["x"]}'}
    assert "$.a[0]" in corrected["content"]
    assert result.process_data["correction"]["text"] == corrected["content"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"a": ["x"]}', r"Structured output validation failed \(stage=result, path=\$\.a\[0\]\)"),
        ("none", r"Failed to parse structured output \(stage=result, path=\$\)"),
    ],
)
async def test_an_answer_that_never_fits(answer: str, told: str) -> None:
    """Twice is enough."""
    models = ScriptedModels(answer)
    with pytest.raises(NodeError, match=told) as failed:
        await ask(llm(**STRUCTURED), models)
    assert failed.value.type == "LLMNodeError"
    assert len(models.calls) == 2


async def test_schemas_fetch_nothing() -> None:
    """A reference to somewhere else is an error, and goes nowhere."""
    schema = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}
    data = llm(structured_output_enabled=True, structured_output={"schema": schema})
    models = ScriptedModels('{"a": 1}')
    with pytest.raises(NodeError, match=r"the schema at .*cannot be used: .*127\.0\.0\.1:9/x"):
        await ask(data, models)
    assert models.calls == []


def test_structured_output_without_a_schema() -> None:
    """That is told at import."""
    with pytest.raises(GraphError, match="there is no schema"):
        node("llm", llm(structured_output_enabled=True))


# Failures


async def test_a_model_that_fails() -> None:
    """The failure is the node's, with what was asked."""
    says = Says(pieces=["Go"], failure=ModelFailed("broke off", "InvokeConnectionError"))
    with pytest.raises(NodeError, match="broke off") as failed:
        await ask(llm(), ScriptedModels(says))
    error = failed.value
    assert error.type == "InvokeConnectionError"
    assert error.inputs["model_name"] == "gpt-4o"
    assert error.process_data["prompts"] == [{"role": "user", "text": "Hi", "files": []}]


async def test_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """A node in flight ends when it is cancelled."""
    with trio.move_on_after(3) as scope:
        await ask(llm(), ScriptedModels(Says(pieces=["Go"], hangs=True)))
    assert scope.cancelled_caught


async def test_no_model_is_chosen() -> None:
    """It asks for the one that stands for those left open."""
    models = ScriptedModels(Says(pieces=["Go"]))
    await ask({**llm(), "model": {"provider": "", "name": ""}}, models)
    assert models.calls[0].model == ModelRef("", OPEN_MODEL)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"model": MODEL, "prompt_template": "x"}, "prompt_template"),
        (llm(("robot", "x")), r"prompt_template\[0\].role"),
        ({"model": "x"}, "model"),
    ],
)
def test_wrong_data(data: dict[str, Any], place: str) -> None:
    """Told at import, with its place."""
    with pytest.raises(GraphError, match=place):
        node("llm", data)


def test_what_it_reads() -> None:
    """All selectors, for the import's report."""
    data = llm(
        ("user", "{{#a.b#}} {{#context#}}"),
        context={"enabled": True, "variable_selector": ["k", "r"]},
        memory={"query_prompt_template": "{{#sys.query#}}"},
        vision={"enabled": True, "configs": None},
        model=MODEL | {"completion_params": {"seed": "{{#c.d#}}"}},
    )
    found = node("llm", data)
    assert [tuple(selector) for selector in found.reads()] == [
        ("a", "b"),
        ("sys", "query"),
        ("k", "r"),
        ("sys", "files"),
        ("c", "d"),
    ]
    assert list(found.streams()) == ["text"]
