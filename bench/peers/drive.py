"""Driving the load at one target with the load client of `triolet bench`."""

from __future__ import annotations

from functools import partial
from typing import Final, Protocol

import trio

from bench.load.plan import Plan
from bench.load.result import RunResult
from bench.load.runner import run, stop_on_interrupt
from bench.workload.model import Workload
from bench.workload.text import render

__all__ = ["Drive", "Interrupted", "drive"]

_WARMUP_SALT: Final = 0x3F84D5B5B5470917


class Interrupted(Exception):
    """Ctrl-C while a target was measured: half a measurement is none."""


class Drive(Protocol):
    """Sends the load of a plan and says what came of it."""

    def __call__(self, plan: Plan, workload: Workload, *, warmup: bool) -> RunResult: ...


def drive(plan: Plan, workload: Workload, *, warmup: bool) -> RunResult:
    """Run the plan in this process. Raises Interrupted on Ctrl-C.

    A warm-up has prompts of the same lengths in other words, so that gateways are warm and prefix
    caches hold nothing of what is measured afterwards.
    """
    result = trio.run(partial(_run, plan, workload, warmup=warmup))
    if result.was_cancelled:
        raise Interrupted
    return result


async def _run(plan: Plan, workload: Workload, *, warmup: bool) -> RunResult:
    async with stop_on_interrupt() as stop:
        words = _other_words if warmup else render
        return await run(plan, workload, render=words, stop=stop)


def _other_words(key: int, tokens: int) -> str:
    return render(key ^ _WARMUP_SALT, tokens)
