"""The replica on the simulated engine, over HTTP's messages and in virtual time."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from bench.engine import Engine, Profile, Sequence
from bench.replica import Replica, ReplicaSettings, create_app, load_profile
from bench.replica.asgi import Event
from bench.replica.tokens import split
from bench.workload.model import Segment
from tests.bench.replica.driver import JSON, Answer, call, chat, post, scope_of
from tests.bench.replica.test_leaving import chat_body, scrape

CHAT = "/v1/chat/completions"
PROFILE = load_profile("h100-llama-8b")
LONG = "word " * 3000


def simulated(profile: Profile = PROFILE, **settings: Any) -> Replica:
    return create_app(ReplicaSettings(profile=profile, **settings))


def small(**changes: Any) -> Profile:
    return load_profile("h100-llama-8b", **{"max_model_len": 512, "kv_tokens": 1024, **changes})


def predicted(profile: Profile, prompt_tokens: int, tokens: int) -> list[float]:
    """When the engine by itself has each token of a lone request."""
    engine = Engine(profile)
    sequence = Sequence((Segment(1, prompt_tokens),), tokens, 2)
    engine.submit(sequence, 0.0)
    times: list[float] = []
    now_s = 0.0
    while len(times) < tokens:
        now_s = engine.due_s(sequence, len(times), now_s)
        engine.advance(now_s)
        times += [now_s] * (engine.tokens_made(sequence, now_s) - len(times))
    return times


def content_times(answer: Answer) -> list[float]:
    return [at for at, choice in answer.choices() if choice["delta"]["content"]]


def cached(answer: Answer) -> int:
    found = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert isinstance(found, int)
    return found


async def ttft_s(app: Replica, said: str) -> float:
    return content_times(await chat(app, said, max_tokens=2, stream=True))[0]


@pytest.mark.parametrize("words", [1, 200, 20_000])
async def test_tokens_come_when_the_engine_says(
    autojump_clock: trio.testing.MockClock, words: int
) -> None:
    """A lone request's tokens are sent one by one at the predicted times."""
    answer = await chat(simulated(), "word " * words, max_tokens=50, stream=True)
    # Its own 4 marks, and a token for the white space at the end.
    expected = predicted(PROFILE, words + 5, 50)
    assert content_times(answer) == pytest.approx(expected, abs=1e-6)
    assert answer.head_s == pytest.approx(0, abs=1e-6)


async def test_whole_answer_takes_as_long(autojump_clock: trio.testing.MockClock) -> None:
    """Without streaming the answer comes with its last token."""
    answer = await chat(simulated(), "word", max_tokens=50)
    assert answer.chunks[0][0] == pytest.approx(predicted(PROFILE, 5, 50)[-1])


async def test_text_is_that_of_the_demo(autojump_clock: trio.testing.MockClock) -> None:
    """What is said does not depend on what keeps the time."""
    for fields in ({}, {"max_tokens": 700}, {"stop": "simulation", "stream": True}):
        both = [await chat(app, "Hi", **fields) for app in (simulated(), create_app())]
        assert both[0].text() == both[1].text()
        if "stream" not in fields:
            usages = [answer.json()["usage"] for answer in both]
            assert [usage.pop("prompt_tokens_details") for usage in usages][1] is None
            assert usages[0] == usages[1]


async def test_shared_prefix_is_cached_and_faster(autojump_clock: trio.testing.MockClock) -> None:
    """A second prompt with the same beginning finds its whole blocks, and starts sooner."""
    app = simulated()
    cold_s = await ttft_s(app, LONG + "one")
    warm_s = await ttft_s(app, LONG + "two")
    assert warm_s < cold_s / 2
    assert cached(await chat(app, LONG + "three", max_tokens=1)) == 3000 // 16 * 16
    books = await scrape(app)
    assert books["vllm:prefix_cache_hits_total"] == 2 * 2992
    assert books["vllm:prefix_cache_queries_total"] == books["vllm:prompt_tokens_total"] == 3 * 3005


async def test_second_turn_finds_the_first_answer(autojump_clock: trio.testing.MockClock) -> None:
    """The prompt of a second turn is cached up to the end of the first answer."""
    app = simulated()
    messages = [{"role": "user", "content": "What is a triolet?"}]
    first = await post(app, CHAT, messages=messages, max_tokens=100)
    messages += [
        {"role": "assistant", "content": first.text()},
        {"role": "user", "content": "Thank you."},
    ]
    second = await post(app, CHAT, messages=messages, max_tokens=5)
    # The last token made was never fed back: its keys and values are not there.
    known = first.json()["usage"]["total_tokens"] - 1
    assert cached(second) == known // 16 * 16 > 90


async def test_cached_tokens_in_a_stream(autojump_clock: trio.testing.MockClock) -> None:
    """The usage event has them too, 0 included."""
    app = simulated()
    found = []
    for _ in range(2):
        asked = {"include_usage": True}
        answer = await chat(app, LONG, max_tokens=3, stream=True, stream_options=asked)
        usage = answer.events()[-1][1]["usage"]
        found.append(usage["prompt_tokens_details"])
        assert usage["completion_tokens"] == 3
    assert found == [{"cached_tokens": 0}, {"cached_tokens": 2992}]


async def test_reset_prefix_cache(autojump_clock: trio.testing.MockClock) -> None:
    """After it the same prompt is computed anew."""
    app = simulated()
    await chat(app, LONG, max_tokens=1)
    assert (await call(app, "POST", "/reset_prefix_cache")).status == 200
    assert cached(await chat(app, LONG, max_tokens=1)) == 0
    assert (await call(create_app(), "POST", "/reset_prefix_cache")).status == 404


async def together(app: Replica, requests: int, **fields: Any) -> list[Answer]:
    """So many chats at the same time, each with a prompt of its own."""
    answers: list[Answer] = []

    async def one(index: int) -> None:
        answers.append(await chat(app, f"{index} {fields.get('said', 'Hello')}", **options))

    options = {key: value for key, value in fields.items() if key != "said"}
    async with trio.open_nursery() as nursery:
        for index in range(requests):
            nursery.start_soon(one, index)
    return answers


def itl_s(answer: Answer) -> float:
    times = content_times(answer)
    return (times[-1] - times[0]) / (len(times) - 1)


async def test_a_batch_is_slower_for_each(autojump_clock: trio.testing.MockClock) -> None:
    """With 64 at once each token takes longer, but far less than 64 times as long."""
    [alone] = await together(simulated(), 1, max_tokens=100, stream=True)
    batch = await together(simulated(), 64, max_tokens=100, stream=True)
    slowest = max(map(itl_s, batch))
    assert 1.05 < slowest / itl_s(alone) < 2


async def test_who_has_no_place_waits(autojump_clock: trio.testing.MockClock) -> None:
    """Beyond max_num_seqs requests wait, and the metrics say so while they do."""
    app = simulated(small(max_num_seqs=2))
    books = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: together(app, 5, max_tokens=100))
        await trio.sleep(0.3)
        books = await scrape(app)
    assert books["vllm:num_requests_running"] == 2
    assert books["vllm:num_requests_waiting"] == 3
    assert 0 < books["vllm:kv_cache_usage_perc"] < 1
    after = await scrape(app)
    assert after["vllm:num_requests_running"] == after["vllm:num_requests_waiting"] == 0
    assert after["vllm:kv_cache_usage_perc"] == 0
    assert after["vllm:request_queue_time_seconds_count"] == 5
    assert after["vllm:request_queue_time_seconds_sum"] > 0.6


async def test_preemption_shows(autojump_clock: trio.testing.MockClock) -> None:
    """When the memory is full some start again: counted, and every answer is complete."""
    app = simulated(small())
    answers = await together(app, 8, max_tokens=300, stream=True)
    books = await scrape(app)
    assert books["vllm:num_preemptions_total"] > 0
    assert [len(split(answer.text())) for answer in answers] == [300] * 8
    assert books["vllm:generation_tokens_total"] == 2400
    assert books["vllm:inter_token_latency_seconds_count"] == 2400 - 8
    stalls = [max(b - a for a, b in pairwise(content_times(answer))) for answer in answers]
    assert max(stalls) > 0.5


async def test_metrics_add_up(autojump_clock: trio.testing.MockClock) -> None:
    """The phases of a request add up to the whole, and tokens to what was said."""
    app = simulated()
    await together(app, 6, max_tokens=40, stream=True)
    await together(app, 6, max_tokens=20)
    await post(app, "/v1/completions", prompt=["a", "b c"], max_tokens=7)
    await post(app, "/v1/embeddings", input=["x", "y"])
    books = await scrape(app)
    total = {
        name.removesuffix("_sum").removeprefix("vllm:"): value
        for name, value in books.items()
        if name.endswith("_sum")
    }
    assert books["vllm:request_success_total/length"] == 14
    assert books["vllm:request_success_total/stop"] == 2
    assert books["vllm:generation_tokens_total"] == 6 * 40 + 6 * 20 + 2 * 7
    phases = total["request_prefill_time_seconds"] + total["request_decode_time_seconds"]
    assert phases == pytest.approx(total["request_inference_time_seconds"])
    assert total["inter_token_latency_seconds"] == pytest.approx(
        total["request_decode_time_seconds"]
    )
    e2e = total["time_to_first_token_seconds"] + total["request_decode_time_seconds"]
    assert e2e == pytest.approx(total["e2e_request_latency_seconds"])
    assert books["vllm:request_time_per_output_token_seconds_count"] == 14


OLD = {
    "vllm:gpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
    "vllm:gpu_prefix_cache_hits_total": "vllm:prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_queries_total": "vllm:prefix_cache_queries_total",
    "vllm:time_per_output_token_seconds_sum": "vllm:inter_token_latency_seconds_sum",
}


async def test_old_metric_names(autojump_clock: trio.testing.MockClock) -> None:
    """On request the page has the names of older engines, and not today's beside them."""
    steady = create_app(ReplicaSettings(old_metric_names=True))
    for app in (simulated(old_metric_names=True), steady):
        books = await scrape(app)
        assert set(OLD) <= set(books)
        assert not set(OLD.values()) & set(books)
    books = await scrape(simulated())
    assert set(OLD.values()) <= set(books)
    assert not set(OLD) & set(books)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("leaves_at_s", [0.001, 0.03, 1.0])
async def test_leaving_frees_memory(
    autojump_clock: trio.testing.MockClock, stream: bool, leaves_at_s: float
) -> None:
    """A client that leaves in the front end, in prefill or in decode is gone a step later."""
    app = simulated()
    messages = [{"role": "user", "content": LONG}]
    body = json.dumps({"messages": messages, "max_tokens": 5000, "stream": stream}).encode()
    begun_s = trio.current_time()
    answer = await call(app, "POST", CHAT, body, leaves_at_s=leaves_at_s)
    assert trio.current_time() - begun_s == pytest.approx(leaves_at_s)
    assert not answer.complete
    await trio.sleep(0.2)
    books = await scrape(app)
    assert books["vllm:num_requests_running"] == books["vllm:num_requests_waiting"] == 0
    assert books["vllm:kv_cache_usage_perc"] == 0
    assert books["vllm:request_success_total/abort"] == 1
    assert books["vllm:generation_tokens_total"] == pytest.approx(
        len([at for at in predicted(PROFILE, 3005, 300) if at <= leaves_at_s])
    )


async def test_leaving_lets_the_next_one_in(autojump_clock: trio.testing.MockClock) -> None:
    """The place of a client that left in the queue or in the batch goes to who waits."""
    app = simulated(small(max_num_seqs=1))
    body = chat_body(max_tokens=400)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call(app, "POST", CHAT, body, leaves_at_s=0.5))
        await trio.sleep(0.1)
        nursery.start_soon(lambda: call(app, "POST", CHAT, body, leaves_at_s=0.1))
        await trio.sleep(0.05)
        first_s = content_times(await chat(app, max_tokens=3, stream=True))[0]
    assert 0.35 < first_s < 0.4


async def test_a_slow_reader_gets_what_is_there(autojump_clock: trio.testing.MockClock) -> None:
    """The engine does not wait for a reader: what was made meanwhile comes in one chunk."""
    app = simulated()
    waiting = [{"type": "http.request", "body": chat_body(max_tokens=100, stream=True)}]
    bodies: list[bytes] = []

    async def receive() -> Event:
        if not waiting:
            await trio.sleep_forever()
        return waiting.pop()

    async def send(event: Event) -> None:
        if event["type"] == "http.response.body":
            bodies.append(event["body"])
            await trio.sleep(0.3 if len(bodies) == 3 else 0)

    await app(scope_of("POST", CHAT, JSON), receive, send)
    assert 30 < len(bodies) < 70
    texts = [json.loads(body[6:])["choices"] for body in bodies[:-1]]
    joined = "".join(choices[0]["delta"]["content"] for choices in texts)
    assert joined == (await chat(app, "Hi", max_tokens=100)).text()


async def test_several_prompts_come_as_they_are_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Of two completions the one that need not wait for the other does not."""
    app = simulated(small(max_num_seqs=1))
    answer = await post(app, "/v1/completions", prompt=["a", "b"], max_tokens=10, stream=True)
    times = [[at for at, _ in answer.choices(index)] for index in (0, 1)]
    assert [len(each) for each in times] == [10, 10]
    assert max(times[0]) < min(times[1])


async def test_prompt_beyond_the_context(autojump_clock: trio.testing.MockClock) -> None:
    """400 in vLLM's words, with the profile's length."""
    app = simulated(small())
    answer = await chat(app, LONG, max_tokens=12)
    assert answer.status == 400
    assert "maximum context length is 512 tokens" in answer.json()["error"]["message"]
    card = (await call(app, "GET", "/v1/models")).json()["data"][0]
    assert card["max_model_len"] == 512
    books = await scrape(app)
    assert books["vllm:num_requests_waiting"] == 0


async def test_same_load_same_times(autojump_clock: trio.testing.MockClock) -> None:
    """The same requests at the same times give the same times, however tasks are scheduled."""

    async def run() -> list[tuple[str, list[float]]]:
        begun_s = trio.current_time()
        app = simulated(small())
        answers = await together(app, 12, max_tokens=120, stream=True)
        assert trio.current_time() > begun_s
        return sorted((a.text(), [round(at, 6) for at in content_times(a)]) for a in answers)

    runs = [await run() for _ in range(2)]
    assert [text for text, _ in runs[0]] == [text for text, _ in runs[1]]
    # Who of those that came in the same instant was first is chance; the times are not.
    assert sorted(times for _, times in runs[0]) == sorted(times for _, times in runs[1])


def test_an_app_outlives_its_run() -> None:
    """An app can be used in one run of Trio after another, even if the first was cut short."""
    app = simulated()

    async def cut_short() -> None:
        with trio.move_on_after(0.1):
            await chat(app, max_tokens=1000)

    async def complete() -> Answer:
        return await chat(app, max_tokens=3)

    trio.run(cut_short, clock=trio.testing.MockClock(autojump_threshold=0))
    answer = trio.run(complete, clock=trio.testing.MockClock(autojump_threshold=0))
    assert answer.json()["usage"]["completion_tokens"] == 3
