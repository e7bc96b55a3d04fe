"""The simulated replicas behind every gateway, started afresh for each cell: caches are empty."""

from __future__ import annotations

import http.client
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from bench.relay.children import Child, ChildFailed

__all__ = ["Books", "Replica", "books_between", "has_path", "hit_rate", "read_books", "skew"]

_ROOT: Final = Path(__file__).parents[2]
_START_S: Final = 30.0
_SCRAPE_S: Final = 10.0
_ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")
_SAMPLE: Final = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)")
_QUERIES: Final = frozenset({"vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"})
_HITS: Final = frozenset({"vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"})
_FINISHED: Final = frozenset({"vllm:request_success"})


class Replica(NamedTuple):
    """One that runs."""

    child: Child
    port: int

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"


class Books(NamedTuple):
    """What one replica has counted so far, or between two readings."""

    requests: float
    """That ended, however they did."""
    cache_queries: float
    """Prompt tokens that were looked for in the prefix cache."""
    cache_hits: float
    """Those that were found."""


def replica_command(port: int, model: str, name: str, profile: str | None) -> list[str]:
    """How one is started; `profile` None is the demo replica without an engine model."""
    engine = ["--profile", profile] if profile else []
    return [
        *(sys.executable, "-m", "server.cli", "replica"),
        *("--port", str(port), "--model", model, "--name", name),
        *engine,
    ]


def start_replicas(
    count: int,
    *,
    model: str,
    profile: str | None,
    directory: Path,
    cores: Sequence[set[int]],
    stack: ExitStack,
) -> list[Replica]:
    """Start replicas, the n-th on the n-th set of cores; `stack` ends them.

    Raises ChildFailed if one does not say its address.
    """
    children = [
        stack.enter_context(
            Child(
                f"replica-{index}",
                replica_command(0, model, f"replica-{index}", profile),
                log=directory / f"replica-{index}.log",
                cores=cores[index % len(cores)],
                environment={"PYTHONPATH": str(_ROOT)},
            )
        )
        for index in range(count)
    ]
    return [Replica(child, _port(child)) for child in children]


def _port(child: Child) -> int:
    line = child.first_line(_START_S)
    found = _ADDRESS.search(line)
    if found is None:
        raise ChildFailed(f"{child.name} gave no address: {child.tail()}")
    return int(found[1])


def read_books(replicas: Iterable[Replica]) -> list[Books]:
    """What each has counted. Raises ChildFailed if one does not tell."""
    return [parse_books(_scrape(replica)) for replica in replicas]


def _scrape(replica: Replica) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=_SCRAPE_S)
    try:
        connection.request("GET", "/metrics", headers={"connection": "close"})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise ChildFailed(f"{replica.child.name}: no /metrics: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ChildFailed(f"{replica.child.name}: /metrics answered {answer.status}")
    return text


def has_path(replica: Replica, path: str) -> bool:
    """Whether a replica takes POST requests at `path`. Raises ChildFailed if it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=_SCRAPE_S)
    try:
        connection.request("POST", path, b"{}", {"content-type": "application/json"})
        return connection.getresponse().status not in (404, 405)
    except (OSError, http.client.HTTPException) as error:
        raise ChildFailed(f"{replica.child.name}: no answer at {path}: {error}") from error
    finally:
        connection.close()


def parse_books(page: str) -> Books:
    """Sums over the samples of a metrics page, under vLLM's names, new and old."""
    sums: dict[str, float] = {}
    for line in page.splitlines():
        sample = _SAMPLE.match(line)
        if sample is not None:
            name = sample[1].removesuffix("_total")
            sums[name] = sums.get(name, 0.0) + float(sample[2])
    return Books(_sum(sums, _FINISHED), _sum(sums, _QUERIES), _sum(sums, _HITS))


def _sum(sums: Mapping[str, float], names: frozenset[str]) -> float:
    return sum(value for name, value in sums.items() if name in names)


def books_between(before: Sequence[Books], after: Sequence[Books]) -> list[Books]:
    """What each replica counted between two readings."""
    return [
        Books(*(last - first for first, last in zip(one, other, strict=True)))
        for one, other in zip(before, after, strict=True)
    ]


def hit_rate(books: Iterable[Books]) -> float | None:
    """Prompt tokens found in prefix caches over those looked for, 0 to 1; None if none were."""
    every = list(books)
    queries = sum(one.cache_queries for one in every)
    return sum(one.cache_hits for one in every) / queries if queries else None


def skew(books: Iterable[Books]) -> float | None:
    """Requests of the busiest replica over those of the average one: 1 is even, the number of
    replicas is all at one. None if there were no requests."""
    counts = [one.requests for one in books]
    return max(counts) * len(counts) / sum(counts) if any(counts) else None
