"""A model server that does as told, on loopback, in a thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["ScriptedReplica", "serving"]


class ScriptedReplica:
    """Streams the last message back, word by word. `asked` are the bodies that came."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.hangs = False
        self.status = 200
        self.gone = threading.Event()
        """Set when a client that was kept waiting left."""
        self.url = ""

    def pool(self) -> list[str]:
        """Flags of the command line that make it the only model."""
        pool = [{"model": "scripted", "replicas": [self.url], "retries": 0}]
        return ["--set", f"pool={json.dumps(pool)}", "--set", 'models={"*":"scripted"}']


@contextmanager
def serving() -> Iterator[ScriptedReplica]:
    """One that serves until the end of the block."""
    replica = ScriptedReplica()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(replica))
    server.daemon_threads = True
    replica.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield replica
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(replica: ScriptedReplica) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/v1/models"
            body = json.dumps({"object": "list", "data": [{"id": "scripted"}]}).encode()
            self._answer(200 if found else 404, body if found else b"{}", "application/json")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            replica.asked.append(body)
            if replica.status != 200:
                error = {"error": {"message": "scripted to fail", "type": "x", "code": None}}
                self._answer(replica.status, json.dumps(error).encode(), "application/json")
                return
            self._stream(str(body["messages"][-1]["content"]))

        def _stream(self, text: str) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for word in text.split(" "):
                self._event({"choices": [{"index": 0, "delta": {"content": word + " "}}]})
            if replica.hangs:
                self.wfile.flush()
                self.rfile.read(1)  # until the client leaves
                replica.gone.set()
                return
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            self._event(last)
            self._event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, content: dict[str, Any]) -> None:
            head = {"id": "c", "object": "chat.completion.chunk", "model": "scripted"}
            self.wfile.write(b"data: " + json.dumps(head | content).encode() + b"\n\n")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler
