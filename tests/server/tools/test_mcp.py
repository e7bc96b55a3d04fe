"""MCP servers over both transports, on real sockets: sessions, lists, calls, cancellation."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import trio

from server.tools.event_stream import EventStream, EventTooLong
from server.tools.mcp import McpProvider
from server.tools.mcp_config import McpServer, mcp_servers
from server.web.client import Client, WebSettings
from server.workflow.services import ToolFailed
from tests.server.tools.fakes import kept_files, ref, run_with, toolbox
from tests.server.web.loopback import Asked, Loopback, gone, loopback, until

TOOLS = [
    {
        "name": "add",
        "description": "Adds",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
    {"name": "slow", "inputSchema": {"type": "object"}},
    {"name": "media", "inputSchema": {"type": "object"}},
    {"name": "fails", "inputSchema": {"type": "object"}},
]
MEDIA = {
    "content": [
        {"type": "text", "text": '{"k": 1}'},
        {"type": "image", "data": "UE5H", "mimeType": "image/png"},
        {"type": "resource", "resource": {"uri": "file:///a/b.txt", "text": "inside"}},
        {"type": "resource", "resource": {"uri": "file:///a/c.pdf", "blob": "UERG"}},
        {"type": "resource_link", "uri": "http://x/y", "name": "y"},
    ],
    "structuredContent": {"answer": 42},
}


class FakeMcp:
    """A server that speaks streamable HTTP, SSE, or answers in JSON only."""

    def __init__(self, answers: str = "json") -> None:
        self.answers = answers
        self.sessions = 0
        self.messages: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.stream: trio.SocketStream | None = None
        self.waiting = trio.Event()
        self.streams_closed = 0

    async def __call__(self, asked: Asked) -> None:
        if asked.path == "/sse" and asked.method == "GET" and self.answers == "sse":
            await self._serve_stream(asked)
        elif asked.path == "/post" and self.answers == "sse":
            message = asked.json()
            self.messages.append(message)
            await asked.answer(202)
            result = await self._result(message, asked)
            if result is not None and self.stream is not None:
                await self.stream.send_all(event(result))
        elif asked.path == "/mcp" and self.answers != "sse":
            await self._serve_http(asked)
        else:
            await asked.answer(405)

    async def _serve_stream(self, asked: Asked) -> None:
        self.stream = asked.stream
        await asked.start({"Content-Type": "text/event-stream"})
        await asked.stream.send_all(b": hello\r\n\r\nevent: endpoint\r\ndata: /post\r\n\r\n")
        await gone(asked)
        self.streams_closed += 1

    async def _serve_http(self, asked: Asked) -> None:
        self.headers.append(asked.headers)
        if asked.method == "DELETE":
            self.messages.append({"method": "DELETE"})
            await asked.answer(200)
            return
        message = asked.json()
        self.messages.append(message)
        if message["method"] == "initialize":
            self.sessions += 1
        elif asked.headers.get("mcp-session-id") != f"s{self.sessions}":
            await asked.answer(404)
            return
        if "id" not in message:
            await asked.answer(202)
            return
        result = await self._result(message, asked)
        if result is None:
            return
        if self.answers == "json":
            await asked.answer_json(result, Mcp_Session_Id=f"s{self.sessions}")
            return
        await asked.start(
            {"Content-Type": "text/event-stream", "Mcp-Session-Id": f"s{self.sessions}"}
        )
        ping = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
        await asked.stream.send_all(event(ping) + event(result))
        await gone(asked)
        self.streams_closed += 1

    async def _result(self, message: dict[str, Any], asked: Asked) -> dict[str, Any] | None:
        method, parameters = message["method"], message.get("params", {})
        if method == "initialize":
            result: Any = {"protocolVersion": "2025-03-26", "capabilities": {"tools": {}}}
        elif method == "tools/list":
            at = int(parameters.get("cursor", 0))
            result = {"tools": TOOLS[at : at + 3]} | ({"nextCursor": "3"} if not at else {})
        elif method != "tools/call":
            return None
        elif parameters["name"] == "slow":
            self.waiting.set()
            if self.answers != "sse":
                await gone(asked)
            return None
        elif parameters["name"] == "fails":
            result = {"content": [{"type": "text", "text": "no luck"}], "isError": True}
        elif parameters["name"] == "large":
            result = {"content": [{"type": "text", "text": "{}" * 80_000}]}
        elif parameters["name"] == "media":
            result = MEDIA
        else:
            result = {"content": [{"type": "text", "text": str(parameters["arguments"]["a"] + 1)}]}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    @property
    def methods(self) -> list[str]:
        return [message.get("method", "answer") for message in self.messages]


def event(message: dict[str, Any]) -> bytes:
    return f"event: message\ndata: {json.dumps(message)}\n\n".encode()


def url(server: Loopback, fake: FakeMcp) -> str:
    return server.url + ("/sse" if fake.answers == "sse" else "/mcp")


@pytest.mark.parametrize("answers", ["json", "events", "sse"])
async def test_tools_of_a_server(answers: str) -> None:
    """Found over each transport, page by page, called, and their answers read."""
    fake = FakeMcp(answers)
    async with loopback(fake) as server, toolbox() as tools, kept_files() as files:
        bound = {"mcp": url(server, fake), "headers": '{"X-K": "k"}', "bearer": "t"}
        run = run_with({"m": bound}, files)
        found = await tools.all_of(ref("m", type="mcp"), run)
        assert [one.name for one in found] == ["add", "slow", "media", "fails"]
        add = await tools.find(ref("m", "add", "mcp"), run)
        assert add.description == "Adds"
        assert (await add.call({"a": "4"}, {}, run)).text == "5"
        media = await (await tools.find(ref("m", "media", "mcp"), run)).call({}, {}, run)
        assert media.text == '{"k": 1}\ninside\n[y](http://x/y)'
        assert media.json == [{"answer": 42}]
        assert media.variables == {"answer": 42}
        assert [(one.name, one.size) for one in media.files] == [("image.png", 3), ("c.pdf", 3)]
        with pytest.raises(ToolFailed, match="no luck"):
            await (await tools.find(ref("m", "fails", "mcp"), run)).call({}, {}, run)
        with pytest.raises(ToolFailed, match="has no tool 'nothing'; it has add"):
            await tools.find(ref("m", "nothing", "mcp"), run)
    if answers != "sse":
        assert fake.methods.count("initialize") == 1
        assert fake.methods[-1] == "DELETE"
        for headers in fake.headers:
            assert (headers["x-k"], headers["authorization"]) == ("k", "Bearer t")
        assert fake.headers[2]["mcp-protocol-version"] == "2025-03-26"
    assert fake.methods.count("tools/list") == 2


async def test_a_forgotten_session_is_opened_anew() -> None:
    """Once, and what was asked is asked again."""
    fake = FakeMcp()
    async with loopback(fake) as server, toolbox() as tools:
        run = run_with({"m": {"mcp": url(server, fake)}})
        add = await tools.find(ref("m", "add", "mcp"), run)
        fake.sessions = 5
        assert (await add.call({"a": 1}, {}, run)).text == "2"
        assert fake.methods.count("initialize") == 2


@pytest.mark.parametrize("answers", ["json", "sse"])
async def test_a_cancelled_call_is_called_off(answers: str) -> None:
    """The server is told which call it was, and nothing stays open."""
    fake = FakeMcp(answers)
    async with loopback(fake) as server, toolbox() as tools:
        run = run_with({"m": {"mcp": url(server, fake)}})
        slow = await tools.find(ref("m", "slow", "mcp"), run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.call, {}, {}, run)
            await fake.waiting.wait()
            nursery.cancel_scope.cancel()
        last = [one for one in fake.messages if one["method"] == "tools/call"][-1]
        await until(lambda: fake.methods[-1] == "notifications/cancelled")
        assert fake.messages[-1]["params"]["requestId"] == last["id"]
        if answers == "sse":
            await until(lambda: fake.streams_closed == 2)


async def test_servers_of_a_file_stay_outside() -> None:
    """A server that a graph names is refused inside; one that the operator names is not."""
    fake = FakeMcp()
    async with loopback(fake) as server, toolbox() as tools:
        config = json.dumps({"name": {"url": url(server, fake)}})
        with pytest.raises(ToolFailed, match=r"'name': .*loopback.*\[web\] allow"):
            await tools.mcp_tools(config, run_with())
        assert server.connections == 0
    async with loopback(fake) as server, toolbox(allow=("127.0.0.1",)) as tools:
        config = json.dumps({"name": {"url": url(server, fake)}})
        assert len(await tools.mcp_tools(config, run_with())) == 4


async def test_sessions_are_apart_for_each_app() -> None:
    """What a server remembers of one app's session another app does not meet."""
    fake = FakeMcp()
    async with loopback(fake) as server, toolbox() as tools:
        bindings = {"m": {"mcp": url(server, fake)}}
        run, other = run_with(bindings), run_with(bindings)
        other.run.app = type(other.run.app)(
            id="other",
            name="o",
            mode="workflow",
            graph=run.run.app.graph,
            bindings=run.run.app.bindings,
        )
        await tools.all_of(ref("m", type="mcp"), run)
        await tools.all_of(ref("m", type="mcp"), other)
        assert fake.methods.count("initialize") == 2


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("nonsense", 200, "no JSON"),
        ('{"jsonrpc": "2.0", "id": 99, "result": {}}', 200, "not to what was asked"),
        ('{"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "boom"}}', 200, "boom"),
        ('{"jsonrpc": "2.0", "id": 1, "result": []}', 200, "without a result"),
        ("down", 503, "answered 503: down"),
        ("who", 401, "answered 401: who"),
        ("no", 404, "speaks neither"),
    ],
)
async def test_servers_that_are_wrong(body: str, status: int, message: str) -> None:
    """Each is an error that names the server and what it did."""

    async def handler(asked: Asked) -> None:
        await asked.answer(status, body, {"Content-Type": "application/json"})

    async with loopback(handler) as server, toolbox() as tools:
        with pytest.raises(ToolFailed, match=f"the MCP server 'mcp': .*{message}"):
            await tools.all_of(ref("m"), run_with({"m": {"mcp": f"{server.url}/?key=secret"}}))


async def test_messages_do_not_go_to_another_origin() -> None:
    """The older transport's endpoint is the server's own, or it is refused."""

    async def handler(asked: Asked) -> None:
        await asked.start({"Content-Type": "text/event-stream"})
        await asked.stream.send_all(b"event: endpoint\ndata: http://10.0.0.1/post\n\n")
        await gone(asked)

    async with loopback(handler) as server, toolbox() as tools:
        with pytest.raises(ToolFailed, match="another origin"):
            await tools.all_of(ref("m"), run_with({"m": {"mcp": f"{server.url}/sse"}}))


def named(*servers: McpServer) -> list[tuple[str, str]]:
    return [(server.name, server.url) for server in servers]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, []),
        ("", []),
        ("https://a.example/sse?key=1", [("mcp", "https://a.example/sse?key=1")]),
        (
            "https://a.example/\nhttps://b.example/",
            [("mcp1", "https://a.example/"), ("mcp2", "https://b.example/")],
        ),
        ('{"s": {"url": "https://a.example/"}}', [("s", "https://a.example/")]),
        ({"mcpServers": {"s": {"url": "https://a.example/"}}}, [("s", "https://a.example/")]),
        ({"url": "https://a.example/", "name": "n"}, [("n", "https://a.example/")]),
        ([{"url": "https://a.example/"}], [("mcp1", "https://a.example/")]),
    ],
)
def test_configurations(config: Any, expected: list[tuple[str, str]]) -> None:
    """All the ways in which exports name servers."""
    assert named(*mcp_servers(config)) == expected


def test_details_of_a_configuration() -> None:
    """Headers, transport and time, the last within its bound."""
    (server,) = mcp_servers(
        '{"s": {"url": "https://a.example/", "headers": {"A": 1}, "timeout": 5,'
        ' "transport": "streamable_http", "sse_read_timeout": 300}}'
    )
    assert server.headers == (("A", "1"),)
    assert (server.transport, server.timeout_s) == ("http", 5)
    (server,) = mcp_servers({"url": "https://a.example/", "type": "sse", "timeout": 10**9})
    assert (server.transport, server.timeout_s) == ("sse", 60)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"s": {"command": "npx", "args": ["x"]}}, "program to start"),
        ("{", "no JSON"),
        ("ftp://x", "expected a URL"),
        ({"s": 5}, "expected a URL"),
        (5, "expected a URL"),
        ([f"https://a{n}.example/" for n in range(21)], "at most 20"),
    ],
)
def test_wrong_configurations(config: Any, message: str) -> None:
    """Named; programs are never started."""
    with pytest.raises(ToolFailed, match=message):
        mcp_servers(config)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_are_read_from_any_pieces(size: int) -> None:
    """LF, CRLF and CR end lines; line separators within JSON do not."""
    data = (
        ": comment\n\nevent: a\ndata: 1\ndata: 2\r\n\r\nid: 7\rdata:x\u2028y\u0085z\r\r"
        "data\n\nevent: none\n\ndata: last\n\n"
    ).encode()
    stream = EventStream()
    found = []
    for start in range(0, len(data), size):
        found += list(stream.feed(data[start : start + size]))
    assert [(one.name, one.data, one.id) for one in found] == [
        ("a", "1\n2", ""),
        ("message", "x\u2028y\u0085z", "7"),
        ("message", "", ""),
        ("message", "last", ""),
    ]


def test_many_short_lines_take_linear_time() -> None:
    """Each is looked for from where the last one ended, and no further than its own end."""
    began = time.perf_counter()
    assert list(EventStream().feed(b"\n" * 500_000)) == []
    assert time.perf_counter() - began < 3


def test_an_endless_event_is_cut_off() -> None:
    """A line without an end is not held for ever."""
    stream = EventStream()
    with pytest.raises(EventTooLong):  # noqa: PT012
        for _ in range(200):
            list(stream.feed(b"data: " + bytes(100_000)))


@pytest.mark.parametrize("answers", ["json", "events", "sse"])
async def test_messages_that_are_too_large_are_refused(answers: str) -> None:
    """Both ways, with the limit, instead of holding all other runs up."""
    fake = FakeMcp(answers)
    async with loopback(fake) as server, Client(WebSettings(allow=("127.0.0.1",))) as web:
        provider = McpProvider(McpServer(name="n", url=url(server, fake)), web)
        with pytest.raises(ToolFailed, match="'n': JSON with more than 75000 objects"):
            await provider.call("large", {})
        with pytest.raises(ToolFailed, match=r"'n': as JSON it has .* at most 8388608"):
            await provider.call("add", {"a": "x" * 9_000_000})
        await provider.end()
