"""Slow replicas are slow, foreign jobs come and go, and probes see what they would see."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from balancer.policies import Ask, LeastRequest
from balancer.policies.loaded import R
from balancer.readings import Gauges, GpuReading
from balancer.replica import Replica
from balancer.wire.connect import Dialer
from bench.engine import Engine
from bench.engine import Sequence as Running
from bench.simulate.conditions import Conditions, Disturbance
from bench.simulate.disturbing import FOREIGN_ON_S
from bench.simulate.probing import Machine
from tests.bench.simulate.small import ENGINE, prompt, run, ttfts_s, turn, workload


class Watcher(LeastRequest):
    """Least request, which writes down the readings that it could see at each pick."""

    def __init__(self) -> None:
        super().__init__()
        self.gpus: list[list[GpuReading]] = []
        self.gauges: list[list[Gauges]] = []
        self.foreign: list[list[float]] = []

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:  # type: ignore[override]
        self.gpus.append([one.gpu for one in candidates if one.gpu is not None])
        self.gauges.append([one.gauges for one in candidates if one.gauges is not None])
        self.foreign.append([one.foreign_share for one in candidates])
        return super().pick(candidates, ask)


SLOW = Conditions(slow=(Disturbance(0, 2.0),))
FOREIGN = Conditions(foreign=(Disturbance(0, 0.5),))


def test_slow_replica_takes_so_many_times_as_long() -> None:
    """Every step; what comes before the engine is as fast as ever."""
    one = workload([turn(1, output=50)])
    usual, slow = (run(one, conditions=each).calls for each in (Conditions(), SLOW))
    spent = [calls.ended_s[0] - calls.first_s[0] for calls in (usual, slow)]
    assert spent[1] == pytest.approx(2 * spent[0], rel=0.01)
    assert ttfts_s(usual)[0] < ttfts_s(slow)[0] < 2 * ttfts_s(usual)[0]


def test_the_others_are_as_fast_as_ever() -> None:
    """Only the replica that is named is slow."""
    one = workload([turn(1, output=50, due_s=0.0)], [turn(2, output=50, due_s=0.001)])
    calls = run(one, 2, conditions=SLOW).calls
    spent = {
        replica: ended - first
        for replica, ended, first in zip(calls.replica, calls.ended_s, calls.first_s, strict=True)
    }
    assert spent[0] == pytest.approx(2 * spent[1], rel=0.01)


def test_foreign_job_slows_down_while_it_is_there() -> None:
    """At half of the GPU's time everything takes twice as long; in between all is as before."""
    times_s = (1.0, 10.0, 20.0, 30.0, 40.0)
    one = workload(*([turn(n, output=50, due_s=at)] for n, at in enumerate(times_s)))
    calls = run(one, conditions=FOREIGN).calls
    spent = [ended - first for ended, first in zip(calls.ended_s, calls.first_s, strict=True)]
    assert spent[1:] == pytest.approx([2 * spent[0]] * 2 + [spent[0]] * 2, rel=0.02)


def test_probes_see_a_foreign_job() -> None:
    """Its kernels while the engine idles, its memory always; and that is told from our load."""
    watcher = Watcher()
    sessions = [[turn(n, output=2, due_s=at)] for n, at in enumerate((4.0, 4 + FOREIGN_ON_S, 40.0))]
    run(workload(*sessions), 2, watcher, conditions=FOREIGN)
    before, during, after = watcher.gpus
    assert [gpu.foreign_memory_bytes for gpu in before] == [0, 0]
    assert during[0].utilisation == pytest.approx(0.5, abs=0.01)
    assert during[0].foreign_memory_bytes
    assert during[1].utilisation == 0
    assert after[0].utilisation == after[0].foreign_memory_bytes == 0
    assert watcher.foreign[1] == [pytest.approx(0.5, abs=0.05), 0]


def test_utilisation_is_the_share_of_time_in_steps() -> None:
    """Whatever runs in them; a slow replica looks no busier than one that works as long."""
    machine = Machine(Replica("http://sim-0", Dialer()), Engine(ENGINE))
    machine.read_gpu(0.0)
    machine.engine.submit(Running(prompt((1, 100)), 1_000, -1, None), 0.0)
    machine.engine.advance(4.0)
    machine.read_gpu(4.0)
    assert machine.replica.gpu is not None
    busy_s = machine.engine.busy_s(4.0)
    assert 3.9 < busy_s < 4.0  # but for the front end, and a stretch is counted while it runs
    assert machine.replica.gpu.utilisation == pytest.approx(busy_s / 4)
    machine.foreign = 0.5
    machine.engine.advance(1e6)
    machine.read_gpu(1e6)
    machine.read_gpu(1e6 + 1)
    assert machine.replica.gpu.utilisation == 0.5


def test_gauges_are_as_old_as_their_poll() -> None:
    """Read before the first request and every two seconds, with the engine's own numbers."""
    watcher = Watcher()
    run(workload([turn(1, output=500, due_s=0.5)], [turn(2, due_s=5.0)]), 1, watcher)
    [[first], [second]] = watcher.gauges
    assert (first.at, first.running, first.kv_tokens) == (0.0, 0, ENGINE.kv_tokens)
    assert 4.0 < second.at < 5.0
    assert (second.running, second.waiting) == (1, 0)
    assert second.kv_share is not None
    assert 0 < second.kv_share < 1
    assert second.max_running is None  # vLLM does not say
    assert first.prompt_tokens == 0
    assert second.prompt_tokens == 100


@pytest.mark.parametrize("conditions", [SLOW, FOREIGN])
def test_same_seed_same_run(conditions: Conditions) -> None:
    """Disturbances and probes come at times of their own."""
    sessions = [[turn(n, 64, 40, due_s=float(n // 4))] for n in range(40)]
    made = msgspec.structs.replace(conditions, counts="estimated")
    runs = {
        tuple(zip(calls.asked_s, calls.first_s, calls.replica, strict=True))
        for calls in (run(workload(*sessions), 3, conditions=made).calls for _ in range(4))
    }
    assert len(runs) == 1
