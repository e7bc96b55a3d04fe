"""The order of measuring: contenders take turns in every repetition, so that what disturbs the
machine disturbs all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from bench.workflows.cases import CASES, CHAIN_50, STREAM, WAIT, Case
from bench.workflows.contender import Contender, ContenderFailed
from bench.workflows.figures import OURS, Measured
from bench.workflows.graphon import GRAPHON, READ_ONCE

__all__ = ["Compiling", "Plan", "Results", "Streaming", "Waiting", "measure"]

_LIMIT_S: Final = 120.0
_STREAMED_RUNS: Final = 10


class Plan(NamedTuple):
    """How much is measured."""

    repeat: int
    seconds: float
    """Of each measurement; at least as many runs as run at once."""
    cases: tuple[str, ...]
    concurrency: tuple[int, ...]
    most_threads: int
    """graphon's concurrent runs, which are threads of it, several for each."""
    waiting: int
    tokens: int
    warm_s: float = 0.2
    """Of each case and contender, before it counts for the first time."""
    compiled: int = 20
    """How often an export is read and compiled."""


class Compiling(msgspec.Struct, frozen=True):
    """A 50-node export, in CPU milliseconds."""

    contender: str
    read_ms: float
    compile_ms: float


class Waiting(msgspec.Struct, frozen=True):
    """Runs that wait for a model."""

    contender: str
    runs: int
    bytes_per_run: float


class Streaming(msgspec.Struct, frozen=True):
    """Tokens of a scripted model, one read of it each."""

    contender: str
    tokens: int
    cpu_us: float
    """Per token."""


class Results(msgspec.Struct):
    """All that was measured."""

    measured: list[Measured] = []
    compiling: list[Compiling] = []
    waiting: list[Waiting] = []
    streaming: list[Streaming] = []
    notes: list[str] = []


def measure(contenders: Sequence[Contender], plan: Plan, say: Callable[[str], None]) -> Results:
    """Take all measurements. Raises ContenderFailed if ours or the floor fails; what another one
    cannot do is a note."""
    results = Results()
    _Session(list(contenders), plan, results, say).run()
    return results


class _Session:
    def __init__(
        self,
        contenders: list[Contender],
        plan: Plan,
        results: Results,
        say: Callable[[str], None],
    ) -> None:
        self._contenders = contenders
        self._plan = plan
        self._results = results
        self._say = say
        self._out: set[tuple[str, str, int]] = set()

    def run(self) -> None:
        self._compile()
        # First of all: what other runs have left free would be taken, and nothing would grow.
        self._wait()
        for number in range(self._plan.repeat):
            self._say(f"repetition {number + 1} of {self._plan.repeat}")
            for name in self._plan.cases:
                for concurrency in self._plan.concurrency:
                    self._turn(CASES[name], concurrency, first=number == 0)
            self._stream()

    def _turn(self, case: Case, concurrency: int, *, first: bool) -> None:
        for contender in self._contenders:
            threads = _is_graphon(contender) and concurrency > self._plan.most_threads
            scripted = _is_graphon(contender) and case.model_s is not None
            if threads or scripted or (contender.name, case.name, concurrency) in self._out:
                continue
            try:
                if first:
                    self._measured(contender, case, min(concurrency, 16), self._plan.warm_s)
                measured = self._measured(contender, case, concurrency, self._plan.seconds)
                self._results.measured.append(measured)
            except ContenderFailed as error:
                if not _is_graphon(contender):
                    raise
                self._results.notes.append(f"{case.name} at {concurrency}: {error}")
                self._out.add((contender.name, case.name, concurrency))

    def _measured(
        self, contender: Contender, case: Case, concurrency: int, seconds: float
    ) -> Measured:
        limit_s = _LIMIT_S + seconds
        command = {**_of(case), "concurrency": concurrency, "seconds": seconds}
        cost = contender.ask(limit_s, do="run", **command)
        _check(contender, case, cost.answer.get("outputs"))
        return Measured(
            contender=contender.name,
            case=case.name,
            concurrency=concurrency,
            runs=int(cost.answer["runs"]),
            cpu_s=cost.cpu_s,
            wall_s=float(cost.answer["wall_s"]),
        )

    def _compile(self) -> None:
        for contender in self._able(READ_ONCE, OURS):
            command = {**_of(CHAIN_50), "times": self._plan.compiled}
            answer = contender.ask(_LIMIT_S, do="compile", **command).answer
            read_ms, compile_ms = 1e3 * answer["read_s"], 1e3 * answer["compile_s"]
            self._results.compiling.append(Compiling(contender.name, read_ms, compile_ms))

    def _stream(self) -> None:
        for contender in self._able(OURS, "raw"):
            tokens = max(self._plan.tokens // _STREAMED_RUNS, 1)
            command = {**_of(STREAM), "runs": _STREAMED_RUNS, "tokens": tokens}
            cost = contender.ask(_LIMIT_S, do="stream", **command)
            count = int(cost.answer["tokens"])
            self._results.streaming.append(
                Streaming(contender.name, count, 1e6 * cost.cpu_s / count)
            )

    def _wait(self) -> None:
        """What is shared by all runs is made by the first ones, which do not count."""
        runs = self._plan.waiting
        for contender in self._able(OURS):
            contender.ask(_LIMIT_S, do="hold", **_of(WAIT), runs=runs // 10 or 1)
            before = contender.rss_bytes()
            contender.ask(_LIMIT_S, do="hold", **_of(WAIT), runs=runs)
            grown = contender.rss_bytes() - before
            contender.ask(_LIMIT_S, do="release")
            self._results.waiting.append(Waiting(contender.name, runs, grown / runs))

    def _able(self, *names: str) -> list[Contender]:
        return [one for one in self._contenders if one.name in names]


def _is_graphon(contender: Contender) -> bool:
    return contender.name in (GRAPHON, READ_ONCE)


def _of(case: Case) -> dict[str, Any]:
    found = {"case": case.name, "export": case.export, "inputs": case.inputs}
    return found if case.model_s is None else {**found, "model_s": case.model_s}


def _check(contender: Contender, case: Case, outputs: object) -> None:
    """What is fast and wrong does not count."""
    given = outputs if isinstance(outputs, dict) else {}
    found = {name: given.get(name) for name in case.expected}
    if found != case.expected:
        message = f"{contender.name} ran {case.name} to {str(outputs)[:300]}"
        raise ContenderFailed(f"{message}, expected {case.expected}")
