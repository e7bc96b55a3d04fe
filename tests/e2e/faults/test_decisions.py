"""Each call can be asked why it went where it did, and is counted by how well that was foreseen."""

from __future__ import annotations

import json
from typing import Any

from server.config import PoolConfig, ReplicaConfig
from tests.e2e.faults.client import MODEL, post
from tests.e2e.faults.scripted import (
    CLOSE,
    DONE,
    END,
    REQUEST,
    STREAM_HEAD,
    WHOLE,
    FakeReplica,
    chunk,
    delta,
    forever,
    say,
)
from tests.e2e.kit import (
    ADMIN_KEY,
    PATIENT,
    Running,
    config_of,
    eventually,
    relaying,
    running_triolet,
)

LONG = "Tell me everything about gears. " * 64
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":2,'
    b'"prompt_tokens_details":{"cached_tokens":750}}}\n\n'
)
WITH_USAGE = (
    STREAM_HEAD + chunk(delta("Hel")) + chunk(delta("lo")) + chunk(USAGE) + chunk(DONE) + END
)


def get(path: str) -> bytes:
    """As who has the key asks."""
    head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n"
    return head.encode()


def ask(request_id: str) -> bytes:
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": LONG}]}
    return post(headers=b"x-request-id: " + request_id.encode() + b"\r\n", **fields)


async def decided(triolet: Running, request_id: str) -> dict[str, Any]:
    """What is told of a call that is over."""
    await eventually(lambda: triolet.triolet.decisions.find(request_id) is not None)
    answer = await triolet.call(get(f"/admin/api/decisions/{request_id}"))
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def counted(triolet: Running) -> dict[tuple[str, ...], float]:
    """Samples by their names, without `triolet_`, and the values of their labels."""
    return {
        (sample.name.removeprefix("triolet_"), *sample.labels.values()): sample.value
        for family in triolet.triolet.metrics.families()
        for sample in family.samples
    }


async def test_why_it_went_there() -> None:
    """The second call of a prompt goes to who has read it: expected, observed, and counted."""
    fakes = [FakeReplica(forever(REQUEST, say(WITH_USAGE))) for _ in range(2)]
    async with relaying(*fakes, policy="expected_cost") as triolet:
        for number in (1, 2):
            assert (await triolet.call(ask(f"req_{number}"))).whole
            await triolet.logged(number)
        first, second = [await decided(triolet, f"req_{number}") for number in (1, 2)]
        assert (first["policy"], first["tier"]) == ("expected_cost", "interactive")
        assert first["placements"][0]["cached_tokens_expected"] == 0
        [placement] = second["placements"]
        assert placement["cached_tokens_expected"] > 400
        assert placement["replica"] == second["replica"] == first["replica"]
        assert (second["prompt_tokens"], second["cached_tokens"]) == (1000, 750)
        assert second["observed_ttft_ms"] > 0
        found = counted(triolet)
        assert found["prefix_tokens_total", MODEL, "prompt"] == 2000
        assert found["prefix_tokens_total", MODEL, "observed"] == 1500
        assert 800 <= found["prefix_tokens_total", MODEL, "expected"] <= 1000
        latest = await triolet.call(get("/admin/api/decisions?limit=1"))
        assert [one["request_id"] for one in latest.json()["decisions"]] == ["req_2"]


async def test_predictions_are_judged() -> None:
    """A policy that predicts shows each term, and is counted as late or early."""
    fakes = [FakeReplica(), FakeReplica()]
    async with relaying(*fakes, policy="expected_cost") as triolet:
        await triolet.call(ask("req_1"))
        await triolet.logged()
        found = await decided(triolet, "req_1")
        explanation = found["placements"][0]["explanation"]
        assert explanation is not None
        assert explanation["considered"] == 2
        best, other = explanation["candidates"]
        assert best["cost"] <= other["cost"]
        assert best["terms"].keys() == other["terms"].keys()
        assert found["predicted_ttft_ms"] is not None
        counts = [
            value
            for key, value in counted(triolet).items()
            if key[:3] == ("routing_regret_seconds_count", MODEL, "expected_cost")
        ]
        assert sum(counts) == 1


async def test_each_attempt_is_told() -> None:
    """Where it failed, and where it went then."""
    broken, sound = FakeReplica([REQUEST, CLOSE]), FakeReplica()
    async with relaying(broken, sound) as triolet:
        assert (await triolet.call(ask("req_1"))).text == "Hello"
        await triolet.logged()
        found = await decided(triolet, "req_1")
        places = [placement["replica"] for placement in found["placements"]]
        assert places == [broken.url, sound.url]
        assert found["attempts"] == 2


async def test_a_fallback_is_told_and_counted() -> None:
    """By the model that answered, and the step from the one that was asked for."""
    broken, sound = FakeReplica([REQUEST, CLOSE]), FakeReplica()
    pools = (
        PoolConfig(
            model=MODEL,
            replicas=(ReplicaConfig(url=broken.url),),
            fallback=("other",),
            retries=0,
            timeouts=PATIENT,
        ),
        PoolConfig(model="other", replicas=(ReplicaConfig(url=sound.url),), timeouts=PATIENT),
    )
    async with running_triolet(config_of(*pools), broken, sound) as triolet:
        assert (await triolet.call(ask("req_1"))).text == "Hello"
        await triolet.logged()
        assert (await decided(triolet, "req_1"))["model"] == "other"
        assert counted(triolet)["fallbacks_total", MODEL, "other"] == 1


async def test_a_refused_call_has_none() -> None:
    """It never had a replica: there is nothing to explain but the error, which it has."""
    fake = FakeReplica(forever(REQUEST, say(WHOLE)))
    async with relaying(fake) as triolet:
        request = post(headers=b"x-request-id: req_1\r\n", model="none")
        assert (await triolet.call(request)).status == 404
        answer = await triolet.call(get("/admin/api/decisions/req_1"))
        assert (answer.status, answer.error["code"]) == (404, "not_found")
