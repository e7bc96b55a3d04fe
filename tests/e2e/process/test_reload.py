"""SIGHUP: other pools, and nobody who is being served notices."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.e2e.process.command import Server, pool_file, serving
from tests.e2e.sdk.replica import ScriptedReplica, event, streamed, whole
from tests.e2e.sdk.serving import until

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
CALL = {"model": "scripted"}
FIRST, DONE = event({"choices": []}), event("[DONE]")


async def _asked(server: Server) -> str:
    """Make a call; the replica that answered it."""
    async with server.client() as client:
        answer = await client.post(CHAT, json=CALL)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-triolet-replica"]


async def _reload(server: Server, said: str) -> None:
    before = server.logged().count("SIGHUP")
    server.send(signal.SIGHUP)
    await until(lambda: server.logged().count("SIGHUP") > before, within_s=5)
    assert said in server.logged().splitlines()[-1] or said in server.logged()


async def test_new_pools(tmp_path: Path, nursery: trio.Nursery) -> None:
    """The new replica is used; a stream on one that is not listed any more goes on to its end."""
    gate = trio.Event()
    old = ScriptedReplica({CHAT: streamed(FIRST, gate, DONE)})
    new = ScriptedReplica({CHAT: whole({"choices": []})})
    old_url, new_url = await nursery.start(old.serve), await nursery.start(new.serve)
    pool_file(tmp_path, old_url)
    async with (
        serving(tmp_path) as server,
        server.client() as client,
        client.stream("POST", CHAT, json={**CALL, "stream": True}) as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == FIRST
        pool_file(tmp_path, new_url)
        await _reload(server, "1 pools from the configuration")
        assert await _asked(server) == new_url
        models = (await client.get("/v1/models")).json()["data"]
        assert [model["replicas"] for model in models] == [1]
        gate.set()
        assert b"".join([piece async for piece in pieces]) == DONE
        # The connection to the replica that is gone is not kept for anybody.
        metrics = (await client.get("/metrics")).text
        assert old_url not in [
            line for line in metrics.splitlines() if line.startswith("triolet_replica_up")
        ]
    assert len(old.asked) == 1
    nursery.cancel_scope.cancel()


async def test_other_models(tmp_path: Path, nursery: trio.Nursery) -> None:
    """A model that is not configured any more is not found, a new one is."""
    replica = ScriptedReplica({CHAT: whole({"choices": []})})
    url = await nursery.start(replica.serve)
    pool_file(tmp_path, url)
    async with serving(tmp_path) as server, server.client() as client:
        assert await _asked(server) == url
        pool_file(tmp_path, url, model="other")
        await _reload(server, "1 pools")
        gone = await client.post(CHAT, json=CALL)
        found = await client.post(CHAT, json={"model": "other"})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert found.status_code == 200
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[pool]\n", "the pools stay as they are; the configuration is wrong"),
        ("[[pool]]\nmodel = 'm'\n", "pool[0].replicas"),
        ("drain_s = 5\n", "the configuration lists none"),
    ],
)
async def test_a_broken_file(tmp_path: Path, nursery: trio.Nursery, text: str, said: str) -> None:
    """The old pools stay, the log says why, and the next good file is taken."""
    replica = ScriptedReplica({CHAT: whole({"choices": []})})
    url = await nursery.start(replica.serve)
    file = pool_file(tmp_path, url)
    async with serving(tmp_path) as server:
        file.write_text(text)
        await _reload(server, said)
        assert "Traceback" not in server.logged()
        assert await _asked(server) == url
        pool_file(tmp_path, url, url.replace("127.0.0.1", "localhost"))
        await _reload(server, "1 pools")
        assert server.process.poll() is None
    nursery.cancel_scope.cancel()
