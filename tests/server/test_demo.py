"""`triolet replica` on real sockets, through a crash of its engine, and its options."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from click.testing import CliRunner

from balancer.wire.poller import open_poller
from bench.replica import Replica, ReplicaSettings, create_app, load_profile
from server.cli import main
from server.demo import _ready_line, serve_through_crashes
from server.edge.accept import bind

PROFILE = load_profile("h100-llama-8b", time_scale=0.1)


@asynccontextmanager
async def replica() -> AsyncIterator[str]:
    poller = open_poller()
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = create_app(ReplicaSettings(profile=PROFILE))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            await nursery.start(serve_through_crashes, app, poller, listener)
            yield url
            nursery.cancel_scope.cancel("the test is over")


def chat(tokens: int, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Hello there. " * 20}],
        "max_tokens": tokens,
        **fields,
    }


async def read(lines: AsyncIterator[str]) -> None:
    async for line in lines:
        assert line != "data: [DONE]"


async def test_crash_cuts_connections_and_refuses_new_ones() -> None:
    """A stream ends in the middle, then nobody listens, then all is as new on the same port."""
    async with replica() as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/v1/chat/completions", json=chat(5))
        assert answer.json()["usage"]["completion_tokens"] == 5
        async with client.stream(
            "POST", "/v1/chat/completions", json=chat(100_000, stream=True)
        ) as stream:
            lines = stream.aiter_lines()
            assert "assistant" in await anext(lines)
            crashed = await client.post("/simulation/faults", json={"crash_s": 0.2})
            assert crashed.status_code == 200
            with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
                await read(lines)
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")
        await trio.sleep(0.3)
        assert (await client.get("/health")).status_code == 200
        again = await client.post("/v1/chat/completions", json=chat(5))
        assert again.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_many_streams_at_once() -> None:
    """Each of many streams has all of its tokens."""
    async with replica() as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
        found: list[int] = []

        async def one() -> None:
            asked = chat(50, stream=True, stream_options={"include_usage": True})
            body = (await client.post("/v1/chat/completions", json=asked)).text
            usage = json.loads(body.split("data: ")[-2])["usage"]
            found.append(usage["completion_tokens"])

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(one)
        assert found == [50] * 40


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--slow", "2"], 2, "--slow needs --profile"),
        (["--kv-tokens", "2000"], 2, "--kv-tokens needs --profile"),
        (["--profile", "h100-llama-8b", "--ttft-s", "1"], 2, "--ttft-s has no effect"),
        (["--profile", "h100-llama-9b"], 1, "h100-llama-8b"),
        (["--profile", "h100-llama-8b", "--slow", "0"], 1, "fault slow"),
        (["--profile", "h100-llama-8b", "--max-num-seqs", "0"], 1, "max_num_seqs"),
        (["--profile", "h100-llama-8b", "--time-scale", "-1"], 1, "time scale"),
        (["--tokens-per-s", "0"], 1, "tokens_per_s"),
    ],
)
def test_options_that_cannot_be(options: list[str], code: int, words: str) -> None:
    """The command ends before it listens, and says which option is wrong."""
    result = CliRunner().invoke(main, ["replica", "--port", "0", *options])
    assert result.exit_code == code
    assert words in result.output


def test_a_port_that_is_taken_after_a_crash_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with the reason in one line."""
    listeners = iter([bind("127.0.0.1", 0)])

    def bind_once(host: str, port: int) -> socket.socket:
        for listener in listeners:
            return listener
        raise OSError(f"cannot listen on {host} port {port}: Address already in use")

    async def crash_at_once(replica: Replica) -> float:
        return 0.0

    monkeypatch.setattr("server.demo.bind", bind_once)
    monkeypatch.setattr(Replica, "until_crash", crash_at_once)
    result = CliRunner().invoke(main, ["replica", "--profile", "h100-llama-8b", "--port", "0"])
    assert result.exit_code == 1
    assert "triolet: cannot listen on 127.0.0.1" in result.output


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    """The address that is printed can be used as it is."""
    assert _ready_line(ReplicaSettings(), ("::1", 8000)).endswith("http://[::1]:8000")
