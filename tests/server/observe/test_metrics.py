"""Metrics: what is rendered parses, adds up, and does not grow with what clients invent."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from balancer.catalog import Catalog
from balancer.policies.least_request import LeastRequest
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.connect import TcpDialer
from balancer.wire.openai import Usage
from balancer.wire.poller import Poller, open_poller
from server.api.openai import RelayApi
from server.api.respond import respond_error
from server.edge.app import App, Route
from server.edge.exchange import Message
from server.observe.histogram import Histogram
from server.observe.metrics import CONTENT_TYPE, EdgeCounts, Metrics
from server.observe.record import Record

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def samples(metrics: Metrics) -> Samples:
    """What a Prometheus server would store."""
    text = (await metrics.render()).decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} comes twice"
            found[key] = sample.value
    return found


def made(**facts: Any) -> Record:
    record = Record(method="POST", path="/v1/x", client="", request_id="", started=0.0)
    for name, value in facts.items():
        setattr(record, name, value)
    return record


@pytest.fixture
def poller() -> Poller:
    return open_poller()


@pytest.fixture
def catalog(poller: Poller) -> Catalog:
    dialer = TcpDialer(poller)
    replicas = [Replica(f"http://127.0.0.1:{port}", dialer) for port in (1, 2)]
    return Catalog(
        [
            Pool("small", replicas, LeastRequest()),
            Pool("large", replicas[:1], LeastRequest()),
        ]
    )


@pytest.fixture
def metrics(catalog: Catalog) -> Metrics:
    return Metrics(catalog, loop_busy=Histogram((0.001, 0.05)), log_dropped=lambda: 3)


async def test_what_is_counted_adds_up(metrics: Metrics) -> None:
    """Requests, failures, tokens, times: each sample is the sum of what was settled."""
    replica = "http://127.0.0.1:1"
    for duration in (0.1, 0.2, 50.0):
        record = made(
            model="small",
            replica=replica,
            duration_s=duration,
            ttft_s=0.03,
            itl_s=0.02,
            queued_s=0.0,
            usage=Usage(10, 5, 4),
        )
        record.failures = ["connect", "reset"] if duration == 0.1 else []
        metrics.settle(record)
    metrics.settle(made(model="small", outcome="client_gone"))
    metrics.settle(made(outcome="model_not_found"))
    found = await samples(metrics)

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("triolet_requests_total", model="small", outcome="ok") == 3
    assert value("triolet_requests_total", model="small", outcome="client_gone") == 1
    assert value("triolet_requests_total", model="", outcome="model_not_found") == 1
    assert value("triolet_client_disconnects_total", model="small") == 1
    assert value("triolet_attempts_failed_total", model="small", kind="connect") == 1
    assert value("triolet_attempts_failed_total", model="small", kind="reset") == 1
    assert value("triolet_tokens_total", model="small", kind="prompt") == 30
    assert value("triolet_tokens_total", model="small", kind="completion") == 15
    assert value("triolet_tokens_total", model="small", kind="cached") == 12
    per_replica = {"model": "small", "replica": replica}
    for family, count, total in (
        ("triolet_request_duration_seconds", 3, 50.3),
        ("triolet_time_to_first_token_seconds", 3, 0.09),
        ("triolet_inter_token_latency_seconds", 3, 0.06),
    ):
        assert value(f"{family}_count", **per_replica) == count
        assert value(f"{family}_sum", **per_replica) == pytest.approx(total)
        assert value(f"{family}_bucket", **per_replica, le="+Inf") == count
    assert value("triolet_request_duration_seconds_bucket", **per_replica, le="0.16") == 1
    assert value("triolet_queue_seconds_count", model="small") == 3
    assert value("triolet_log_lines_dropped_total") == 3


async def test_buckets_never_shrink(metrics: Metrics) -> None:
    """Cumulative, in order, ending in the count: what `histogram_quantile` needs."""
    for number in range(100):
        metrics.settle(made(model="small", replica="r", duration_s=number**2 / 10))
    buckets = [
        value
        for (name, _), value in (await samples(metrics)).items()
        if name == "triolet_request_duration_seconds_bucket"
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 100


async def test_replicas_that_are_gone_are_forgotten(catalog: Catalog, metrics: Metrics) -> None:
    """Where replicas come and go their series would grow for ever; the last counts are scraped."""
    here = catalog.replicas[0].name
    for replica in (here, "http://127.0.0.1:99"):
        record = made(model="small", replica=replica, duration_s=1.0, ttft_s=1.0, itl_s=1.0)
        metrics.settle(record)

    async def shown() -> set[str]:
        return {
            dict(labels)["replica"]
            for name, labels in await samples(metrics)
            if name.endswith("_seconds_count") and "replica" in dict(labels)
        }

    assert await shown() == {here, "http://127.0.0.1:99"}
    assert await shown() == {here}
    metrics.settle(made(model="small", replica="http://127.0.0.1:99", duration_s=1.0))
    assert await shown() == {here, "http://127.0.0.1:99"}, "a stream that ended later"
    assert await shown() == {here}


async def test_edges_are_added_up(metrics: Metrics) -> None:
    """Two servers (plain and TLS) are one edge to whoever looks at it."""
    metrics.edges.append(lambda: EdgeCounts(2, 10, 1, {431: 3}))
    metrics.edges.append(lambda: EdgeCounts(1, 5, 0, {431: 1, 408: 2}))
    found = await samples(metrics)
    assert found["triolet_edge_connections", ()] == 3
    assert found["triolet_edge_accepted_total", ()] == 15
    assert found["triolet_edge_turned_away_total", ()] == 1
    assert found["triolet_edge_refused_total", (("status", "431"),)] == 4
    assert found["triolet_edge_refused_total", (("status", "408"),)] == 2


async def test_every_family_is_ours_and_explained(metrics: Metrics) -> None:
    """Names start with ours or the process's; each has a help text."""
    text = (await metrics.render()).decode()
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(("triolet_", "process_")), family.name
        assert family.documentation
    assert CONTENT_TYPE.startswith("text/plain")


async def test_odd_names_are_escaped(metrics: Metrics) -> None:
    """A model may be called what it likes: the text still parses."""
    odd = 'a"b\\c\nd{e="f"} 1'
    metrics.settle(made(model=odd))
    found = await samples(metrics)
    assert found["triolet_requests_total", (("model", odd), ("outcome", "ok"))] == 1


async def test_rendering_does_not_block_the_loop(metrics: Metrics) -> None:
    """It is done in a thread: other tasks run meanwhile, and counting goes on."""
    for number in range(200):
        metrics.settle(made(model="small", replica=f"r{number}", duration_s=1.0, ttft_s=1.0))
    ran = 0

    async def others() -> None:
        nonlocal ran
        while True:
            ran += 1
            metrics.settle(made(model="small", replica=f"new{ran}", duration_s=1.0))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await metrics.render()
        nursery.cancel_scope.cancel()
    assert ran >= 1


async def post(app: App, body: bytes) -> int:
    """One call; the status of its answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"content-type", b"application/json")],
        "client": None,
        "query_string": b"",
        "extensions": {},
    }
    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_models_nobody_configured_make_no_labels(catalog: Catalog, metrics: Metrics) -> None:
    """A thousand invented names: one series, without a name, and a 404 for each."""
    relay = RelayApi(catalog, body_bytes=1000)
    routes = {"/v1/chat/completions": Route(POST=relay.relay)}
    app = App(routes, respond_error, metrics.settle)
    before = len(await samples(metrics))
    for number in range(100):
        assert await post(app, b'{"model": "invented-%d", "messages": []}' % number) == 404
        assert await post(app, b'{"model": %d}' % number) == 400
    found = await samples(metrics)
    models = {dict(labels)["model"] for _, labels in found if "model" in dict(labels)}
    assert models <= {"", "small", "large"}
    assert len(found) <= before + 10


def test_render_is_usable_without_a_running_pool() -> None:
    """Before anything is configured `/metrics` answers as well."""
    metrics = Metrics(Catalog(), loop_busy=Histogram((1.0,)), log_dropped=lambda: 0)
    assert b"triolet_edge_connections 0.0" in trio.run(partial(metrics.render))
