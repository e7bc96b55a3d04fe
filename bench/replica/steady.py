"""The demo's pace: the same for every answer, however many there are."""

from __future__ import annotations

import math

import trio

from bench.replica.blocks import BLOCK_TOKENS
from bench.replica.core import CoreLoad, Job
from bench.replica.stats import EngineStats, FinishReason, Times

__all__ = ["SteadyCore", "SteadyRun"]


class SteadyCore:
    """First token after `ttft_s` (0 or more), then `tokens_per_s` (above 0, may be infinite).

    Nothing waits and nothing is cached. Raises ValueError for a pace that cannot be.
    """

    def __init__(self, ttft_s: float, tokens_per_s: float, kv_tokens: int) -> None:
        if not 0 <= ttft_s < math.inf or not tokens_per_s > 0:
            raise ValueError(f"no pace has ttft_s={ttft_s!r} and tokens_per_s={tokens_per_s!r}")
        self.ttft_s = ttft_s
        self.tokens_per_s = tokens_per_s
        self.stats = EngineStats()
        self.running: set[SteadyRun] = set()
        self._kv_blocks = kv_tokens // BLOCK_TOKENS
        self._looked_up = 0

    def begin(self, job: Job) -> SteadyRun:
        """Start a job."""
        self._looked_up += job.prompt_tokens
        run = SteadyRun(self, job)
        self.running.add(run)
        return run

    def load(self) -> CoreLoad:
        """What runs now."""
        used = sum(-(-run.held_tokens // BLOCK_TOKENS) for run in self.running)
        return CoreLoad(
            running=len(self.running),
            waiting=0,
            kv_usage=min(1.0, used / self._kv_blocks),
            kv_blocks=self._kv_blocks,
            cache_queries=self._looked_up,
            cache_hits=0,
            preemptions=0,
        )


class SteadyRun:
    """One job at the steady pace."""

    __slots__ = ("_begun_s", "_core", "_first_s", "_job", "_last_s", "_over", "made")

    cached_tokens = None

    def __init__(self, core: SteadyCore, job: Job) -> None:
        self._core = core
        self._job = job
        self._begun_s = self._last_s = trio.current_time()
        self._first_s: float | None = None
        self._over = False
        self.made = 0

    @property
    def held_tokens(self) -> int:
        """Tokens whose keys and values an engine would hold for it."""
        return self._job.prompt_tokens + self.made

    def due_s(self, token: int) -> float:
        """When token number `token` is due (0 is the first)."""
        # From the first token's time and never from the last wake-up, so lateness does not add up.
        return self._begun_s + self._core.ttft_s + token / self._core.tokens_per_s

    async def wait(self, tokens: int) -> int:
        """Until exactly so many are made."""
        while self.made < tokens:
            # A checkpoint even when late, so that a fast pace leaves room for other tasks.
            await trio.sleep_until(self.due_s(self.made))
            self._make_token(trio.current_time())
        return self.made

    def leave(self) -> None:
        """An abort, unless it is over."""
        if not self._over:
            self._end(FinishReason.ABORT, trio.current_time())

    def _make_token(self, now_s: float) -> None:
        stats, job = self._core.stats, self._job
        self.made += 1
        stats.generation_tokens += job.generates
        if self.made == 1:
            self._first_s = now_s
            stats.first_token(job.prompt_tokens, now_s - self._begun_s)
        else:
            stats.itl_s.observe(now_s - self._last_s)
        self._last_s = now_s
        if self.made == job.tokens:
            self._end(job.reason, now_s)

    def _end(self, reason: FinishReason, now_s: float) -> None:
        self._over = True
        self._core.running.discard(self)
        begun_s = self._begun_s
        times = Times(begun_s, begun_s, begun_s, self._first_s, now_s)
        self._core.stats.ended(reason, times, self.made)
