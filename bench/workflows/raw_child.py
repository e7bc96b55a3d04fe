"""The floor: the same work as plain async functions on Trio, with no engine at all.

`python -m bench.workflows.raw_child` speaks the protocol of `bench.workflows.contender`.
"""

from __future__ import annotations

import functools
import json
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

Values = dict[str, Any]


async def _chain(inputs: Values, length: int) -> Values:
    pool = {"start": {"q": inputs["q"]}}
    await trio.lowlevel.checkpoint()
    value = pool["start"]["q"]
    for number in range(1, length - 1):
        pool[f"n{number}"] = {"output": value}
        value = pool[f"n{number}"]["output"]
    return {"result": value}


async def _branch(inputs: Values) -> Values:
    side = "a" if "fro" in inputs["q"] else "b"
    pool = {"start": {"q": inputs["q"]}}
    await trio.lowlevel.checkpoint()
    value = pool["start"]["q"]
    for number in range(1, 4):
        pool[f"{side}{number}"] = {"output": value}
        value = pool[f"{side}{number}"]["output"]
    return {"result": value}


async def _templates(inputs: Values) -> Values:
    template = "{{ text | trim }}{% if text | length > 100 %}...{% endif %}"
    compiled = _environment().from_string(template)  # kept by the environment
    pool = {"start": {"q": inputs["q"]}}
    await trio.lowlevel.checkpoint()
    value = pool["start"]["q"]
    for number in range(1, 9):
        pool[f"n{number}"] = {"output": compiled.render(text=value)}
        value = pool[f"n{number}"]["output"]
    return {"result": value}


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment

    return Environment()


async def _iteration(_inputs: Values, nodes: int = 5, wait_s: float = 0.0) -> Values:
    items = list("abcdefghij")
    results: list[Any] = [None] * len(items)

    async def one_round(index: int, item: str) -> None:
        pool, value = {"it": {"item": item, "index": index}}, item
        await trio.sleep(wait_s)
        for number in range(1, nodes + 1):
            pool[f"r{number}"] = {"output": value}
            value = str(pool[f"r{number}"]["output"])
        results[index] = value

    async with trio.open_nursery() as nursery:
        for index, item in enumerate(items):
            nursery.start_soon(one_round, index, item)
    return {"answer": "\n".join(f"- {item}" for item in results)}


_RUNS: Final[dict[str, Callable[[Values], Awaitable[Values]]]] = {
    "start-end": lambda inputs: _chain(inputs, 2),
    "chain-10": lambda inputs: _chain(inputs, 10),
    "branch-10": _branch,
    "chain-50": lambda inputs: _chain(inputs, 50),
    "templates-10": _templates,
    "iteration-10x5": _iteration,
    "iteration-waits": lambda inputs: _iteration(inputs, 3, 0.001),
}


async def _run(command: Values) -> Values:
    """Runs of one case, `concurrency` at a time, for so many seconds."""
    run, outputs, runs = _RUNS[command["case"]], {}, 0
    began_s = time.perf_counter()
    end_s = began_s + command["seconds"]

    async def keep_running() -> None:
        nonlocal outputs, runs
        while time.perf_counter() < end_s:
            outputs = await run(command["inputs"])
            runs += 1

    async with trio.open_nursery() as nursery:
        for _ in range(command["concurrency"]):
            nursery.start_soon(keep_running)
    return {"runs": runs, "wall_s": time.perf_counter() - began_s, "outputs": outputs}


async def _stream(command: Values) -> Values:
    """Tokens from a list to a list, with the same waits between them."""
    taken: list[str] = []
    for _ in range(command["runs"]):
        for number in range(command["tokens"]):
            taken.append(f"token {number} ")
            await trio.lowlevel.checkpoint()
        taken.clear()
    return {"tokens": command["runs"] * command["tokens"]}


_DO: Final = {"run": _run, "stream": _stream}


async def _serve() -> None:
    print(json.dumps({"ready": f"Trio {trio.__version__}, Python {platform.python_version()}"}))
    sys.stdout.flush()
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        command = json.loads(line)
        answer = await _DO[command["do"]](command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    trio.run(_serve)
