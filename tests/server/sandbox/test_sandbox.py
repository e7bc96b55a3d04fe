"""The sandbox as the server uses it: what it allows, cancellation, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import trio

from server.sandbox import Sandbox, SandboxOptions, monty
from server.sandbox.options import CallLimits
from server.workflow.jinja import InProcessJinja
from server.workflow.services import CodeFailed
from server.workflow.values import File
from tests.server.sandbox.watching import (
    children_of_this_process,
    comes_true,
    gone,
    lives,
    options,
    outcome,
)

ROOT = Path(__file__).resolve().parents[3]
needs_monty = pytest.mark.skipif(not monty.is_installed(), reason="pydantic-monty is not here")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LOOP = "def main():\n    while True:\n        pass"
CPYTHON = "import operator\ndef main(a):\n    return {'x': operator.add(a, 1)}"


async def test_code_is_off_unless_allowed() -> None:
    """The error says how to allow it, and nothing was started."""
    async with Sandbox() as sandbox:
        with pytest.raises(CodeFailed, match=r"enabled = true.*--allow-code"):
            await sandbox.run("python3", "def main(): return {}", {})
        assert sandbox.pids == []


async def test_nothing_is_started_before_the_first_call(sandbox: Sandbox) -> None:
    """Opening a sandbox costs nothing."""
    assert sandbox.pids == []
    assert sandbox.busy == 0


@pytest.mark.slow
async def test_templates_and_documents_work_without_code() -> None:
    """They are no code of the user's."""
    async with Sandbox() as sandbox:
        assert await sandbox.render("{{ a|upper }}", {"a": "x"}) == "X"
        assert (
            await sandbox.text_of(b"a,b\n1,2\n", "t.csv", None)
            == "| a | b |\n| - | - |\n| 1 | 2 |\n"
        )


@pytest.mark.slow
async def test_results_and_arguments_are_json(sandbox: Sandbox) -> None:
    """Both languages; files are their dicts; wide characters and large numbers stay."""
    file = File(type="image", transfer_method="remote_url", name="a")
    arguments = {"a": {"é": [1, 2.5, None, True, "🎉"], "f": file}}
    python = await sandbox.run("python3", "def main(a): return {'x': a}", arguments)
    script = await sandbox.run("javascript", "const main = ({a}) => ({x: a})", arguments)
    assert python == script == {"x": {"é": [1, 2.5, None, True, "🎉"], "f": file.as_dict()}}
    assert await sandbox.run("python3", "def main(): return {'x': 10 ** 30}", {}) == {"x": 10**30}
    odd = await sandbox.run("python3", "def main(): return {'x': 'a\\ud800', 1: (1, 2)}", {})
    assert odd == {"x": "a?", "1": [1, 2]}


FAILURES = {
    "def main(a):\n    return {'x': 1 / 0}": "ZeroDivisionError: division by zero\n"
    "  line 2, in main: return {'x': 1 / 0}",
    "def main(a)\n    pass": "SyntaxError: expected ':'\n  line 1: def main(a)",
    "def other(): pass": "the code has no function main",
    "def main(a): return [1]": "main must return a dict, not list",
    "def main(a): return {'x': {1}}": "the result of main cannot be JSON",
    "def main(a): return {'x': float('nan')}": "the result of main cannot be JSON",
    "import nothing_like_it\ndef main(a): return {}": "No module named 'nothing_like_it'",
    "import pytest\ndef main(a): return {}": "No module named 'pytest'",
    "def main(b): return {}": "unexpected keyword argument 'a'",
}


@pytest.mark.slow
async def test_failures_show_the_line(sandbox: Sandbox) -> None:
    """What went wrong, and where in the code; nothing of ours."""
    for source, says in FAILURES.items():
        with pytest.raises(CodeFailed) as caught:
            await sandbox.run("python3", source, {"a": 1})
        assert says in caught.value.message
        assert "server" not in caught.value.message
        assert caught.value.type == "CodeExecutionError"


@pytest.mark.slow
async def test_the_standard_library_is_there(sandbox: Sandbox) -> None:
    """What code nodes import, and what imports late."""
    source = (
        "import uuid, hmac, html, urllib.parse, xml.etree.ElementTree as ET, statistics, string\n"
        "import logging, dataclasses, enum, decimal, zoneinfo, datetime, secrets, textwrap, io\n"
        "def main():\n"
        "    @dataclasses.dataclass\n    class P:\n        x: int = 1\n"
        "    print('ignored')\n    logging.warning('ignored')\n"
        "    return {'a': dataclasses.asdict(P()), 'b': 'é'.encode('gbk').hex(),"
        " 'c': ET.fromstring('<a><b>1</b></a>').find('b').text,"
        " 'd': datetime.datetime(2024, 7, 1, tzinfo=datetime.timezone.utc).astimezone("
        "zoneinfo.ZoneInfo('Asia/Tokyo')).isoformat(), 'e': datetime.datetime.now().astimezone()"
        ".utcoffset().total_seconds()}"
    )
    assert await sandbox.run("python3", source, {}) == {
        "a": {"x": 1},
        "b": "a8a6",
        "c": "1",
        "d": "2024-07-01T09:00:00+09:00",
        "e": 0.0,
    }


@pytest.mark.slow
@linux
@pytest.mark.parametrize("wait_s", [0.0, 0.001, 0.004, 0.05, 0.2, 0.4])
async def test_a_cancelled_call_leaves_nothing(wait_s: float) -> None:
    """At any time, in any phase: the process is gone, the slot is back, the next call works."""
    limits = CallLimits(time_s=30, memory_bytes=64 << 20, input_bytes=9999, output_bytes=9999)
    before = children_of_this_process()
    async with Sandbox(options(workers=1, code=limits)) as sandbox:
        for _ in range(3):
            with trio.move_on_after(wait_s):
                await sandbox.run("python3", LOOP, {})
            busy = sandbox.busy
            assert busy == 0
            with trio.fail_after(5):
                assert await sandbox.run("python3", CPYTHON, {"a": 1}) == {"x": 2}
        pids = sandbox.pids
    assert await gone(pids)
    assert not children_of_this_process() - before


@pytest.mark.slow
@linux
@needs_monty
async def test_a_cancelled_call_of_monty_is_killed() -> None:
    """Its process does not go on, its thread ends, the next call works at once."""
    limits = CallLimits(time_s=30, memory_bytes=64 << 20, input_bytes=9999, output_bytes=9999)
    before = children_of_this_process()
    async with Sandbox(options(workers=1, code=limits, monty=True)) as sandbox:
        for wait_s in (0.0, 0.001, 0.01, 0.2):
            with trio.move_on_after(wait_s):
                await sandbox.run("python3", LOOP, {})
            with trio.fail_after(5):
                assert await sandbox.run("python3", "def main(): return {'a': 1}", {}) == {"a": 1}
        with trio.move_on_after(0.1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sandbox.run, "python3", LOOP, {})
                await trio.sleep(0.05)
                pids = sandbox.pids
                assert len(pids) == 1
        assert await gone(pids)
    assert await comes_true(lambda: not children_of_this_process() - before)


@pytest.mark.slow
@needs_monty
async def test_limits_of_monty() -> None:
    """Time, sleep, memory, output, printing: errors in time, and no second try in CPython."""
    limits = CallLimits(time_s=0.3, memory_bytes=32 << 20, input_bytes=9999, output_bytes=1000)
    waste = {
        LOOP: "ran for more than",
        "import time\ndef main(): time.sleep(99)": "ran for more than",
        "def main(): return {'x': 'x' * 10 ** 10}": "out of memory",
        "def main(): return {'x': 'x' * 2000}": "larger than 1000 bytes",
        "def main():\n    while True:\n        print('x' * 1000)": "out of memory|ran for",
        "import re\ndef main(): return {'x': len(re.findall(r'(a|aa)+$', 'a' * 40 + 'b'))}": "",
    }
    async with Sandbox(options(code=limits, monty=True)) as sandbox:
        for source, says in waste.items():
            started = time.perf_counter()
            _, error = await outcome(sandbox.run("python3", source, {}))
            assert any(part in error for part in says.split("|")), source
            assert time.perf_counter() - started < 2.5
            assert await sandbox.run("python3", "def main(): return {'a': 1}", {}) == {"a": 1}


@pytest.mark.slow
async def test_calls_at_once_are_bounded() -> None:
    """Two at a time, the others wait in line; all are answered."""
    source = "import time, operator\ndef main(n):\n    time.sleep(0.1)\n    return {'n': n}"
    most = 0

    async def call(sandbox: Sandbox, number: int) -> None:
        nonlocal most
        assert await sandbox.run("python3", source, {"n": number}) == {"n": number}

    async with Sandbox(options(workers=2)) as sandbox, trio.open_nursery() as nursery:
        await sandbox.run("python3", CPYTHON, {"a": 1})
        for number in range(6):
            nursery.start_soon(call, sandbox, number)
        while len(nursery.child_tasks):
            most = max(most, sandbox.busy)
            await trio.sleep(0.005)
    assert most == 2


@pytest.mark.slow
@linux
async def test_a_killed_zygote_is_replaced(sandbox: Sandbox) -> None:
    """Its workers die with it; the call after next finds a new one."""
    assert await sandbox.run("python3", CPYTHON, {"a": 1}) == {"x": 2}
    zygote = sandbox.pids[0]
    os.kill(zygote, signal.SIGKILL)
    assert await gone([zygote])
    assert await sandbox.run("python3", CPYTHON, {"a": 1}) == {"x": 2}
    assert sandbox.pids[0] != zygote


ALONE = """
import trio
from server.sandbox import Sandbox, SandboxOptions
LOOP = "def main():\\n    while True:\\n        pass"
async def main():
    async with Sandbox(SandboxOptions(enabled=True, monty=MONTY)) as sandbox:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.run, "python3", LOOP, {})
            while not sandbox.busy or len(sandbox.pids) < COUNT:
                await trio.sleep(0.01)
            print(*sandbox.pids, flush=True)
            await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.slow
@linux
@pytest.mark.parametrize("runner", ["cpython", pytest.param("monty", marks=needs_monty)])
async def test_nothing_survives_a_killed_server(runner: str) -> None:
    """kill -9 of the process that uses the sandbox ends all others within seconds."""
    is_monty = runner == "monty"
    program = ALONE.replace("MONTY", str(is_monty)).replace("COUNT", "1" if is_monty else "2")
    command = [sys.executable, "-c", program]
    server = await trio.to_thread.run_sync(
        lambda: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    )
    assert server.stdout is not None
    line = await trio.to_thread.run_sync(server.stdout.readline)
    pids = [int(pid) for pid in line.split()]
    assert pids
    assert all(map(lives, pids))
    server.kill()
    await trio.to_thread.run_sync(server.wait)
    server.stdout.close()
    assert await gone(pids, within_s=3)


@pytest.mark.slow
async def test_a_closed_sandbox_starts_nothing() -> None:
    """A call that comes too late is refused."""
    async with Sandbox(options()) as sandbox:
        assert await sandbox.run("python3", CPYTHON, {"a": 1}) == {"x": 2}
    with pytest.raises(CodeFailed, match="closed"):
        await sandbox.run("python3", CPYTHON, {"a": 1})


async def test_arguments_are_bounded(sandbox: Sandbox) -> None:
    """Too much is refused before anything is started."""
    with pytest.raises(CodeFailed, match="larger than"):
        await sandbox.run("python3", CPYTHON, {"a": "x" * (5 << 20)})
    with pytest.raises(CodeFailed, match="cannot be JSON"):
        await sandbox.run("python3", CPYTHON, {"a": object()})
    with pytest.raises(CodeFailed, match="the document is larger"):
        await Sandbox(
            SandboxOptions(
                documents=CallLimits(time_s=1, memory_bytes=1, input_bytes=1, output_bytes=1)
            )
        ).text_of(b"xx", "a.txt", None)
    assert sandbox.pids == []


@pytest.mark.slow
@linux
async def test_the_network_is_there_only_if_granted() -> None:
    """A granted one reaches a port of this machine; both in the standard library."""
    source = (
        "import socket\ndef main(port):\n"
        "    with socket.create_connection(('127.0.0.1', port), 2) as s:\n"
        "        return {'x': s.recv(5).decode()}"
    )
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, greet, listeners)
        async with Sandbox(options(network=True)) as granted:
            assert await granted.run("python3", source, {"port": port}) == {"x": "hello"}
            with pytest.raises(CodeFailed, match="not permitted"):
                await granted.run("python3", "import os\ndef main(): os.fork()", {})
        async with Sandbox(options()) as refused:
            with pytest.raises(CodeFailed, match=r"not permitted|denied"):
                await refused.run("python3", source, {"port": port})
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_packages_are_importable_only_if_listed() -> None:
    """Even where they are installed."""
    source = "def main():\n    import click\n    return {'x': click.style('a', reset=False)}"
    async with Sandbox(options(packages=("click",))) as listed:
        assert await listed.run("python3", source, {}) == {"x": "a"}
    async with Sandbox(options()) as bare:
        with pytest.raises(CodeFailed, match=r"No module named 'click' .*`packages = \['click'\]`"):
            await bare.run("python3", source, {})


@pytest.mark.slow
async def test_code_may_repair_json() -> None:
    """With the package that is there in any case; it brings no other, and its files stay out of
    reach."""
    source = "import json_repair\ndef main(a): return {'x': json_repair.loads(a)}"
    also = "import json_repair\ndef main():\n    import {}\n    return {{}}"
    spied = "import json_repair\ndef main(): return {'x': open(json_repair.__file__).read(1)}"
    async with Sandbox(options()) as sandbox:
        assert await sandbox.run("python3", source, {"a": "{'b': [1,"}) == {"x": {"b": [1]}}
        for name in ("jinja2", "msgspec", "trio", "yaml"):
            _, error = await outcome(sandbox.run("python3", also.format(name), {}))
            assert f"No module named '{name}'" in error
        if sys.prefix != sys.base_prefix:  # otherwise it lies among the standard library
            _, error = await outcome(sandbox.run("python3", spied, {}))
            assert "denied" in error or "not permitted" in error


@pytest.mark.slow
async def test_a_missing_package_is_named_with_the_setting_that_allows_it() -> None:
    """Packages by `packages`; requests, which is of no use alone, by `network` as well."""
    async with Sandbox(options()) as sandbox:
        _, error = await outcome(sandbox.run("python3", "import numpy\ndef main(): ...", {}))
        assert "`packages = ['numpy']` in [code]" in error
        _, error = await outcome(sandbox.run("python3", "import requests\ndef main(): ...", {}))
        assert "`network = true` and `packages = ['requests']` in [code]" in error


TEMPLATES = {
    "{{ a }}{{ nothing }}{{ nothing.at }}": None,
    "<{{ html }}> {{ html|e }} {{ html|tojson }}": None,
    "{% for x in items %}{{ loop.index }}{% if not loop.last %}, {% endif %}{% endfor %}\n": None,
    "{%- set n = namespace(v=1) -%} {{ n.v }} \n\n{# gone #}\n": None,
    "{{ items|join('/') }} {{ items|sum }} {{ '%.2f'|format(1.005) }} {{ a|upper|length }}": None,
    "{{ o.k }} {{ o['k'] }} {{ o.items()|list }} {{ None }} {{ true }} {{ 1 / 3 }}": None,
    "{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}": None,
    "{% raw %}{{ }}{% endraw %}": None,
    "{{ items.append(1) }}": "SecurityError",
    "{{ ''.__class__.__mro__ }}": "SecurityError",
    "{{ nothing.at.all }}": "UndefinedError",
    "{% if %}": "TemplateSyntaxError",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{{ a|nothing_like_it }}": "TemplateSyntaxError",
    "{% include 'x' %}": "TypeError",
}


@pytest.mark.slow
async def test_templates_are_the_same_here_and_in_workers(sandbox: Sandbox) -> None:
    """Text for text, error for error: which of the two renders one is nobody's concern."""
    here = InProcessJinja()
    values = {"a": "é", "html": "<b>&'", "items": [1, 2, 3], "o": {"k": [None, 1.5]}}
    compared = 0
    for source, kind in TEMPLATES.items():
        there = await told(sandbox.render(source, values))
        assert kind is None or there[1] == kind, (source, there)
        told_here = await told(rendered_here(here, source, values))
        if told_here[0] is not None:  # otherwise it is costly, and left to the worker
            assert told_here == there, source
            compared += 1
    assert compared > len(TEMPLATES) / 2


async def rendered_here(here: InProcessJinja, source: str, values: dict[str, Any]) -> str | None:
    """What `render_now` says, as something to wait for."""
    return here.render_now(source, values)


async def told(rendering: Awaitable[str | None]) -> tuple[str | None, str]:
    """The text, or the error and its type."""
    try:
        return await rendering, ""
    except CodeFailed as error:
        return error.message, error.type
