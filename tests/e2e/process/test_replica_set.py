"""A real `triolet serve` whose replica set changes: by its file, the admin API, and SIGHUP."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.process.command import Server, completed, serving
from tests.e2e.sdk.replica import ScriptedReplica, event, streamed, whole
from tests.e2e.sdk.serving import until

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
REPLICAS = "/admin/api/replicas"
CALL = {"model": "m"}
KEY = "s3cret"
FIRST, DONE = event({"choices": []}), event("[DONE]")


def listing(directory: Path, *urls: str) -> None:
    """Write the file that lists replicas, in one step as programs should."""
    new = directory / "new.json"
    new.write_text(json.dumps({"replicas": urls}))
    os.replace(new, directory / "replicas.json")


def configured(directory: Path, *urls: str, file: bool = False, key: str | None = KEY) -> None:
    """Write a triolet.toml with one pool."""
    lines = ["[[pool]]", 'model = "m"', f"replicas = {json.dumps(urls)}"]
    lines += ['replicas_file = "replicas.json"'] if file else []
    admin = ["[admin]", f'key = "{key}"'] if key else []
    (directory / "triolet.toml").write_text("\n".join([*admin, *lines]) + "\n")


def client_of(server: Server) -> httpx.AsyncClient:
    """A client with the key."""
    client = server.client()
    client.headers["authorization"] = f"Bearer {KEY}"
    return client


async def listed(server: Server) -> list[str]:
    async with client_of(server) as client:
        answer = await client.get(REPLICAS)
    return [replica["url"] for replica in answer.json()["replicas"]]


async def reload(server: Server) -> None:
    before = server.logged().count("SIGHUP")
    server.send(signal.SIGHUP)
    await until(lambda: server.logged().count("SIGHUP") > before, within_s=5)


async def test_a_watched_file(tmp_path: Path, nursery: trio.Nursery) -> None:
    """What it lists now is used within seconds; a stream on what it lists no longer goes on."""
    gate = trio.Event()
    old = ScriptedReplica({CHAT: streamed(FIRST, gate, DONE)})
    new = ScriptedReplica({CHAT: whole({"choices": []})})
    old_url, new_url = await nursery.start(old.serve), await nursery.start(new.serve)
    listing(tmp_path, old_url)
    configured(tmp_path, file=True)
    async with (
        serving(tmp_path) as server,
        client_of(server) as client,
        client.stream("POST", CHAT, json={**CALL, "stream": True}) as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == FIRST
        listing(tmp_path, new_url)
        await until(lambda: server.logged().count("lists 1 replicas") == 2, within_s=5)
        other = await client.post(CHAT, json=CALL)
        assert other.headers["x-triolet-replica"] == new_url
        (tmp_path / "replicas.json").write_text("{")
        await until(lambda: "stay as they are" in server.logged(), within_s=5)
        assert await listed(server) == [new_url]
        gate.set()
        assert b"".join([piece async for piece in pieces]) == DONE
    nursery.cancel_scope.cancel()


async def test_changes_by_hand_outlive_a_reload(tmp_path: Path, nursery: trio.Nursery) -> None:
    """What was added stays and what was removed stays away, whatever the configuration lists."""
    replicas = [ScriptedReplica({CHAT: whole({"choices": []})}) for _ in range(3)]
    one, two, three = [await nursery.start(replica.serve) for replica in replicas]
    configured(tmp_path, one, two)
    async with serving(tmp_path) as server, client_of(server) as client:
        added = await client.post(REPLICAS, json={"model": "m", "url": three})
        removed = await client.delete(REPLICAS, params={"model": "m", "url": one})
        assert (added.status_code, removed.status_code) == (201, 200)
        assert await listed(server) == [two, three]
        await reload(server)
        assert await listed(server) == [two, three]
        back = await client.post(REPLICAS, json={"model": "m", "url": one})
        assert back.status_code == 201
        assert await listed(server) == [one, two, three]
        used = {
            (await client.post(CHAT, json=CALL)).headers["x-triolet-replica"] for _ in range(12)
        }
        assert used == {one, two, three}
    nursery.cancel_scope.cancel()


async def test_a_name_that_resolves(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Added by hand, it is looked up at once; its addresses are members, and go with it."""
    replica = ScriptedReplica({CHAT: whole({"choices": []})})
    url = await nursery.start(replica.serve)
    name = url.replace("127.0.0.1", "localhost")
    configured(tmp_path, "http://127.0.0.1:9")
    async with serving(tmp_path) as server, client_of(server) as client:
        fields = {"model": "m", "url": name, "resolve": True}
        assert (await client.post(REPLICAS, json=fields)).status_code == 201
        with trio.fail_after(5):
            while url not in await listed(server):  # noqa: ASYNC110 - another process sets no event
                await trio.sleep(0.02)
        await client.delete(REPLICAS, params={"model": "m", "url": name})
        assert await listed(server) == ["http://127.0.0.1:9"]
    nursery.cancel_scope.cancel()


async def test_the_table(tmp_path: Path, nursery: trio.Nursery) -> None:
    """`triolet replicas` shows what runs; with a key only to who has it."""
    replica = ScriptedReplica({CHAT: whole({"choices": []})})
    url = await nursery.start(replica.serve)
    configured(tmp_path, url, key=KEY)
    async with serving(tmp_path) as server, client_of(server) as client:
        assert (await client.post(CHAT, json=CALL)).status_code == 200
        command = ("replicas", "--once", "--url", server.url)
        refused = await completed(tmp_path, *command)
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"wants its admin.key" in refused.stderr
        shown = await completed(tmp_path, *command, environ={"TRIOLET_ADMIN__KEY": KEY})
        assert (shown.returncode, shown.stderr) == (0, b"")
        heads, row, _, pool = shown.stdout.decode().splitlines()
        assert row.split()[:4] == ["m", url, "up", "0"]
        assert len(row.split()) == len(heads.replace("IN FLIGHT", "INFLIGHT").split())
        assert pool.startswith("m (expected_cost): 1 of 1 up, 0 in flight, waiting: interactive 0")
        raw = await completed(tmp_path, *command, "--json", "--key", KEY)
        assert json.loads(raw.stdout)["replicas"][0]["requests"] == 1
    nursery.cancel_scope.cancel()


async def test_the_table_of_ones_own_triolet(tmp_path: Path, nursery: trio.Nursery) -> None:
    """It needs no key: the one that Triolet made is found. Others of the machine get nothing."""
    url = await nursery.start(ScriptedReplica({}).serve)
    configured(tmp_path, url, key=None)
    async with serving(tmp_path) as server, server.client() as client:
        assert (await client.get(REPLICAS)).status_code == 401
        command = ("replicas", "--once", "--url", server.url)
        shown = await completed(tmp_path, *command)
        assert (shown.returncode, shown.stderr) == (0, b"")
        elsewhere = await completed(tmp_path, *command, environ={"XDG_RUNTIME_DIR": str(tmp_path)})
        assert b"wants its admin.key" in elsewhere.stderr
    nursery.cancel_scope.cancel()
