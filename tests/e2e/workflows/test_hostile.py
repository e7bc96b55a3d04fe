"""Hostile graphs, code, pages and models beside a run that streams: each is answered by a clear
error within its limit, and the other's tokens keep flowing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from server.workflow.app import App
from server.workflow.engine import RunResult
from server.workflow.events import RunFinished
from tests.e2e.workflows import graphs
from tests.e2e.workflows.world import Watcher, World, opened, p99, starved_s
from tests.server.running.exports import node

pytestmark = [pytest.mark.slow]

ITL_S = 0.05
LONGEST_S = 0.3
TOKENS = 160
"""At least, so that one may be slower than all but a percent."""


class Hostile(NamedTuple):
    """A graph, and what its run must say within so many seconds."""

    text: Callable[[World], str]
    says: str
    within_s: float = 3.0
    inputs: dict[str, Any] = {}  # noqa: RUF012
    limits: dict[str, Any] = {}  # noqa: RUF012
    status: str = "failed"


@asynccontextmanager
async def beside(world: World, watcher: Watcher) -> AsyncIterator[None]:
    """Another run streams meanwhile."""
    app = graphs.app(graphs.row(graphs.llm("drip 100000"), out=["llm", "text"]), "other")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stream, world, app, watcher)
        await _tokens(watcher, 5)
        yield
        await _tokens(watcher, TOKENS)
        nursery.cancel_scope.cancel("the drill is over")


async def _stream(world: World, app: App, watcher: Watcher) -> None:
    await world.running.run_app(app, {}, sink=watcher)


async def _tokens(watcher: Watcher, number: int) -> None:
    while len(watcher.times) < number:  # noqa: ASYNC110
        await trio.sleep(0.01)


def _gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def _told(watcher: Watcher, began: float) -> str:
    """How long it took, and the longest time without a token."""
    times = [began, *(time for time in watcher.times if time > began)]
    longest = max(_gaps(times), default=0.0)
    return f"{trio.current_time() - starved_s() - began:.2f} s, longest gap {longest * 1000:.0f} ms"


async def attack(world: World, name: str, one: Hostile, app: App) -> RunResult:
    """Run it in its time."""
    world.limit(**one.limits)
    watcher = Watcher()
    result: RunResult | None = None
    with trio.move_on_after(one.within_s) as scope:
        result = await world.running.run_app(app, one.inputs, sink=watcher)
    assert not scope.cancelled_caught, f"{name} went on for more than {one.within_s} s"
    assert result is not None
    assert isinstance(watcher.events[-1], RunFinished)
    assert result.status == one.status, (name, result.error)
    assert one.says in (result.error or ""), (name, result.error)
    return result


def _template(source: str, says: str, **more: Any) -> Hostile:
    return Hostile(lambda world: graphs.row(graphs.template(source)), says, **more)


def _code(source: str, says: str = "", language: str = "python3", **more: Any) -> Hostile:
    return Hostile(lambda world: graphs.row(graphs.code(source, language)), says, **more)


def _page(path: str, says: str, **more: Any) -> Hostile:
    return Hostile(lambda world: graphs.row(graphs.http(f"{world.site.url}/{path}")), says, **more)


_TWICE = "{% for a in range(99999) %}{% for b in range(9999) %}"
_ENDS = "{% endfor %}{% endfor %}"

TEMPLATES: dict[str, Hostile] = {
    "loops in loops": _template(_TWICE + _ENDS, "stopped"),
    "a loop of a range": _template("{% for a in range(10**9) %}x{% endfor %}", "range"),
    "a product": _template("{{ 'a' * 10**10 }}", ""),
    "a power": _template("{{ 9 ** (9 ** 9) }}", ""),
    "a wide text": _template("{{ 'a' | center(10**10) }}", ""),
    "a doubling": _template(
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}"
        "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}", "",
    ),
    "replaced by more": _template(
        "{{ q | replace('a', q) | replace('a', q) | length }}", "", inputs={"q": "a" * 10_000}
    ),
    "deep brackets": _template("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", ""),
    "Python's insides": _template(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", "", status="failed"
    ),
}  # fmt: skip

_BOMB = "import decimal\ndef main():\n"
CODE: dict[str, Hostile] = {
    "forks": _code(_BOMB + "    import os\n    while True:\n        os.fork()\n"),
    "allocates": _code(_BOMB + "    x = []\n    while True:\n        x.append('a' * 10**7)\n"),
    "loops": _code(_BOMB + "    while True:\n        pass\n", "stopped"),
    "loops in Monty": _code("def main():\n    while True:\n        pass\n", "stopped"),
    "allocates in Monty": _code(
        "def main():\n    x = []\n    while True:\n        x.append('a' * 1000000)\n", "memory"
    ),
    "opens a socket": _code(
        _BOMB + "    import socket\n    socket.create_connection(('127.0.0.1', 1))\n"
    ),
    "opens a file": _code(_BOMB + "    open('/etc/passwd').read()\n    open('/tmp/x', 'w')\n"),
    "starts a program": _code(_BOMB + "    import subprocess\n    subprocess.run(['id'])\n"),
    "prints without end": _code(_BOMB + "    while True:\n        print('x' * 10000)\n", "stopped"),
    "gives out too much": _code(_BOMB + "    return {'result': 'x' * 10**7}\n", "larger"),
    "a regex": _code(
        "import decimal, re\ndef main():\n    re.match('(a+)+$', 'a' * 100 + 'b')\n", "stopped"
    ),
    "recursion": _code(_BOMB + "    def f(): f()\n    f()\n", "recursion"),
    "a deep result": _code(
        _BOMB + "    x = 1\n    for _ in range(10**5):\n        x = [x]\n    return {'x': x}\n"
    ),
    "JavaScript that loops": _code("function main() { for (;;) {} }", "", "javascript"),
    "JavaScript that allocates": _code(
        "function main() { let x = []; for (;;) x.push('a'.repeat(100000)); }", "", "javascript"
    ),
    "JavaScript's regex": _code(
        "function main() { return {result: '' + /(a+)+$/.test('a'.repeat(60) + 'b')}; }", "",
        "javascript",
    ),
}  # fmt: skip

_STRUCTURED = {
    "structured_output_enabled": True,
    "structured_output": {
        "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    },
}
_REGEX_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}},
    "required": ["a"],
}


def _says(prompt: str, says: str = "", **more: Any) -> Hostile:
    kept = {key: more.pop(key) for key in ("inputs", "limits", "status", "within_s") if key in more}
    return Hostile(lambda world: graphs.row(graphs.llm(prompt, **more)), says, **kept)


_REFERENCES = "{{#start.q#}}" * 1000

MODELS: dict[str, Hostile] = {
    "tokens of a megabyte": _says("huge 30", "than", within_s=8.0),
    "an answer without end": _says("drip 100000", "execution time", limits={"time_s": 0.5}),
    "brackets for an object": _says("say {{#start.q#}}", "", inputs={"q": "[" * 200_000},
                                    **_STRUCTURED),
    "half an object": _says("say {{#start.q#}}", "", inputs={"q": '{"a":' * 50_000},
                            **_STRUCTURED),
    "quotes": _says("say {{#start.q#}}", "", inputs={"q": '{"b": "' + '"\\' * 200_000},
                    **_STRUCTURED),
    "tags of thoughts": _says(
        "say {{#start.q#}}", "", inputs={"q": "<think>" * 100_000}, status="succeeded",
        reasoning_format="separated",
    ),
    "ends of thoughts": _says(
        "say {{#start.q#}}", "", inputs={"q": "<think>" + "</think" * 100_000},
        status="succeeded", reasoning_format="separated",
    ),
    "a pattern in a schema": _says(
        'say {"a": "{{#start.q#}}"}', "", inputs={"q": "a" * 60 + "b"},
        structured_output_enabled=True, structured_output={"schema": _REGEX_SCHEMA},
    ),
    "a prompt that grows": _says(_REFERENCES, "characters", inputs={"q": "a" * 1_000_000}),
}  # fmt: skip

PAGES: dict[str, Hostile] = {
    "fifty megabytes": _page("large", "too large"),
    "a bomb": _page("bomb", "too large"),
    "a drip": _page("drip", "execution time", limits={"time_s": 0.5}),
    "ten megabytes of JSON": _page("json", "too large"),
    "a tool's ten megabytes": Hostile(
        lambda world: graphs.row(
            graphs.tool("builtin", "webscraper", "webscraper", url=f"{world.site.url}/json")
        ),
        "",
    ),
}

_ROUNDS: dict[str, Any] = {
    "iterator_selector": ["start", "items", "list"],
    "output_selector": ["t", "output"],
}
_T = {"template": "x", "variables": []}


ROUNDS: dict[str, Hostile] = {
    "very many items": Hostile(
        lambda world: graphs.around("iteration", node("t", "template-transform", **_T), **_ROUNDS),
        "steps", inputs={"items": {"list": [0] * 40_000}},
    ),
    "very many items at once": Hostile(
        lambda world: graphs.around(
            "iteration", graphs.http(f"{world.site.url}/hello"), is_parallel=True,
            parallel_nums=20, iterator_selector=["start", "items", "list"],
            output_selector=["http", "body"],
        ),
        "steps", inputs={"items": {"list": [0] * 40_000}}, within_s=8.0,
    ),
    "a milliard rounds": Hostile(
        lambda world: graphs.around(
            "loop", node("t", "template-transform", **_T), loop_count=10**9, break_conditions=[]
        ),
        "steps",
    ),
    "a text that is shown a thousand times": Hostile(
        lambda world: graphs.row(node("answer", "answer", answer=_REFERENCES)),
        "characters", inputs={"q": "a" * 1_000_000},
    ),
    "a request that grows": Hostile(
        lambda world: graphs.row(graphs.http(f"{world.site.url}/{_REFERENCES}")),
        "characters", inputs={"q": "a" * 1_000_000},
    ),
}  # fmt: skip

ALL: dict[str, dict[str, Hostile]] = {
    "templates": TEMPLATES, "code": CODE, "models": MODELS, "pages": PAGES, "rounds": ROUNDS,
}  # fmt: skip


@pytest.mark.parametrize("group", ALL)
async def test_hostile(group: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One after the other, beside a run that streams a token every 20 ms."""
    watcher = Watcher()
    with trio.fail_after(60):
        async with opened(tmp_path, code_s=0.5) as world:
            apps = {
                name: graphs.app(one.text(world), "hostile") for name, one in ALL[group].items()
            }
            async with beside(world, watcher):
                for name, one in ALL[group].items():
                    began = trio.current_time() - starved_s()
                    await attack(world, name, one, apps[name])
                    print(f"{name}: {_told(watcher, began)}")
            await world.settles()
    gaps = _gaps(watcher.times)
    print(f"{group}: p99 of {len(gaps)} gaps {p99(gaps) * 1000:.0f} ms")
    assert p99(gaps) < ITL_S
    assert max(gaps) < LONGEST_S
    assert "Traceback" not in caplog.text
