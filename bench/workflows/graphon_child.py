"""Runs workflows with graphon, in an interpreter that has it; imports nothing of this project.

Speaks the protocol of `bench.workflows.contender`. Each run loads its export by graphon's one
public way, which reads it and builds a graph that holds the state of its run. With the argument
`read-once` what was read is kept, by a way around graphon that a product could take; the graph is
built for each run all the same. Concurrent runs are threads, which is how graphon is embedded.
"""

from __future__ import annotations

import functools
import importlib
import json
import platform
import sys
import threading
import time
from collections import deque
from importlib.metadata import version
from typing import Any

from graphon import dsl  # type: ignore[import-not-found, unused-ignore]

_importer: Any = importlib.import_module("graphon.dsl.importer")
_read = _importer.inspect
_READ_ONCE = "read-once" in sys.argv[1:]
if _READ_ONCE:
    _importer.inspect = functools.lru_cache(maxsize=64)(_read)


def _once(command: dict[str, Any]) -> dict[str, Any]:
    engine = dsl.loads(command["export"], start_inputs=command["inputs"])
    [last] = deque(engine.run(), maxlen=1)
    outputs = getattr(last, "outputs", None)
    if not isinstance(outputs, dict):
        raise RuntimeError(f"graphon's run ended with {last!r}"[:500])
    return outputs


def _run(command: dict[str, Any]) -> dict[str, Any]:
    began_s = time.perf_counter()
    end_s = began_s + command["seconds"]
    lock = threading.Lock()
    found: dict[str, Any] = {"runs": 0, "outputs": {}}
    failures: list[Exception] = []

    def keep_running() -> None:
        try:
            while time.perf_counter() < end_s and not failures:
                outputs = _once(command)
                with lock:
                    found["runs"] += 1
                    found["outputs"] = outputs
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=keep_running) for _ in range(command["concurrency"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return {**found, "wall_s": time.perf_counter() - began_s}


def _compile(command: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds to read an export, and to build a graph of what was read (`read-once`)."""
    began_s = time.process_time()
    for _ in range(command["times"]):
        _read(command["export"])
    read_s = time.process_time() - began_s
    dsl.loads(command["export"], start_inputs=command["inputs"])
    began_s = time.process_time()
    for _ in range(command["times"]):
        dsl.loads(command["export"], start_inputs=command["inputs"])
    built_s = time.process_time() - began_s
    return {"read_s": read_s / command["times"], "compile_s": built_s / command["times"]}


_DO = {"run": _run, "compile": _compile}


def _main() -> None:
    python = platform.python_version()
    how = ", each export read once" if _READ_ONCE else ""
    ready = f"graphon {version('graphon')}, Python {python}{how}"
    print(json.dumps({"ready": ready}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = _DO[command["do"]](command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    _main()
