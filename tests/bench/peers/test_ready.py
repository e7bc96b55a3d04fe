"""A gateway is ready once it passes a whole answer on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from bench.peers.ready import _try_chat


@contextmanager
def answering(length: int) -> Iterator[int]:
    """A server that announces `length` bytes, and sends two."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(length))
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        yield server.server_port
        thread.join(10)


@pytest.mark.parametrize(("length", "said"), [(2, "200"), (9, "IncompleteRead")])
def test_half_an_answer_is_none(length: int, said: str) -> None:
    """A head of status 200 alone says little: the replica may be gone behind it."""
    with answering(length) as port:
        assert _try_chat(port, "demo", {}).startswith(said)
