"""Model calls of runs, over scripted replicas in virtual time."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from balancer.pool import PoolSettings
from server.pool_models.body import make_body
from server.workflow.app import Bindings, ModelRef
from server.workflow.services import ChatCall, ModelFacts, ModelFailed, ToolCall, Usage
from tests.balancer.relays import relay
from tests.balancer.scripted import STREAM_HEAD, Act, ScriptedReplica, chunk, stream
from tests.server.pool_models.calls import (
    DONE,
    GOOD,
    GPT,
    Heard,
    ask,
    call_of,
    delta,
    event,
    header,
    models_of,
    refused,
    run_of,
    sent,
    stop,
    usage,
    whole,
)

Clock = trio.testing.MockClock


async def test_an_answer_as_it_streams(autojump_clock: Clock) -> None:
    """The receiver gets each piece, is drained once per read, and the whole is returned."""
    async with relay(GOOD) as r:
        heard = Heard()
        found = await ask(r, heard)
        assert (found.text, found.finish_reason, found.model) == ("Good day", "stop", "m")
        assert found.usage == Usage(7, 2)
        assert not found.usage_estimated
        assert heard.pieces == [("text", "Good "), ("text", "day")]
        assert heard.drained >= 1
        assert found.ttft_s == 0.0


async def test_what_the_replica_is_asked(autojump_clock: Clock) -> None:
    """The pool's name for the model, the messages, the parameters, usage; a request id."""
    async with relay(GOOD) as r:
        await ask(r, parameters={"temperature": 0.5, "stop": ["END"]})
        request = r.scripted[0].requests[0]
        assert request.startswith(b"POST /v1/chat/completions ")
        assert sent(request) == {
            "model": "m",
            "messages": [{"role": "user", "content": "Hello?"}],
            "temperature": 0.5,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        request_id = header(request, b"x-request-id")
        assert request_id is not None
        assert request_id.startswith(b"run-1-")


async def test_a_completion_model(autojump_clock: Clock) -> None:
    """It is asked at its own address, and answers with `text`."""
    texts = [
        event({"choices": [{"text": text, "finish_reason": reason}]})
        for text, reason in (("Good", None), (" day", "length"))
    ]
    async with relay(stream(*texts, DONE)) as r:
        found = await ask(r, messages=(), prompt="Say")
        assert (found.text, found.finish_reason) == ("Good day", "length")
        request = r.scripted[0].requests[0]
        assert request.startswith(b"POST /v1/completions ")
        assert sent(request)["prompt"] == "Say"
        assert "messages" not in sent(request)


async def test_an_answer_that_is_no_stream(autojump_clock: Clock) -> None:
    """It is read whole: text, thoughts, calls of tools."""
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    message = {"content": "Hi", "reasoning_content": "Hm", "tool_calls": calls}
    async with relay([whole(message)]) as r:
        heard = Heard()
        found = await ask(r, heard, stream=False)
        assert (found.text, found.reasoning) == ("Hi", "Hm")
        assert found.tool_calls == (ToolCall("c", "f", '{"a":1}'),)
        assert found.usage == Usage(5, 3)
        assert found.ttft_s is None
        assert heard.pieces == [("text", "Hi"), ("reasoning", "Hm")]
        assert "stream_options" not in sent(r.scripted[0].requests[0])


async def test_an_engine_that_does_not_stream(autojump_clock: Clock) -> None:
    """One that answers a stream's request whole is understood."""
    async with relay([whole({"content": "Hi"})]) as r:
        assert (await ask(r)).text == "Hi"


async def test_the_session(autojump_clock: Clock) -> None:
    """Policies are told of the conversation, or else of the run."""
    async with relay(GOOD) as r:
        models = models_of(r)
        await models.chat(call_of(), run_of(conversation_id="talk-7"))
        await models.chat(call_of(), run_of())
        now = trio.current_time()
        assert r.pool._runs.home("talk-7", now) == "http://r0"
        assert r.pool._runs.home("run-1", now) == "http://r0"


async def test_without_usage_it_is_estimated(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """That is said: of the answer, and once in the log."""
    async with relay(stream(delta(content="four score " * 20), stop(), DONE)) as r:
        models = models_of(r)
        with caplog.at_level(logging.WARNING):
            await models.chat(call_of(), run_of())
            found = await models.chat(call_of(), run_of())
        assert found.usage_estimated
        assert found.usage.completion_tokens == 55
        assert found.usage.prompt_tokens > 0
        assert len([one for one in caplog.records if "usage" in one.message]) == 1


async def test_token_ratios_are_learned(autojump_clock: Clock) -> None:
    """What the engine counts corrects the estimate for the next call."""
    messages = ({"role": "user", "content": "x" * 400},)
    async with relay(stream(delta(content="a"), stop(), usage(prompt=208), DONE)) as r:
        models = models_of(r)
        assert models.facts(GPT, run_of()).tokens_per_estimate == 1
        await models.chat(call_of(messages=messages), run_of())
        assert models.facts(GPT, run_of()).tokens_per_estimate == 2


async def test_another_replica(autojump_clock: Clock) -> None:
    """One that fails before its answer begins is not the end: the run does not notice."""
    async with relay([Act.RESET], GOOD) as r:
        heard = Heard()
        assert (await ask(r, heard)).text == "Good day"
        assert heard.pieces[0] == ("text", "Good ")
        assert r.served() == [1, 1]


async def test_a_fallback_pool(autojump_clock: Clock) -> None:
    """Its replicas are asked by their own model's name, and it is named in the answer."""
    settings = PoolSettings(fallback=("m1",), retries=0)
    async with relay(None, fallback=[[GOOD]], settings=settings) as r:
        found = await ask(r)
        assert (found.text, found.model) == ("Good day", "m1")
        assert sent(r.scripts[1][0].requests[0])["model"] == "m1"


async def test_cut_in_mid_stream(autojump_clock: Clock) -> None:
    """What came is there, and then an error that says so."""
    async with relay([STREAM_HEAD, chunk(delta(content="Go")), 1, Act.RESET]) as r:
        heard = Heard()
        with pytest.raises(ModelFailed, match="broke off") as failed:
            await ask(r, heard)
        assert failed.value.type == "InvokeConnectionError"
        assert heard.pieces == [("text", "Go")]


async def test_an_end_without_an_end(autojump_clock: Clock) -> None:
    """A stream that ends well-formed but in mid-answer is no answer."""
    async with relay(stream(delta(content="Go"))) as r:
        with pytest.raises(ModelFailed, match="broke off"):
            await ask(r)


async def test_an_error_event(autojump_clock: Clock) -> None:
    """An engine's error in mid-stream is told in its words."""
    error = event({"error": {"message": "out of memory", "code": 500}})
    async with relay(stream(delta(content="Go"), error, DONE)) as r:
        with pytest.raises(ModelFailed, match=r"\(500\): out of memory") as failed:
            await ask(r)
        assert failed.value.type == "InvokeServerUnavailableError"


@pytest.mark.parametrize(
    ("status", "message", "type", "told"),
    [
        (400, "bad temperature", "InvokeBadRequestError", "refused the request.*bad temperature"),
        (401, "no key", "InvokeAuthorizationError", "no key"),
        (429, "slow down", "InvokeRateLimitError", "slow down"),
        (500, "boom", "InvokeServerUnavailableError", "boom"),
        (
            400,
            "This model's maximum context length is 8 tokens",
            "InvokeBadRequestError",
            "too long for model 'm'.*memory window",
        ),
    ],
)
async def test_refusals(
    autojump_clock: Clock, status: int, message: str, type: str, told: str
) -> None:
    """A replica's refusal is told with what to do, under the type that workflows know."""
    settings = PoolSettings(retries=0)
    async with relay(refused(status, message), settings=settings) as r:
        with pytest.raises(ModelFailed, match=told) as failed:
            await ask(r)
        assert failed.value.type == type


async def test_nobody_there(autojump_clock: Clock) -> None:
    """A pool whose replicas refuse connections."""
    async with relay(None, settings=PoolSettings(retries=0)) as r:
        with pytest.raises(ModelFailed, match="could not be reached") as failed:
            await ask(r)
        assert failed.value.type == "InvokeConnectionError"


async def test_no_time_left(autojump_clock: Clock) -> None:
    """A run whose deadline has passed gets no replica once it would have to wait."""
    async with relay([STREAM_HEAD, Act.HANG], max_in_flight=1) as r:
        models = models_of(r)
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                await models.chat(call_of(), run_of())

            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            late = run_of(deadline=trio.current_time() + 1)
            with pytest.raises(ModelFailed, match="overloaded"):
                await models.chat(call_of(), late)
            nursery.cancel_scope.cancel("that is all")


async def test_the_tier_of_the_run(autojump_clock: Clock) -> None:
    """It stands in its tier's line."""
    async with relay([STREAM_HEAD, Act.HANG]) as r:
        models = models_of(r)
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                await models.chat(call_of(), run_of(tier="batch"))

            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            tiers = {tier.tier: tier.in_flight for tier in r.pool.statistics().tiers}
            assert tiers == {"interactive": 0, "batch": 1}
            assert models.in_flight == 1
            nursery.cancel_scope.cancel("that is all")
        assert models.in_flight == 0


@pytest.mark.parametrize(
    "script",
    [
        [Act.HANG],
        [STREAM_HEAD, Act.HANG],
        [STREAM_HEAD, chunk(delta(content="Go")), Act.HANG],
        [STREAM_HEAD, chunk(delta(content="Go")), chunk(delta(content="od"))[:9], Act.HANG],
    ],
)
async def test_cancelling_closes_the_connection(autojump_clock: Clock, script: Any) -> None:
    """In each phase: the replica sees the connection close at once, and nothing stays."""
    replica = ScriptedReplica(script)
    async with relay(replica) as r:
        begun = trio.current_time()
        with trio.move_on_after(2):
            await ask(r, Heard())
        await trio.testing.wait_all_tasks_blocked()
        assert replica.left_at == [begun + 2]


async def test_a_slow_receiver(autojump_clock: Clock) -> None:
    """While it drains nothing more is read: a slow client slows the replica down."""

    class Slow(Heard):
        async def drain(self) -> None:
            await trio.sleep(0.5)

    pieces = [chunk(delta(content="x" * 1000)) for _ in range(50)]
    script = [STREAM_HEAD, *pieces, chunk(stop()), b"0\r\n\r\n"]
    async with relay(script, capacity_bytes=4096) as r:
        heard = Slow()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, r, heard)
            await trio.sleep(1.2)
            assert 1 <= len(heard.pieces) < 20
        assert len(heard.pieces) == 50


# Which model


async def test_a_model_that_is_not_here(autojump_clock: Clock) -> None:
    """The error is the line that mends it."""
    async with relay(GOOD) as r:
        models = models_of(r, {"other": "m"})
        with pytest.raises(ModelFailed) as failed:
            await models.chat(call_of(), run_of())
        assert failed.value.type == "ModelNotExistError"
        assert 'under [models]: "langgenius/openai/openai:gpt-4o" = "m"' in failed.value.message


async def test_a_name_for_nothing(autojump_clock: Clock) -> None:
    """A table that names a model which is not served is told with its key."""
    async with relay(GOOD) as r:
        with pytest.raises(ModelFailed, match=r"model 'gone', which \[models\] .* key 'openai:\*'"):
            await models_of(r, {"openai:*": "gone"}).chat(call_of(), run_of())
        bound = run_of(Bindings(models={"gpt-4o": "gone"}))
        with pytest.raises(ModelFailed, match="which the app's bindings name"):
            await models_of(r).chat(call_of(), bound)


async def test_the_only_model(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With one model and no table it serves all; that is said once."""
    async with relay(GOOD) as r:
        models = models_of(r, {})
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert (await models.chat(call_of(), run_of())).model == "m"
        assert len([one for one in caplog.records if "the only model here" in one.message]) == 1


async def test_how_much_a_model_reads_is_what_its_replicas_say(autojump_clock: Clock) -> None:
    """The least of them, by the name that they have for it; the configuration goes before."""
    async with relay(GOOD, GOOD, GOOD) as r:
        first, second, _ = r.pools[0].replicas
        first.lists({"m": 8192, "other": 10})
        assert models_of(r).facts(GPT, run_of()).context_tokens == 8192
        second.lists({"m": 4096, "other": None})
        assert models_of(r).facts(GPT, run_of()).context_tokens == 4096
        told = {"m": ModelFacts(context_tokens=99)}
        assert models_of(r, None, told).facts(GPT, run_of()).context_tokens == 99


async def test_facts(autojump_clock: Clock) -> None:
    """Of the model that the name stands for; of one that is not here a guess."""
    async with relay(GOOD) as r:
        models = models_of(r, {"gpt-4o": "m"}, {"m": ModelFacts(context_tokens=99, vision=False)})
        found = models.facts(GPT, run_of())
        assert (found.context_tokens, found.vision, found.tools) == (99, False, True)
        assert models.facts(ModelRef("x", "y"), run_of()) == ModelFacts()


@pytest.mark.parametrize(
    ("call", "words", "feature"),
    [
        ({"response_format": {"type": "json_schema"}}, "guided decoding is off", "json_schema"),
        ({"tools": [{"type": "function"}]}, "tool choice requires a parser", "tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "m is not a multimodal model",
            "vision",
        ),
    ],
)
async def test_what_a_pool_refuses_is_learned(
    autojump_clock: Clock, call: dict[str, Any], words: str, feature: str
) -> None:
    """Its facts say so for ten minutes; then it is asked again."""
    async with relay(refused(400, words)) as r:
        models = models_of(r)
        with pytest.raises(ModelFailed):
            await models.chat(call_of(**call), run_of())
        facts = models.facts(GPT, run_of())
        assert [one for one in ("vision", "tools", "json_schema") if not getattr(facts, one)] == [
            feature
        ]
        await trio.sleep(601)
        assert getattr(models.facts(GPT, run_of()), feature)


async def test_dropped_parameters_are_told_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted, and not sent."""
    async with relay(GOOD) as r:
        models = models_of(r)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                await models.chat(call_of(parameters={"web_search": True}), run_of())
        assert models.dropped == {"web_search": 3}
        assert len([one for one in caplog.records if "web_search" in one.message]) == 1
        assert "web_search" not in sent(r.scripted[0].requests[0])


async def test_who_is_told_of_calls(autojump_clock: Clock) -> None:
    """`on_call` hears of each that is over, also of one that failed or was cancelled."""
    told: list[tuple[str, int]] = []
    async with relay(ScriptedReplica(GOOD, refused(400, "no"), [Act.HANG])) as r:
        models = models_of(r, on_call=lambda trace, run: told.append((run.run.id, trace.attempts)))
        await models.chat(call_of(), run_of())
        with pytest.raises(ModelFailed):
            await models.chat(call_of(), run_of())
        with trio.move_on_after(1):
            await models.chat(call_of(), run_of())
    assert told == [("run-1", 1)] * 3


def test_a_body_is_written_once_for_each_name() -> None:
    """It may have many megabytes, and is asked for before the call and for it."""
    body = make_body(ChatCall(model=ModelRef("p", "m"), messages=[]))
    assert body.for_model("a") is body.for_model("a")
    assert body.for_model("b").startswith(b'{"model":"b",')
    assert body.for_model("a").startswith(b'{"model":"a",')
