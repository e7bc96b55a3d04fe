"""The pretended engine: sequences in flight, each token at its time, and the books about them."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import msgspec
import trio

from bench.replica.pace import Pace
from bench.replica.stats import EngineStats
from bench.replica.stops import StopScan

KV_BLOCK_TOKENS = 16


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one sequence is to do."""

    prompt_tokens: int
    pieces: Iterator[str]
    """The tokens to come; at least `limit` of them."""
    limit: int
    """Tokens after which it ends by itself; 1 or more."""
    limit_reason: str = "length"
    """The finish reason at the limit: "length", or "stop" if the text is complete there."""
    stops: tuple[str, ...] = ()
    include_stop: bool = False


class EngineStatistics(msgspec.Struct, frozen=True):
    """A look at the engine at one moment."""

    running: int
    waiting: int
    kv_cache_usage: float
    """Share of the pretended KV cache in use, 0 to 1."""


class Engine:
    """Runs sequences at the pace it is given and counts what they do."""

    def __init__(self, pace: Pace, kv_cache_tokens: int) -> None:
        self.pace = pace
        self.stats = EngineStats()
        self.running: set[Sequence] = set()
        self.kv_blocks = kv_cache_tokens // KV_BLOCK_TOKENS

    def sequence(self, job: Job) -> Sequence:
        """A sequence that starts when it is entered, and runs until it finishes or is left."""
        return Sequence(self, job)

    def statistics(self) -> EngineStatistics:
        """Nothing waits yet: the pace does not depend on how much runs."""
        used = sum(-(-sequence.held_tokens // KV_BLOCK_TOKENS) for sequence in self.running)
        return EngineStatistics(len(self.running), 0, min(1.0, used / self.kv_blocks))


class Sequence:
    """One answer in the making. Use it as a `with` block: leaving it early is an abort.

    It stops running with its last token, not when the client has read it.
    """

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine = engine
        self._job = job
        self._scan = StopScan(job.stops, include=job.include_stop)
        self._begun_s = 0.0
        self._last_s = 0.0
        self.tokens = 0
        """Tokens made so far, those of a stop string included."""
        self.finish_reason: str | None = None
        """Set with the last token: "stop" or "length"; "abort" if it was left before."""
        self.stop_reason: str | None = None
        """The stop string that ended it, if one did."""

    @property
    def prompt_tokens(self) -> int:
        return self._job.prompt_tokens

    @property
    def held_tokens(self) -> int:
        """Tokens whose keys and values an engine would hold for it."""
        return self._job.prompt_tokens + self.tokens

    def __enter__(self) -> Self:
        self._begun_s = self._last_s = trio.current_time()
        self._timeline = self._engine.pace.begin(self._job.prompt_tokens, self._begun_s)
        self._engine.running.add(self)
        self._engine.stats.prefix_cache_queries += self._job.prompt_tokens
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.finish_reason is None:
            self._finish("abort")

    async def next_chunk(self, tokens: int) -> str:
        """Waits for up to `tokens` more tokens and returns the text they release, maybe none.

        The first token comes alone. Not to be called once `finish_reason` is set.
        """
        released = await self._next_token()
        if self.tokens == 1:
            return released
        for _ in range(tokens - 1):
            if self.finish_reason is not None:
                break
            released += await self._next_token()
        return released

    async def prefill(self) -> None:
        """Waits as long as the first token takes, makes none, and finishes: an embedding."""
        await self._until_due(0)
        self._count_prompt(trio.current_time())
        self._finish("stop")

    async def _next_token(self) -> str:
        await self._until_due(self.tokens)
        self._count_token(trio.current_time())
        released = self._scan.feed(next(self._job.pieces))
        if self._scan.found is not None:
            self.stop_reason = self._scan.found
            self._finish("stop")
        elif self.tokens == self._job.limit:
            released += self._scan.flush()
            self._finish(self._job.limit_reason)
        return released

    async def _until_due(self, token: int) -> None:
        while True:
            # A checkpoint even when late, so that a fast pace leaves room for other tasks.
            await trio.sleep_until(self._timeline.due_s(token))
            if self._timeline.due_s(token) <= trio.current_time():
                return

    def _count_prompt(self, now_s: float) -> None:
        self._engine.stats.prompt_tokens += self._job.prompt_tokens
        self._engine.stats.ttft_s.observe(now_s - self._begun_s)

    def _count_token(self, now_s: float) -> None:
        self.tokens += 1
        stats = self._engine.stats
        stats.generation_tokens += 1
        if self.tokens == 1:
            self._count_prompt(now_s)
        else:
            stats.itl_s.observe(now_s - self._last_s)
        self._last_s = now_s

    def _finish(self, reason: str) -> None:
        self.finish_reason = reason
        self._engine.running.discard(self)
        self._engine.pace.end(self._timeline)
        self._engine.stats.finished[reason] += 1
        self._engine.stats.e2e_s.observe(trio.current_time() - self._begun_s)
