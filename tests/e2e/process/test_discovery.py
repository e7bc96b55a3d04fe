"""With no pool configured: engines on this machine are found and served; nobody else is called."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from balancer.probes import discovery
from balancer.probes.discovery import Found, discover
from balancer.wire.connect import TcpDialer
from balancer.wire.poller import open_poller
from server.config import Config
from server.main import Triolet
from tests.e2e.sdk.replica import Handler, ScriptedReplica, hanging, whole

CHAT = "/v1/chat/completions"


class Engine(ScriptedReplica):
    """A replica whose answer to `GET /v1/models` is part of the script."""

    def __init__(self, models: Handler) -> None:
        super().__init__({"/v1/models": models, CHAT: whole({"choices": []})})

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def _listing(*names: str, owned_by: str | None = None) -> Handler:
    entry = {"owned_by": owned_by} if owned_by else {}
    return whole({"object": "list", "data": [{"id": name, **entry} for name in names]})


async def _start(nursery: trio.Nursery, *engines: Engine) -> None:
    for engine in engines:
        await nursery.start(engine.serve)


async def _discover(nursery: trio.Nursery, ports: dict[str, int]) -> list[Found]:
    poller = open_poller()
    await nursery.start(poller.run)
    return await discover(TcpDialer(poller), limit_s=1.0, ports=ports)


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_engines_are_found(nursery: trio.Nursery, nobody: int) -> None:
    """In the order of the ports, with what they list; a port without anybody is passed over."""
    first = Engine(_listing("qwen3-8b", "embedder", owned_by="vllm"))
    second = Engine(_listing("llama"))
    await _start(nursery, first, second)
    ports = {"vLLM": first.port, "SGLang": nobody, "Ollama": second.port}
    found = await _discover(nursery, ports)
    assert [(one.engine, one.url) for one in found] == [
        ("vLLM", first.url),
        ("Ollama", second.url),
    ]
    assert [model.id for model in found[0].models] == ["qwen3-8b", "embedder"]
    assert found[0].models[0].owned_by == "vllm"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "models",
    [
        whole(b"<html>somebody's dashboard</html>", content_type="text/html"),
        whole({"data": []}),
        whole({"data": "none"}),
        whole({"error": "loading"}, status=503),
        whole({"data": [{"id": "m"}]}, status=401),
    ],
    ids=["page", "empty", "odd", "loading", "locked"],
)
async def test_whoever_is_no_engine_is_left_alone(nursery: trio.Nursery, models: Handler) -> None:
    """Something else on an engine's port is not taken for one."""
    other = Engine(models)
    await _start(nursery, other)
    assert await _discover(nursery, {"TGI": other.port}) == []
    nursery.cancel_scope.cancel()


async def test_somebody_who_does_not_answer(nursery: trio.Nursery) -> None:
    """Looking takes no longer than its limit, and does not keep the others from being found."""
    silent, engine = Engine(hanging()), Engine(_listing("m"))
    await _start(nursery, silent, engine)
    poller = open_poller()
    await nursery.start(poller.run)
    began = trio.current_time()
    ports = {"LM Studio": silent.port, "vLLM": engine.port}
    found = await discover(TcpDialer(poller), limit_s=0.2, ports=ports)
    assert [one.engine for one in found] == ["vLLM"]
    assert trio.current_time() - began < 1.0
    nursery.cancel_scope.cancel()


@asynccontextmanager
async def _triolet() -> AsyncIterator[tuple[Triolet, httpx.AsyncClient, str]]:
    """A Triolet without any pool in its configuration, and what it announced."""
    out = io.StringIO()
    triolet = Triolet(Config(listen=("http://127.0.0.1:0",)), log_stream=io.BytesIO())
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            [url] = await nursery.start(partial(triolet.run, out=out))
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                yield triolet, client, out.getvalue()
            nursery.cancel_scope.cancel("the test is over")


def _usual_ports(monkeypatch: pytest.MonkeyPatch, ports: dict[str, int]) -> None:
    for engine in list(discovery.USUAL_PORTS):
        monkeypatch.delitem(discovery.USUAL_PORTS, engine)
    for engine, port in ports.items():
        monkeypatch.setitem(discovery.USUAL_PORTS, engine, port)


async def test_found_engines_are_served(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """Every model they list has a pool; a model that two of them list has both."""
    first, second = Engine(_listing("both", "one", owned_by="acme")), Engine(_listing("both"))
    await _start(nursery, first, second)
    _usual_ports(monkeypatch, {"vLLM": first.port, "Ollama": second.port})
    async with _triolet() as (_, client, announced):
        assert "found on this machine" in announced
        listed = {m["id"]: m for m in (await client.get("/v1/models")).json()["data"]}
        replicas = set()
        for _ in range(60):  # by chance between equals: all at one is as likely as 2 to the -59
            answer = await client.post(CHAT, json={"model": "both"})
            replicas.add(answer.headers["x-triolet-replica"])
    assert {name: model["replicas"] for name, model in listed.items()} == {"both": 2, "one": 1}
    assert listed["one"]["owned_by"] == "acme"
    assert replicas == {first.url, second.url}
    nursery.cancel_scope.cancel()


async def test_an_engine_that_names_no_owner(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """Its models are owned by the engine itself."""
    engine = Engine(_listing("m"))
    await _start(nursery, engine)
    _usual_ports(monkeypatch, {"llama.cpp": engine.port})
    async with _triolet() as (_, client, _announced):
        [model] = (await client.get("/v1/models")).json()["data"]
    assert model["owned_by"] == "llama.cpp"
    nursery.cancel_scope.cancel()


def _record_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that a socket of this process is connected or sent to, and names resolved."""
    addresses: list[Any] = []

    def recording(name: str, place: int) -> None:
        original = getattr(socket.socket, name)

        def call(sock: socket.socket, *arguments: Any) -> Any:
            addresses.append(arguments[place])
            return original(sock, *arguments)

        monkeypatch.setattr(socket.socket, name, call)

    for name, place in (("connect", 0), ("connect_ex", 0), ("sendto", -1)):
        recording(name, place)
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        addresses.append((host, 0))
        return resolve(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses


async def test_it_calls_nobody_else(monkeypatch: pytest.MonkeyPatch, nobody: int) -> None:
    """From the start of the demo to an answer: loopback addresses and no other."""
    _usual_ports(monkeypatch, {"vLLM": nobody})
    addresses = _record_calls(monkeypatch)
    began = time.monotonic()
    async with _triolet() as (triolet, client, announced):
        assert time.monotonic() - began < 3.0
        assert "demo" in announced
        call = {"model": "demo", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
        assert (await client.post(CHAT, json=call)).status_code == 200
        names = {replica.name for replica in triolet.catalog.replicas}
    hosts = {str(address[0]) for address in addresses}
    assert hosts <= {"127.0.0.1", "localhost"}
    called = {f"http://{address[0]}:{address[1]}" for address in addresses}
    assert names <= called
    assert f"http://127.0.0.1:{nobody}" in called
