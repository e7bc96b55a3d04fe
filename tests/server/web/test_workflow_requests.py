"""http-request nodes over the real client and file store: what a graph gets, and does not get."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from server.files import FileStore
from server.web.client import Client, WebSettings
from server.workflow.node import NodeError, Result, Run
from tests.server.web.loopback import Asked, gone, loopback
from tests.server.workflow.fakes import FakeRun, app, execute, node, services


async def request(web: Client, url: str, files: FileStore | None = None, **fields: Any) -> Result:
    run = FakeRun(
        {"up": {"file": fields.pop("file", None)}},
        run=Run(id="r", app=app(), services=services(web=web, files=files)),
    )
    data = {"method": "get", "url": url, "authorization": {"type": "no-auth"}} | fields
    return await execute(node("http-request", data), run)


async def test_a_file_goes_out_and_another_comes_back() -> None:
    """Uploaded as a form, kept as a file of the run, read again by its id."""

    async def handler(asked: Asked) -> None:
        assert b'filename="in.txt"' in asked.body
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": "attachment; filename*=UTF-8''%C3%BC.png",
        }
        await asked.answer(200, b"PNG", headers)

    settings = WebSettings(allow=("127.0.0.1",))
    async with loopback(handler) as server, Client(settings) as web, FileStore(web) as files:
        upload = files.upload(b"hello", name="in.txt", mime_type="text/plain")
        form = {"type": "form-data", "data": [{"key": "f", "type": "file", "file": ["up", "file"]}]}
        result = await request(web, server.url, files, method="post", body=form, file=upload)
        (file,) = result.outputs["files"]
        assert (file.name, file.mime_type, file.type) == ("ü.png", "image/png", "image")
        assert await files.read(file, 10) == b"PNG"


async def test_the_guard_holds_for_graphs() -> None:
    """A graph that asks for the inside fails with the reason, and with nothing of the answer."""
    async with Client() as web:
        for url in ("http://169.254.169.254/latest/", "http://localhost:1/", "http://[::1]/"):
            with pytest.raises(NodeError, match="requests to the inside are refused") as caught:
                await request(web, url)
            assert caught.value.type == "HttpRequestNodeError"


async def test_a_cancelled_node_leaves_nothing() -> None:
    """The connection is closed and its place is free."""
    arrived, closed = trio.Event(), trio.Event()

    async def handler(asked: Asked) -> None:
        arrived.set()
        await gone(asked)
        closed.set()

    settings = WebSettings(allow=("127.0.0.1",))
    async with loopback(handler) as server, Client(settings) as web:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request, web, server.url)
            await arrived.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(2):
            await closed.wait()
        assert web._places._all.statistics().borrowed_tokens == 0
