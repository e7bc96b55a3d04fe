"""What keeps time: the one interface of the steady pace and of the simulated engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import msgspec
import trio

from balancer.errors import ConnectionLost
from bench.replica.stats import EngineStats, FinishReason
from bench.workload.model import Prompt

__all__ = ["Core", "CoreLoad", "EngineDiedError", "Job", "Run", "running", "wait_for_all"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and an answer that is known from the start, both as tokens."""

    prompt_tokens: int
    tokens: int
    """Of the answer; 1 or more."""
    reason: FinishReason = FinishReason.STOP
    """How it ends if nobody leaves before."""
    prompt: Prompt = ()
    """The blocks that the prompt fills."""
    answer: Prompt = ()
    """The blocks that the answer fills, the first one maybe begun by the prompt."""
    generates: bool = True
    """False for an embedding: its one step makes no token."""


class EngineDiedError(ConnectionLost):
    """The simulated engine crashed, and all connections with it.

    The replica's app lets it out, so that its server resets the connection.
    """


class Run(Protocol):
    """One job under way. It is over with its last token, not when the client has read that."""

    @property
    def made(self) -> int:
        """Tokens made so far, as far as was noticed."""
        ...

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens found in the prefix cache; None if there is no such cache."""
        ...

    async def wait(self, tokens: int) -> int:
        """Until at least so many tokens (not more than the job's) are made; how many are.

        Raises EngineDiedError.
        """
        ...

    def leave(self) -> None:
        """Nobody waits any more; what is not made yet is not made at all. May be called again."""
        ...


class CoreLoad(NamedTuple):
    """A look at a core at one moment; the counts only grow."""

    running: int
    waiting: int
    kv_usage: float
    """Share of the memory for keys and values in use, 0 to 1."""
    kv_blocks: int
    cache_queries: int
    """Prompt tokens looked up in the prefix cache."""
    cache_hits: int
    preemptions: int


class Core(Protocol):
    """Runs jobs and counts what becomes of them."""

    @property
    def stats(self) -> EngineStats: ...

    def begin(self, job: Job) -> Run:
        """A request has come. Raises EngineDiedError."""
        ...

    def load(self) -> CoreLoad: ...


@contextmanager
def running(core: Core, jobs: Sequence[Job]) -> Iterator[list[Run]]:
    """Begin all `jobs`; whatever is not over at the end of the block is aborted."""
    runs: list[Run] = []
    try:
        for job in jobs:
            runs.append(core.begin(job))
        yield runs
    finally:
        for run in runs:
            run.leave()


async def wait_for_all(runs: Sequence[Run], jobs: Sequence[Job]) -> None:
    """Until every token of every job is made. Raises EngineDiedError, maybe in a group."""
    if len(runs) == 1:
        await runs[0].wait(jobs[0].tokens)
        return
    async with trio.open_nursery() as nursery:
        for run, job in zip(runs, jobs, strict=True):
            nursery.start_soon(run.wait, job.tokens)
