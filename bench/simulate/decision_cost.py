"""What one placement costs: CPU for each, and memory, by the number of replicas.

The balancer's own pool, index and policy as in a simulation, but nothing behind the replicas: what
is leased is answered and released a fixed number of requests later.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import click
import msgspec
import trio

from balancer.lease import Lease
from balancer.policies import BLOCK_TOKENS, Outcome, Policy
from balancer.pool import Pool
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from bench.engine import Engine, JumpClock, find_profile
from bench.relay.procstat import peak_rss_bytes
from bench.report.statistics import Summary, summarize
from bench.simulate.ask import TurnAsk
from bench.simulate.cell import POLICY_NAMES, made_policy
from bench.simulate.command import names_of
from bench.simulate.counts import EstimatedCounts
from bench.simulate.play import replica_name, sized_index
from bench.simulate.probing import Machine
from bench.workload.named import WORKLOADS, WorkloadOptions

__all__ = ["Cost", "decision_cost_command", "measure"]

_PROFILE: Final = "h100-llama-8b"
_STEP_S: Final = 0.01


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured at one number of replicas."""

    replicas: int
    policy: str
    leases: int
    lease_s: Summary
    """Match, pick, book and insert; CPU seconds."""
    settle_s: Summary
    """First event and release."""
    prompt_tokens: float
    """Mean."""
    peak_bytes: int
    """The most resident memory of the whole process, the interpreter and the prompts in it."""
    before_bytes: int
    """The same before there was a replica."""


def measure(
    replicas: int, policy: str, workload: str, leases: int, in_flight: int, seed: int = 1
) -> Cost:
    """Place `leases` prompts of `workload` on so many replicas, `in_flight` at a time on each."""
    before = peak_rss_bytes(os.getpid())
    return trio.run(
        _measure, replicas, policy, workload, leases, in_flight, seed, before, clock=JumpClock()
    )


async def _measure(
    replicas: int, policy: str, workload: str, leases: int, in_flight: int, seed: int, before: int
) -> Cost:
    profile = find_profile(_PROFILE)
    pool = _pool(replicas, made_policy(policy, [profile] * replicas, seed))
    open_leases: deque[tuple[Lease, TurnAsk]] = deque()
    lease_s, settle_s, tokens = list[float](), list[float](), 0
    for ask in _asks(workload, replicas, leases, seed):
        await trio.sleep(_STEP_S / replicas)  # virtual; the policy's clock goes on
        if len(open_leases) >= replicas * in_flight:
            settle_s.append(_settle(*open_leases.popleft()))
        if pool.policy.reads_prompt:
            ask.blocks(BLOCK_TOKENS)  # reading a prompt is measured elsewhere
        began_s = time.thread_time()
        lease = pool.lease_nowait((), ask)
        lease_s.append(time.thread_time() - began_s)
        assert lease is not None
        open_leases.append((lease, ask))
        tokens += ask.prompt_tokens
    for open_lease in open_leases:
        settle_s.append(_settle(*open_lease))
    leased, settled = summarize(lease_s), summarize(settle_s)
    assert leased is not None
    assert settled is not None
    return Cost(
        replicas=replicas,
        policy=policy,
        leases=len(lease_s),
        lease_s=leased,
        settle_s=settled,
        prompt_tokens=tokens / len(lease_s),
        peak_bytes=peak_rss_bytes(os.getpid()),
        before_bytes=before,
    )


def _pool(count: int, policy: Policy) -> Pool:
    engine = Engine(find_profile(_PROFILE))
    replicas = [Replica(replica_name(number), Dialer()) for number in range(count)]
    for replica in replicas:
        machine = Machine(replica, engine)
        machine.read_gauges(trio.current_time())
        machine.read_gpu(trio.current_time())
    prefixes = sized_index(replicas) if policy.reads_prompt else None
    return Pool("simulated", replicas, policy, prefixes=prefixes)


def _asks(workload: str, replicas: int, count: int, seed: int) -> Iterator[TurnAsk]:
    """Prompts of as many sessions at a time as the replicas would have, again and again."""
    seen = EstimatedCounts(seed)
    options = WorkloadOptions(replicas=replicas, seed=seed)
    given = 0
    while given < count:
        for session in WORKLOADS[workload](options).sessions:
            for turn in session.turns:
                yield TurnAsk(seen(turn.prompt), None, str(session.id))
                given += 1
                if given == count:
                    return


def _settle(lease: Lease, ask: TurnAsk) -> float:
    lease.outcome = Outcome(
        answered=True,
        ttft_s=0.05,
        itl_s=0.01,
        prompt_tokens=ask.prompt_tokens,
        cached_tokens=ask.matches.get(lease.replica.name, 0),
        output_tokens=200,
    )
    began_s = time.thread_time()
    lease.answered()
    lease.release()
    return time.thread_time() - began_s


@click.command("decision-cost")
@click.option(
    "--replicas",
    default="4,16,100,1000",
    show_default=True,
    metavar="NUMBERS",
    help="Separated by commas; each in a process of its own.",
)
@click.option(
    "--policy", "policies", default="expected_cost", show_default=True, metavar="NAMES",
    help="Separated by commas.",
)  # fmt: skip
@click.option(
    "--workload",
    type=click.Choice(list(WORKLOADS)),
    default="agent",
    show_default=True,
    metavar="NAME",
    help="Whose prompts are placed.",
)
@click.option("--requests", type=click.IntRange(min=100), default=20_000, show_default=True)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Requests at once on each replica.",
)
def decision_cost_command(
    replicas: str, policies: str, workload: str, requests: int, in_flight: int
) -> None:
    """Measure what one placement costs, in CPU time and memory, by the number of replicas."""
    names = names_of(policies, POLICY_NAMES, "policy")
    click.echo(
        f"{'policy':24}{'replicas':>9}{'lease p50 us':>14}{'p99':>8}{'settle p50 us':>15}{'p99':>8}"
        f"{'tokens':>8}{'memory MB':>11}{'of it before':>14}"
    )
    for policy in names:
        for count in _numbers(replicas):
            cost = _in_a_process(count, policy, workload, requests, in_flight)
            click.echo(_line(cost))


def _in_a_process(*arguments: object) -> Cost:
    # Memory of one must not be counted for the next.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        return worker.submit(measure, *arguments).result()  # type: ignore[arg-type]


def _numbers(text: str) -> Sequence[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 100_000 for part in parts):
        raise click.UsageError(f"--replicas {text!r}: expected numbers from 1 to 100000")
    return [int(part) for part in parts]


def _line(cost: Cost) -> str:
    return (
        f"{cost.policy:24}{cost.replicas:9,}"
        f"{1e6 * cost.lease_s.p50:14,.0f}{1e6 * cost.lease_s.p99:8,.0f}"
        f"{1e6 * cost.settle_s.p50:15,.0f}{1e6 * cost.settle_s.p99:8,.0f}"
        f"{cost.prompt_tokens:8,.0f}{cost.peak_bytes / 1e6:11,.0f}{cost.before_bytes / 1e6:14,.0f}"
    )
