"""Memory does not wait for the garbage collector."""

from __future__ import annotations

import gc
import io
import json
from collections import Counter
from functools import partial
from typing import Final

import trio

from balancer.wire.http1 import Connection
from balancer.wire.poller import open_poller
from bench.replica import ReplicaSettings, create_app
from server.config import Config, PoolConfig, ReplicaConfig
from server.edge.accept import bind
from server.edge.connection import ClientConnection
from server.edge.exchange import Exchange
from server.edge.http1 import Http1Server
from server.edge.request import RequestParser
from server.main import Triolet

_OURS: Final = (ClientConnection, Connection, Exchange, RequestParser)
_BODY: Final = json.dumps(
    {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
)
_REQUEST: Final = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    f"content-length: {len(_BODY)}\r\n\r\n{_BODY}"
).encode()


def _alive() -> Counter[str]:
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, _OURS))


async def _call(port: int, *, leave: bool) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(_REQUEST)
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += await client.receive_some()
            if leave:
                return


async def test_connections_are_freed_as_they_end() -> None:
    """With the collector off, nothing of a call is left behind: neither ended nor left by its
    client. Circles of objects would pile up until the collector comes round.
    """
    poller, listener = open_poller(), bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    replica = create_app(ReplicaSettings(model="m", ttft_s=0, tokens_per_s=1000))
    config = Config(
        listen=("http://127.0.0.1:0",),
        pool=(PoolConfig(model="m", replicas=(ReplicaConfig(url=url),)),),
    )
    triolet = Triolet(config, log_stream=io.BytesIO())
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        await nursery.start(Http1Server(replica, poller).serve, [listener])
        urls = await nursery.start(partial(triolet.run, out=io.StringIO()))
        port = int(urls[0].rpartition(":")[2])
        gc.collect()
        gc.disable()
        try:
            for leave in (False, True) * 5:
                await _call(port, leave=leave)
            with trio.move_on_after(2):
                # One kept connection to the replica, with both of its ends, may stay.
                while max(_alive().values(), default=0) > 1:  # noqa: ASYNC110 - no event for it
                    await trio.sleep(0.01)
            assert max(_alive().values(), default=0) <= 1, _alive()
        finally:
            gc.enable()
        nursery.cancel_scope.cancel("the test is over")
