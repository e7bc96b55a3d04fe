"""The admin API: who may use it, what it says of whatever is wrong, and what its changes change."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import trio
import trio.testing

from balancer.admission import Standing
from balancer.decisions import Decision, Placement
from balancer.policies import POLICIES, UNKNOWN, Candidate, Explanation, PolicyName
from balancer.pool import Pool
from balancer.readings import Gauges, GpuReading
from balancer.replica import Replica
from server.api import admin
from server.config import AdminConfig, Config, PoolConfig, ReplicaConfig, TierConfig
from server.edge.exchange import Message
from server.main import Triolet

KEY = "s3cret"
REPLICAS = "/admin/api/replicas"
HERE = ("127.0.0.1", 5)
JSON = {"content-type": "application/json"}
BEARER = {"authorization": f"Bearer {KEY}"}


class Served:
    """A Triolet that is not running: its app, called as a server calls it, with the key."""

    def __init__(self, *pools: PoolConfig) -> None:
        self.triolet = Triolet(Config(pool=pools, admin=AdminConfig(key=KEY), access_log=False))
        builder, membership = self.triolet.supply._builder, self.triolet.supply.membership
        self.triolet.catalog.replace(builder.configured(membership))
        self.routes = {
            **self.triolet.app._exact,
            **dict(self.triolet.app._prefixes),
        }

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        client: tuple[str, int] | None = HERE,
    ) -> tuple[int, Any]:
        """Status and decoded body; a body that is no bytes is sent as JSON."""
        status, found, _ = await self.exchange(method, path, body, headers=headers, client=client)
        return status, found

    async def exchange(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        client: tuple[str, int] | None = HERE,
        leaves: bool = False,
    ) -> tuple[int, Any, dict[bytes, bytes]]:
        """The same with the headers of the answer; 0 if there was none."""
        sent: list[Message] = []
        given = {"host": "127.0.0.1:8746", **BEARER, **(headers or {})}
        if given["authorization"] == "-":
            del given["authorization"]
        if body is not None and "content-type" not in given:
            given |= JSON
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)

        async def receive() -> Message:
            if leaves:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": data if body is not None else b""}

        async def send(message: Message) -> None:
            sent.append(message)

        path, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": client,
            "query_string": query.encode(),
            "extensions": {},
        }
        await self.triolet.app(scope, receive, send)
        if not sent:
            return 0, None, {}
        return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])

    def replicas(self, model: str = "m") -> list[str]:
        return [replica.name for replica in self.triolet.catalog.pools[model].replicas]


def pool(*urls: str, model: str = "m", **options: Any) -> PoolConfig:
    replicas = tuple(ReplicaConfig(url=url) for url in urls)
    return PoolConfig(model=model, replicas=replicas, **{"policy": "round_robin", **options})


def one() -> Served:
    return Served(pool("http://a:1", "http://b:1"))


def one_with(policy: PolicyName) -> Served:
    return Served(pool("http://a:1", "http://b:1", policy=policy))


# --- who may


def admin_routes(served: Served) -> list[tuple[str, str]]:
    """Every method of every path of the API."""
    return [
        (method, path + ("some-id" if path.endswith("/") else ""))
        for path, route in served.routes.items()
        if path.startswith("/admin")
        for method in route.handlers
    ]


PLACES: dict[str, tuple[tuple[str, int] | None, dict[str, str]]] = {
    "a program here": (HERE, {}),
    "by the name": (HERE, {"host": "localhost:8746"}),
    "IPv6": (("::1", 5), {"host": "[::1]:8746"}),
    "another machine": (("192.0.2.1", 5), {}),
    "nobody knows who": (None, {}),
    "a proxy here": (HERE, {"x-forwarded-for": "192.0.2.1"}),
    "a page": (HERE, {"origin": "http://evil.example"}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "authorization",
    ["", "-", KEY, "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}"],
)
async def test_every_route_wants_the_key(authorization: str, place: str) -> None:
    """From everywhere: a proxy on this machine may add no header at all, and would be us."""
    served = one()
    client, headers = PLACES[place]
    routes = admin_routes(served)
    assert len(routes) >= 10
    for method, path in routes:
        status, answer, sent = await served.exchange(
            method,
            path,
            {"model": "m", "url": "http://a:1"},
            headers={**headers, "authorization": authorization},
            client=client,
        )
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key"), (method, path)
        assert sent[b"www-authenticate"] == b"Bearer"
        assert KEY not in json.dumps(answer)
    assert served.replicas() == ["http://a:1", "http://b:1"]


@pytest.mark.parametrize("place", PLACES)
async def test_the_key_is_enough(place: str) -> None:
    """From anywhere, through any proxy."""
    client, headers = PLACES[place]
    status, _ = await one().call("GET", REPLICAS, headers=headers, client=client)
    assert status == 200


async def test_without_a_key_nobody_may() -> None:
    """Where none is configured and none could be written; also who sends an empty one."""
    served = one()
    served.triolet.admin.key = None
    for method, path in admin_routes(served):
        for authorization in ("-", "Bearer ", "Bearer None", f"Bearer {KEY}"):
            status, answer = await served.call(
                method, path, {"model": "m"}, headers={"authorization": authorization}
            )
            assert (status, answer["error"]["code"]) == (403, "forbidden"), (method, path)
            assert "set admin.key" in answer["error"]["message"]


async def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a wrong one takes says nothing of the right one."""
    compared: list[tuple[bytes, bytes]] = []
    truly = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return truly(one, other)

    monkeypatch.setattr(admin.hmac, "compare_digest", compare)  # type: ignore[attr-defined]
    status, _ = await one().call("GET", REPLICAS, headers={"authorization": "Bearer wrong"})
    assert status == 401
    assert compared == [(b"Bearer wrong", b"Bearer " + KEY.encode())]


# --- what is wrong is said

BAD_REQUESTS: list[tuple[str, str, object, int, str, str]] = [
    ("POST", REPLICAS, b"", 400, "invalid_type", "invalid body: Input data was truncated"),
    ("POST", REPLICAS, b"{", 400, "invalid_type", "invalid body: Input data was truncated"),
    ("POST", REPLICAS, b"\xff", 400, "invalid_type", "invalid body: "),
    ("POST", REPLICAS, b"[" * 9_999, 400, "invalid_type", "invalid body: "),
    ("POST", REPLICAS, [], 400, "invalid_type", "invalid body: Expected `object`, got `array`"),
    ("POST", REPLICAS, b" " * 65_537, 413, "request_too_large", "over the limit of 65536 bytes"),
    ("POST", REPLICAS, {"url": "http://c:1"}, 400, "invalid_type", "required field `model`"),
    ("POST", REPLICAS, {"model": "m"}, 400, "invalid_type", "required field `url`"),
    ("POST", REPLICAS, {"model": 1, "url": "http://c:1"}, 400, "invalid_type", "$.model"),
    ("POST", REPLICAS, {"model": "m", "url": 1}, 400, "invalid_type", "$.url"),
    (
        *("POST", REPLICAS, {"model": "m", "url": "c:1"}),
        *(400, "invalid_type", 'url found "c:1", expected the URL of a replica'),
    ),
    (
        *("POST", REPLICAS, {"model": "m", "url": "http://c:1", "max_in_flght": 1}),
        *(400, "invalid_type", "max_in_flght is not a key; did you mean max_in_flight"),
    ),
    (
        *("POST", REPLICAS, {"model": "m", "url": "http://c:1", "max_in_flight": 0}),
        *(400, "invalid_type", "max_in_flight found 0, expected"),
    ),
    (
        *("POST", REPLICAS, {"model": "m", "url": "http://c:1", "api_key": "env:HOME"}),
        *(400, "invalid_type", "expected the key itself: env: is not allowed in a request"),
    ),
    (
        *("POST", REPLICAS, {"model": "m", "url": "http://c:1", "api_key": "***"}),
        *(400, "invalid_type", 'expected the secret itself: "***" only stands for one'),
    ),
    (
        "POST",
        REPLICAS,
        {"model": "m", "url": "http://c:1", "api_key": "a", "headers": {"Authorization": "b"}},
        *(400, "invalid_type", "headers.authorization cannot stand beside api_key"),
    ),
    (
        "POST",
        REPLICAS,
        {"model": "m", "url": "http://c:1", "resolve": True, "metrics": "http://d:1/metrics"},
        *(400, "invalid_type", 'metrics found "http://d:1/metrics", expected the host of url'),
    ),
    (
        *("POST", REPLICAS, {"model": "none", "url": "http://c:1"}),
        *(404, "model_not_found", "no [[pool]] of model 'none' is configured; those are: m"),
    ),
    ("DELETE", REPLICAS, b"", 400, "invalid_type", "invalid body: Input data was truncated"),
    ("DELETE", REPLICAS + "?model=m", None, 400, "invalid_type", "required field `url`"),
    (
        *("DELETE", REPLICAS, {"model": "m", "url": "http://c:1"}),
        *(404, "not_found", "http://c:1 is no replica of model 'm'"),
    ),
    (
        *("DELETE", REPLICAS + "?model=none&url=http://a:1", None),
        *(404, "model_not_found", "no [[pool]] of model 'none'"),
    ),
    ("POST", REPLICAS + "/drain", {}, 400, "invalid_type", "required field `url`"),
    (
        *("POST", REPLICAS + "/drain", {"url": "http://a:1", "drain": True}),
        *(400, "invalid_type", "unknown field `drain`"),
    ),
    (
        *("POST", REPLICAS + "/drain", {"url": "http://c:1"}),
        *(404, "not_found", "http://c:1 is no replica here"),
    ),
    ("POST", REPLICAS + "/drain", {"url": "?"}, 404, "not_found", "? is no replica here"),
    (
        *("GET", "/admin/api/decisions/req_none", None),
        *(404, "not_found", "no decision is kept for request 'req_none'; the latest 0 are"),
    ),
    *(
        (
            *("GET", f"/admin/api/decisions?limit={limit}", None),
            *(400, "invalid_type", "expected a number from 1 to 1000"),
        )
        for limit in ("0", "1001", "-1", "x", "1.5", "9" * 5_000, "%C2%B2")
    ),
    ("PUT", REPLICAS, {}, 405, "method_not_allowed", "allowed: DELETE, GET, HEAD, POST"),
    ("GET", "/admin/api", None, 404, "not_found", "there is nothing at /admin/api"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code", "says"), BAD_REQUESTS)
async def test_what_is_wrong_is_said(
    method: str, path: str, body: object, status: int, code: str, says: str
) -> None:
    """Each error has its status, its code and the words that help; nothing is changed."""
    served = one()
    found, answer = await served.call(method, path, body)
    assert (found, answer["error"]["code"]) == (status, code), answer
    assert says in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 500
    assert served.replicas() == ["http://a:1", "http://b:1"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
async def test_only_as_json(kind: str) -> None:
    """What a form of another site can send is refused before it is read."""
    served = one()
    for method, path in (("POST", REPLICAS), ("DELETE", REPLICAS), ("POST", REPLICAS + "/drain")):
        body = {"model": "m", "url": "http://a:1"}
        status, answer = await served.call(method, path, body, headers={"content-type": kind})
        assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")
    assert served.replicas() == ["http://a:1", "http://b:1"]


async def test_a_secret_is_not_sent_back() -> None:
    """Nor is the environment to be read by who may add replicas."""
    fields = {"model": "m", "url": "http://c:1", "api_key": "sk x", "headers": {"x-key": "a\x01"}}
    status, answer = await one().call("POST", REPLICAS, fields)
    assert status == 400
    assert "sk x" not in json.dumps(answer)
    assert "\\u0001" not in json.dumps(answer)


async def test_who_leaves_in_the_middle_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is no fault of ours, and not logged as one."""
    served = one()
    with caplog.at_level(logging.WARNING):
        status, _, _ = await served.exchange("POST", REPLICAS, {"model": "m"}, leaves=True)
    assert status == 0
    assert caplog.messages == []


async def test_so_much_is_wrong_that_not_all_is_said() -> None:
    """Each unknown key is compared with those there are: of thousands that would take a second."""
    fields = {f"max_in_flght{n}": 1 for n in range(2_000)}
    status, answer = await one().call(
        "POST", REPLICAS, {"model": "m", "url": "http://c:1"} | fields
    )
    message = answer["error"]["message"]
    assert status == 400
    assert message.count("is not a key") == 20
    assert message.endswith("; and maybe more")


async def test_replicas_in_many_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked for once for the list, not once for each replica: 500 pools took seconds."""
    served = Served(*(pool("http://a:1", "http://b:1", model=f"m{n}") for n in range(50)))
    asked: list[str] = []
    truly: Any = vars(Pool)["replicas"]

    def replicas(self: Pool) -> tuple[Replica, ...]:
        asked.append(self.model)
        found: tuple[Replica, ...] = truly.fget(self)
        return found

    monkeypatch.setattr(Pool, "replicas", property(replicas))
    status, answer = await served.call("GET", REPLICAS)
    assert status == 200
    assert [len(shown["models"]) for shown in answer["replicas"]] == [50, 50]
    assert len(asked) < 10 * 50


# --- what changes


async def test_add() -> None:
    """With every key that a replica can have; once; its URL in its own form."""
    served = one()
    fields = {
        "model": "m",
        "url": "http://C:1/v1/",
        "max_in_flight": 3,
        "api_key": "sk",
        "headers": {"X-Team": "a"},
        "gpus": [0, "GPU-1"],
    }
    status, answer = await served.call("POST", REPLICAS, fields)
    assert (status, answer) == (201, {"model": "m", "url": "http://c:1", "added": True})
    assert served.replicas() == ["http://a:1", "http://b:1", "http://c:1"]
    added = served.triolet.catalog.replicas[-1]
    assert added.max_in_flight == 3
    assert added.headers == {b"authorization": b"Bearer sk", b"x-team": b"a"}
    status, answer = await served.call("POST", REPLICAS, fields)
    assert (status, answer["added"]) == (200, False)


@pytest.mark.parametrize("by_query", [True, False])
async def test_remove(by_query: bool) -> None:
    """By the body or the query; down to the last one, and back."""
    served = one()
    for url in ("http://a:1", "http://b:1"):
        fields = {"model": "m", "url": url + "/v1"}
        path = REPLICAS
        if by_query:
            path += f"?model=m&url={quote(url)}/v1"
        status, answer = await served.call("DELETE", path, None if by_query else fields)
        assert (status, answer) == (200, {"model": "m", "url": url, "removed": True})
    assert served.replicas() == []
    status, _ = await served.call("POST", REPLICAS, {"model": "m", "url": "http://b:1"})
    assert (status, served.replicas()) == (201, ["http://b:1"])


async def test_what_is_in_flight_is_not_disturbed() -> None:
    """A request at a replica that is removed goes on, and so do those elsewhere."""
    served = one()
    pool_ = served.triolet.catalog.pools["m"]
    leases = [await pool_.lease() for _ in range(4)]
    reclaimed: list[str] = []
    for lease in leases:
        lease.on_reclaim = reclaimed.append
    held = {lease.replica.name for lease in leases}
    assert held == {"http://a:1", "http://b:1"}
    await served.call("DELETE", REPLICAS, {"model": "m", "url": "http://a:1"})
    await served.call("POST", REPLICAS, {"model": "m", "url": "http://c:1"})
    assert served.triolet.catalog.pools["m"] is pool_
    for lease in leases:
        lease.answered()
        lease.release()
    assert reclaimed == []
    assert [replica.in_flight for replica in pool_.replicas] == [0, 0]
    for _ in range(10):
        with await pool_.lease() as lease:
            assert lease.replica.name != "http://a:1"


async def test_who_waits_is_served_by_what_is_added() -> None:
    """A replica that comes serves those in line at once."""
    served = Served(
        PoolConfig(
            model="m",
            replicas=(ReplicaConfig(url="http://a:1", max_in_flight=1),),
            policy="least_request",
        )
    )
    pool_ = served.triolet.catalog.pools["m"]
    got: list[str] = []

    async def wait() -> None:
        with await pool_.lease() as lease:
            got.append(lease.replica.name)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            held = await pool_.lease()
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            await served.call("POST", REPLICAS, {"model": "m", "url": "http://c:1"})
    assert got == ["http://c:1"]
    held.release()


@pytest.mark.parametrize("policy", POLICIES)
async def test_any_policy_bears_any_change(policy: PolicyName) -> None:
    """Members come and go between its picks; what is gone is never picked."""
    served = one_with(policy)
    pool_ = served.triolet.catalog.pools["m"]
    members = {"http://a:1", "http://b:1"}
    held = []
    for change in ("+c", "-a", "+d", "-b", "-c", "+a", "-d", "+b", "+c"):
        url = f"http://{change[1]}:1"
        method = "POST" if change[0] == "+" else "DELETE"
        status, _ = await served.call(method, REPLICAS, {"model": "m", "url": url})
        assert status < 300
        members ^= {url}
        for _ in range(3):
            lease = await pool_.lease()
            assert lease.replica.name in members
            held.append(lease)
    for lease in held:
        lease.release()


async def test_drain_and_back() -> None:
    """No new work, whatever the spelling of its URL; it says what is still in flight."""
    served = one()
    pool_ = served.triolet.catalog.pools["m"]
    leases = [await pool_.lease() for _ in range(2)]
    path = REPLICAS + "/drain"
    status, answer = await served.call("POST", path, {"url": "HTTP://A:1/v1/"})
    expected = {"url": "http://a:1", "draining": True, "in_flight": 1, "runs": 0}
    assert (status, answer) == (200, expected)
    for lease in leases:
        lease.release()
    for _ in range(5):
        with await pool_.lease() as lease:
            assert lease.replica.name == "http://b:1"
    _, shown = await served.call("GET", REPLICAS)
    assert [one["state"] for one in shown["replicas"]] == ["draining", "up"]
    assert [one["runs"] for one in shown["replicas"]] == [0, 0]
    status, answer = await served.call("POST", path, {"url": "http://a:1", "draining": False})
    assert (status, answer["draining"]) == (200, False)
    used = set()
    for _ in range(10):
        with await pool_.lease() as lease:
            used.add(lease.replica.name)
    assert "http://a:1" in used


async def test_another_pool_keeps_its_replica() -> None:
    """Removed from one model, it still serves the other, with the same counts."""
    served = Served(pool("http://a:1"), pool("http://a:1", model="n"))
    [replica] = served.triolet.catalog.replicas
    await served.call("DELETE", REPLICAS, {"model": "m", "url": "http://a:1"})
    assert (served.replicas(), served.replicas("n")) == ([], ["http://a:1"])
    assert served.triolet.catalog.replicas == [replica]


# --- what is shown


async def test_pools_are_shown() -> None:
    """Policy, replicas, tiers with all their counts, fallbacks."""
    served = Served(
        pool("http://a:1", policy="least_request", fallback=("n",)),
        pool("http://b:1", model="n", tiers=(TierConfig(name="gold"), TierConfig(name="tin"))),
    )
    with await served.triolet.catalog.pools["m"].lease():
        status, answer = await served.call("GET", "/admin/api/pools")
    first, second = answer["pools"]
    assert status == 200
    assert (first["model"], first["policy"]) == ("m", "least_request")
    assert (first["up"], first["in_flight"], first["waiting"], first["panic"]) == (1, 1, 0, False)
    assert (first["replicas"], first["fallback"]) == (["http://a:1"], ["n"])
    assert second["policy"] == "round_robin"
    assert [tier["tier"] for tier in second["tiers"]] == ["gold", "tin"]
    assert first["tiers"][0]["in_flight"] == 1


async def test_replicas_are_shown() -> None:
    """State, load, what the engine and the GPU said and how long ago; what is unknown is null."""
    served = one()
    known, unknown = served.triolet.catalog.replicas
    now = trio.current_time()
    known.gauges = Gauges(at=now - 2, running=3, waiting=1, kv_share=0.12345, kv_tokens=1000)
    known.gpu = GpuReading(at=now - 1, utilisation=0.5, throttled=("hw_thermal",), power_w=300.04)
    known.max_in_flight = 4
    _, answer = await served.call("GET", REPLICAS)
    first, second = answer["replicas"]
    assert (first["url"], first["models"], first["state"]) == ("http://a:1", ["m"], "up")
    assert first["engine"]["kv_share"] == 0.123
    assert first["engine"]["age_s"] == pytest.approx(2, abs=0.2)
    assert first["gpu"]["throttled"] == ["hw_thermal"]
    assert first["gpu"]["power_w"] == 300.0
    assert (first["room"], second["room"]) == (4, None)
    assert (second["engine"], second["gpu"], second["kv_share"]) == (None, None, None)
    assert second["tokens"] == {"prompt": 0, "cached": 0, "output": 0}
    assert unknown.name == second["url"]


def decision(request_id: str, policy: str = "expected_cost") -> Decision:
    explanation = Explanation(
        "s",
        ("queue", "own"),
        (Candidate("http://a:1", 2, 640, (0.25, 0.5)), Candidate("http://b:1", 0, 0, (0, 1.0))),
        2,
        0.75,
    )
    first = Placement("http://b:1", 0.0, 0, 1000, None)
    last = Placement("http://a:1", 0.125, 640, 1000, explanation)
    return Decision(request_id, "m", policy, "interactive", (first, last), 1.0, 1100, 600)


async def test_a_decision_is_shown() -> None:
    """Candidates with each term in ms, the choice, predicted against observed."""
    served = one()
    served.triolet.decisions.keep(decision("req_1"))
    status, answer = await served.call("GET", "/admin/api/decisions/req_1")
    assert status == 200
    assert (answer["replica"], answer["attempts"], answer["tier"]) == (
        "http://a:1",
        2,
        "interactive",
    )
    assert answer["predicted_ttft_ms"] == 750
    assert (answer["observed_ttft_ms"], answer["regret_ms"]) == (1000, 250)
    assert (answer["prompt_tokens"], answer["cached_tokens"]) == (1100, 600)
    first, last = answer["placements"]
    assert (first["explanation"], last["at_ms"]) == (None, 125)
    assert last["explanation"] == {
        "unit": "ms",
        "considered": 2,
        "candidates": [
            {
                "replica": "http://a:1",
                "in_flight": 2,
                "matched_tokens": 640,
                "cost": 750.0,
                "terms": {"queue": 250.0, "own": 500.0},
            },
            {
                "replica": "http://b:1",
                "in_flight": 0,
                "matched_tokens": 0,
                "cost": 1000.0,
                "terms": {"queue": 0.0, "own": 1000.0},
            },
        ],
    }


@pytest.mark.parametrize("request_id", ["a/b", "a%41", "a:b", "é".encode().decode("latin-1")])
async def test_any_id(request_id: str) -> None:
    """As clients may choose their ids: the path is decoded once, by the server."""
    served = one()
    served.triolet.decisions.keep(decision(request_id))
    path = "/admin/api/decisions/" + request_id
    status, answer = await served.call("GET", path)
    assert (status, answer["request_id"]) == (200, request_id)


async def test_the_latest_decisions() -> None:
    """The latest first, 20 unless said otherwise."""
    served = one()
    for number in range(30):
        served.triolet.decisions.keep(decision(f"req_{number}"))
    _, answer = await served.call("GET", "/admin/api/decisions")
    assert [one["request_id"] for one in answer["decisions"]] == [
        f"req_{number}" for number in range(29, 9, -1)
    ]
    _, answer = await served.call("GET", "/admin/api/decisions?limit=1000")
    assert len(answer["decisions"]) == 30


async def test_a_decision_without_a_prediction() -> None:
    """Nor a placement: everything that is unknown is null."""
    served = one()
    empty = Decision("req_2", "m", "random", "batch", (), None, None, None)
    served.triolet.decisions.keep(empty)
    _, answer = await served.call("GET", "/admin/api/decisions/req_2")
    assert {answer[key] for key in answer if key.endswith("_ms") or key == "replica"} == {None}
    assert answer["placements"] == []


async def test_head_answers_as_get() -> None:
    """A server strips the body; the app needs no case for it."""
    status, _ = await one().call("HEAD", REPLICAS)
    assert status == 200


async def test_placements_of_leases() -> None:
    """What a lease tells of itself."""
    served = one()
    with await served.triolet.catalog.pools["m"].lease(
        (), UNKNOWN, Standing("interactive", trio.current_time())
    ) as lease:
        placement = Placement.of(lease, lease.leased_at - 0.5)
    assert placement.replica == lease.replica.name
    assert placement.at_s == pytest.approx(0.5)
    assert (placement.matched_tokens, placement.prompt_tokens) == (0, UNKNOWN.prompt_tokens)
