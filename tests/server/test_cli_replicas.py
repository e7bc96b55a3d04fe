"""`triolet replicas` as a command: what it asks and prints, and what it says if it cannot."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from server import cli_replicas
from server.admin_key import key_in_files
from server.cli import main

POOLS = {"pools": [{"model": "m", "policy": "random", "replicas": ["http://a"], "up": 1}]}
REPLICAS = {"replicas": [{"url": "http://a", "state": "up", "models": ["m"], "extra": 1}]}


class Triolet:
    """Answers as the admin API does; `status` and `body` stand for something else."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        self.body: bytes | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["authorization"]))
                body = outer.body or json.dumps(POOLS | REPLICAS).encode()
                self.send_response(outer.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def triolet() -> Iterator[Triolet]:
    served = Triolet()
    thread = threading.Thread(target=served.server.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names would make a program here a stranger."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("TRIOLET_ADMIN__KEY", raising=False)


def run(triolet: Triolet | str, *arguments: str, **environ: str) -> Result:
    url = triolet if isinstance(triolet, str) else triolet.url
    runner = CliRunner()
    return runner.invoke(main, ["replicas", "--url", url, *arguments], env=environ)


def failure(result: Result) -> str:
    """The one sentence on stderr of a command that could not do it."""
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_once(triolet: Triolet) -> None:
    """One table, and that is all; unknown fields of a newer version are no trouble."""
    result = run(triolet, "--once")
    assert result.exit_code == 0, result.stderr
    heads, row, gap, pool = result.stdout.splitlines()
    assert heads.startswith("MODEL  REPLICA   STATE  IN FLIGHT")
    assert row.startswith("m      http://a  up ")
    assert (gap, pool) == ("", "m (random): 1 of 1 up, 0 in flight, waiting: -")
    assert "\x1b" not in result.stdout
    assert triolet.asked == [("/admin/api/pools", None), ("/admin/api/replicas", None)]


def test_json(triolet: Triolet) -> None:
    """Everything that was answered, on one line."""
    result = run(triolet, "--once", "--json")
    assert json.loads(result.stdout) == POOLS | REPLICAS
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--key", "s3cret"], {}),
        ([], {"TRIOLET_ADMIN__KEY": "s3cret"}),
        ([], {"TRIOLET_ADMIN__KEY": "env:OTHER", "OTHER": "s3cret"}),
    ],
)
def test_the_key(triolet: Triolet, arguments: list[str], environ: dict[str, str]) -> None:
    """From the option or the variable that the server reads too, in the forms that it takes."""
    assert run(triolet, "--once", *arguments, **environ).exit_code == 0
    assert {key for _, key in triolet.asked} == {"Bearer s3cret"}


def test_the_key_of_ones_own_triolet(triolet: Triolet) -> None:
    """Without one the file is read in which a Triolet here keeps its own; no other address gets
    what is in it."""
    port = triolet.server.server_port
    with key_in_files([port, 8746], os.environ) as key:
        assert run(triolet, "--once").exit_code == 0
        assert run(f"http://localhost:{port}", "--once").exit_code == 0
        assert run(triolet, "--once", "--key", "mine").exit_code == 0
        assert cli_replicas._own_key("http://127.0.0.1:8746") == key
        for url in ("http://192.0.2.1:8746", "http://evil.example:8746", "http://127.0.0.1:1"):
            assert cli_replicas._own_key(url) is None
    assert [sent for _, sent in triolet.asked[::2]] == [f"Bearer {key}"] * 2 + ["Bearer mine"]
    assert cli_replicas._own_key("http://127.0.0.1:8746") is None


def test_a_path_in_front(triolet: Triolet) -> None:
    """Where a proxy has put it; `/v1` is what people copy."""
    assert run(triolet.url + "/llm/v1/", "--once").exit_code == 0
    assert triolet.asked[0][0] == "/llm/admin/api/pools"


def test_nobody_there() -> None:
    """Says where it asked, why that failed and what may be wrong."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        said = failure(run(url, "--once"))
    assert said == (
        f"triolet: no answer from {url}: Connection refused; is `triolet serve` running there "
        "(--url)?\n"
    )


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "wants its admin.key: give it as --key or TRIOLET_ADMIN__KEY"),
        (403, "answered 403: out of cheese"),
        (404, "has no admin API: it is an older Triolet, or none"),
        (500, "answered 500: out of cheese"),
    ],
)
def test_refused(triolet: Triolet, status: int, says: str) -> None:
    """Each says what to do; the key is not shown."""
    triolet.status, triolet.body = status, b'{"error": {"message": "out of cheese"}}'
    said = failure(run(triolet, "--once", "--key", "s3cret"))
    assert says in said
    assert "s3cret" not in said


@pytest.mark.parametrize("body", [b"<html>", b'{"replicas": 1, "pools": []}', b"[1]"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_something_else_answers(triolet: Triolet, body: bytes, form: list[str]) -> None:
    """A page of another server is no table."""
    triolet.body = body
    if form and body.startswith(b"{"):
        assert run(triolet, "--once", *form).exit_code == 0
    else:
        assert "is not Triolet's admin API" in failure(run(triolet, "--once", *form))


@pytest.mark.parametrize("body", [b"", b"x", b"{}", b'{"error": 1}'])
def test_an_error_without_words(triolet: Triolet, body: bytes) -> None:
    """Then the status has to do."""
    triolet.status, triolet.body = 502, body or b" "
    assert "answered 502: no words" in failure(run(triolet, "--once"))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--url", "127.0.0.1:8746"], "--url"),
        (["--key", "a b"], "--key"),
        (["--key", "env:NOT_SET_ANYWHERE"], "--key"),
        (["--interval", "0"], "--interval"),
    ],
)
def test_wrong_options(arguments: list[str], names: str) -> None:
    """Said with the option's name; nothing is asked."""
    result = CliRunner().invoke(main, ["replicas", "--once", *arguments])
    assert result.exit_code == 2
    assert names in result.stderr


class Naps:
    """Stands for `time.sleep`: notes how long, and does something instead."""

    def __init__(self, *acts: Any) -> None:
        self.slept: list[float] = []
        self._acts = [*acts]

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self._acts:
            raise KeyboardInterrupt
        self._acts.pop(0)()


def napping(monkeypatch: pytest.MonkeyPatch, *acts: Any) -> Naps:
    naps = Naps(*acts)
    monkeypatch.setattr(cli_replicas.time, "sleep", naps)  # type: ignore[attr-defined]
    return naps


def test_again_and_again(triolet: Triolet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table every `--interval` until Ctrl-C, which is a good end; plain where nobody looks."""
    naps = napping(monkeypatch, lambda: None, lambda: None)
    result = run(triolet, "--interval", "7")
    assert result.exit_code == 0
    assert naps.slept == [7.0, 7.0, 7.0]
    assert result.stdout.count("MODEL") == 3
    assert "\n\nMODEL" in result.stdout
    assert "\x1b" not in result.stdout


def test_away_for_a_while(triolet: Triolet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there once is asked again, whatever it says; what cannot pass ends it."""

    def answer(status: int) -> Any:
        return lambda: setattr(triolet, "status", status)

    napping(monkeypatch, answer(503), answer(200), answer(401))
    result = run(triolet)
    assert result.exit_code == 1
    assert result.stdout.count("MODEL") == 2
    first, second = result.stderr.splitlines()
    assert "answered 503" in first
    assert "admin.key" in second


def test_drawn_over_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Up by what was drawn, and all below is cleared: a shorter table leaves no remains."""
    screen = cli_replicas._Screen(redraws=True, between=[""])
    screen.show(["a", "b", "c"])
    screen.trouble("away")
    screen.show(["d"])
    assert capsys.readouterr().out == "\r\x1b[Ja\nb\nc\n\x1b[3A\r\x1b[Jaway\n\x1b[1A\r\x1b[Jd\n"
