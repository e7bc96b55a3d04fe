"""Clients that leave, and the books afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from bench.replica import ReplicaSettings, create_app
from bench.replica.asgi import Application, Event
from tests.bench.replica.driver import JSON, call, chat, post, scope_of

CHAT = "/v1/chat/completions"


async def scrape(app: Application) -> dict[str, float]:
    """All samples, by name and the labels that tell them apart."""
    answer = await call(app, "GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            assert sample.labels["engine"] == "0"
            if sample.name != "vllm:cache_config_info":
                assert sample.labels["model_name"] == "demo"
            extra = sample.labels.get("finished_reason") or sample.labels.get("le")
            found[f"{sample.name}/{extra}" if extra else sample.name] = sample.value
    return found


def chat_body(**fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("leaves_at_s", "tokens"), [(0.1, 0), (0.99, 0), (1.55, 6), (3.0001, 21)])
async def test_leaving_stops_generation_at_once(
    autojump_clock: trio.testing.MockClock, stream: bool, leaves_at_s: float, tokens: int
) -> None:
    """Before the first token or between tokens, the work ends then and counts as aborted."""
    app = create_app(ReplicaSettings(ttft_s=1, tokens_per_s=10))
    begun_s = trio.current_time()
    body = chat_body(max_tokens=100, stream=stream)
    answer = await call(app, "POST", CHAT, body, leaves_at_s=leaves_at_s)
    assert trio.current_time() - begun_s == pytest.approx(leaves_at_s)
    assert not answer.complete
    books = await scrape(app)
    assert books["vllm:num_requests_running"] == 0
    assert books["vllm:kv_cache_usage_perc"] == 0
    assert books["vllm:generation_tokens_total"] == tokens
    assert books["vllm:request_success_total/abort"] == 1
    assert books["vllm:request_success_total/stop"] == 0


async def test_leaving_while_embedding(autojump_clock: trio.testing.MockClock) -> None:
    """An embedding that nobody waits for any more is aborted too."""
    app = create_app(ReplicaSettings(ttft_s=1))
    await call(app, "POST", "/v1/embeddings", b'{"input": "x"}', leaves_at_s=0.5)
    books = await scrape(app)
    assert books["vllm:request_success_total/abort"] == 1
    assert books["vllm:num_requests_running"] == 0


async def test_leaving_before_the_body_is_complete(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing was started, so nothing is answered or counted."""
    app = create_app()
    sent: list[Event] = []
    events: list[Event] = [
        {"type": "http.request", "body": b'{"mess', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Event:
        await trio.lowlevel.checkpoint()
        return events.pop(0)

    async def send(event: Event) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(event)

    await app(scope_of("POST", CHAT, JSON), receive, send)
    assert sent == []
    assert (await scrape(app))["vllm:request_success_total/abort"] == 0


async def test_failing_send_is_a_client_that_left(autojump_clock: trio.testing.MockClock) -> None:
    """A server that reports a lost client by an OSError gets its slot back, and no exception."""
    app = create_app()
    waiting = [{"type": "http.request", "body": chat_body(stream=True)}]
    sends = 0

    async def receive() -> Event:
        if waiting:
            return waiting.pop(0)
        await trio.sleep_forever()
        raise AssertionError

    async def send(event: Event) -> None:
        nonlocal sends
        sends += 1
        await trio.lowlevel.checkpoint()
        if sends == 4:
            raise BrokenPipeError

    await app(scope_of("POST", CHAT, JSON), receive, send)
    books = await scrape(app)
    assert sends == 4
    assert books["vllm:num_requests_running"] == 0
    assert books["vllm:request_success_total/abort"] == 1


async def test_cancelled_from_outside(autojump_clock: trio.testing.MockClock) -> None:
    """A server that cancels the exchange finds the books in order, too."""
    app = create_app(ReplicaSettings(ttft_s=1, tokens_per_s=10))
    with trio.move_on_after(2) as scope:
        await chat(app, max_tokens=100, stream=True)
    assert scope.cancelled_caught
    books = await scrape(app)
    assert books["vllm:num_requests_running"] == 0
    assert books["vllm:request_success_total/abort"] == 1


async def test_gauges_while_running(autojump_clock: trio.testing.MockClock) -> None:
    """Running requests and their share of the cache show while they run, and are gone after."""
    app = create_app(ReplicaSettings(ttft_s=1, tokens_per_s=10, kv_cache_tokens=160))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: chat(app, "Hello there", max_tokens=30, stream=True))
        await trio.sleep(2.05)
        during = await scrape(app)
    after = await scrape(app)
    assert during["vllm:num_requests_running"] == 3
    assert during["vllm:num_requests_waiting"] == 0
    # 6 prompt tokens and 11 made: two blocks of 16 for each, of ten in all.
    assert during["vllm:kv_cache_usage_perc"] == pytest.approx(0.6)
    assert during["vllm:generation_tokens_total"] == 33
    assert after["vllm:num_requests_running"] == after["vllm:kv_cache_usage_perc"] == 0


async def test_counters_add_up(autojump_clock: trio.testing.MockClock) -> None:
    """Tokens, reasons and histograms agree with what the answers said."""
    app = create_app(ReplicaSettings(ttft_s=0.15, tokens_per_s=40))
    usages = [
        (await answer).json()["usage"]
        for answer in (
            chat(app, max_tokens=20),
            chat(app),
            post(app, "/v1/completions", prompt=["a", "b c"], max_tokens=7),
        )
    ]
    embedded = (await post(app, "/v1/embeddings", input="x y z")).json()["usage"]
    books = await scrape(app)
    prompt = sum(usage["prompt_tokens"] for usage in [*usages, embedded])
    made = sum(usage["completion_tokens"] for usage in usages)
    assert books["vllm:prompt_tokens_total"] == books["vllm:prefix_cache_queries_total"] == prompt
    assert books["vllm:prefix_cache_hits_total"] == 0
    assert books["vllm:generation_tokens_total"] == made
    assert books["vllm:request_success_total/length"] == 3
    assert books["vllm:request_success_total/stop"] == 2
    assert books["vllm:time_to_first_token_seconds_count"] == 5
    assert books["vllm:time_to_first_token_seconds_sum"] == pytest.approx(5 * 0.15)
    assert books["vllm:time_to_first_token_seconds_bucket/0.1"] == 0
    assert books["vllm:time_to_first_token_seconds_bucket/0.25"] == 5
    assert books["vllm:inter_token_latency_seconds_count"] == made - 4
    assert books["vllm:inter_token_latency_seconds_sum"] == pytest.approx((made - 4) / 40)
    assert books["vllm:e2e_request_latency_seconds_count"] == 5
    assert books["vllm:cache_config_info"] == 1


async def test_slow_reader_does_not_change_the_books(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A sequence stops running with its last token, even if the client has yet to read it."""
    app = create_app(ReplicaSettings(ttft_s=1, tokens_per_s=10))
    waiting = [{"type": "http.request", "body": chat_body(max_tokens=1, stream=True)}]

    async def receive() -> Event:
        if waiting:
            return waiting.pop(0)
        await trio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(event: Event) -> None:
        if event["type"] == "http.response.body":
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, scope_of("POST", CHAT, JSON), receive, send)
        await trio.sleep(30)
        assert (await scrape(app))["vllm:num_requests_running"] == 0
    assert (await scrape(app))["vllm:request_success_total/length"] == 1
