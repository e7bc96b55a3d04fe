"""Model calls through the relay's API: what a replica gets, and which model answered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from balancer.catalog import Catalog
from balancer.pool import PoolSettings
from server.api.openai import RelayApi
from server.edge.exchange import Message
from server.observe.record import Record
from tests.balancer.relays import GOOD, GOOD_BODY, Relay, relay
from tests.balancer.scripted import answer

Clock = trio.testing.MockClock
FULL = answer(b'{"error":"full"}', status=503)
FALLS_BACK = PoolSettings(fallback=("m1", "m", "unknown", "m1", "m2"), retries=0)


class Answer:
    """What a client was sent, and what was noted of it."""

    def __init__(self, sent: list[Message], record: Record) -> None:
        self.status: int = sent[0]["status"]
        self.headers: dict[bytes, bytes] = dict(sent[0]["headers"])
        self.body = b"".join(message["body"] for message in sent[1:])
        self.record = record


async def post(
    r: Relay, model: str = "m", headers: tuple[tuple[bytes, bytes], ...] = (), **fields: Any
) -> Answer:
    """One chat call."""
    body = msgspec.json.encode({"model": model, "messages": [], "stream": True, **fields})
    sent: list[Message] = []

    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not unread:
            await trio.sleep_forever()
        return unread.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    path, now = "/v1/chat/completions", trio.current_time()
    record = Record(method="POST", path=path, client="", request_id="id-1", started=now)
    scope: dict[str, Any] = {
        "path": path,
        "headers": [(b"content-type", b"application/json"), *headers],
        "query_string": b"",
        "extensions": {},
    }
    api = RelayApi(Catalog(r.pools), body_bytes=10_000)
    await api.relay(record, scope, receive, send)
    return Answer(sent, record)


async def test_the_model_asked_for(autojump_clock: Clock) -> None:
    """Without a fall there is no word of one; the body goes on untouched."""
    async with relay(GOOD, fallback=[[GOOD]], settings=FALLS_BACK) as r:
        found = await post(r)
        assert (found.status, found.body) == (200, GOOD_BODY)
        assert found.headers[b"x-triolet-replica"] == b"http://r0"
        assert b"x-triolet-model" not in found.headers
        assert b'{"model":"m","messages":[],"stream":true}' in r.scripted[0].requests[0]


async def test_the_model_that_answered(autojump_clock: Clock) -> None:
    """It is named, with those that could not; its replica is asked for it by its own name."""
    async with relay([FULL], fallback=[[None], [GOOD]], settings=FALLS_BACK) as r:
        found = await post(r)
        assert (found.status, found.body) == (200, GOOD_BODY)
        assert found.headers[b"x-triolet-model"] == b"m2"
        assert found.headers[b"x-triolet-fell-back-from"] == b"m, m1"
        assert found.headers[b"x-triolet-attempts"] == b"3"
        assert found.record.model == "m2"
        assert b'{"model":"m2","messages":[],"stream":true}' in r.scripts[2][0].requests[0]


async def test_no_pool_is_asked_twice(autojump_clock: Clock) -> None:
    """A chain that names the model itself, one twice, or one that is not there, has an end."""
    async with relay([FULL], fallback=[[FULL], [FULL]], settings=FALLS_BACK) as r:
        found = await post(r)
        assert (found.status, found.body) == (503, b'{"error":"full"}')
        assert [r.served(place) for place in range(3)] == [[1], [1], [1]]
        assert found.headers[b"x-triolet-fell-back-from"] == b"m, m1"


async def test_the_chain_is_that_of_the_model_asked_for(autojump_clock: Clock) -> None:
    """What another model would fall back to plays no part."""
    async with relay(GOOD, fallback=[[FULL]], settings=FALLS_BACK) as r:
        assert (await post(r, "m1")).headers[b"x-triolet-model"] == b"m"


@pytest.mark.parametrize("model", ["modèle", "模型"])
async def test_a_model_in_any_script(model: str, autojump_clock: Clock) -> None:
    """A header holds ASCII alone."""
    settings = PoolSettings(fallback=(model,), retries=0)
    async with relay([FULL], fallback=[[GOOD]], settings=settings) as r:
        r.pools[1].model = model
        found = await post(r)
        assert found.headers[b"x-triolet-model"].startswith((b"mod%C3%A8le", b"%E6%A8%A1"))


async def test_place_in_line(autojump_clock: Clock) -> None:
    """Tier and deadline come from the headers; a wrong one is the caller's error."""
    async with relay(GOOD, max_in_flight=1) as r:
        assert (await post(r, headers=((b"x-triolet-tier", b"gold"),))).status == 400
        with await r.pool.lease():
            refused = await post(r, headers=((b"x-triolet-deadline-ms", b"1500"),))
        assert refused.status == 503
        assert trio.current_time() == pytest.approx(1.5)
