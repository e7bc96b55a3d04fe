"""A comparison from start to end, with real processes and with stand-ins."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.load.plan import Plan
from bench.load.result import RunResult
from bench.peers import replicas, session
from bench.peers.cores import Cores, share_out
from bench.peers.drive import Interrupted
from bench.peers.gateway import Gateway, Setup
from bench.peers.session import Session, Settings
from bench.peers.target import Target, targets_of
from bench.peers.triolet import serve_command, triolet
from bench.peers.workload import workload_of
from bench.workload.model import Workload
from tests.bench.peers.made import a_record, a_result


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Cores:
    """Those of this process; it is not pinned."""
    available = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)
    return share_out(available)


def settings(directory: Path, *, repeat: int = 1, replicas: int = 2) -> Settings:
    return Settings(
        directory=directory,
        workload="documents",
        concurrency=4,
        requests=12,
        warmup=4,
        replicas=replicas,
        repeat=repeat,
        seed=0,
    )


@pytest.mark.slow
def test_direct_and_triolet_before_two_replicas(
    tmp_path: Path, cores: Cores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real replicas, a real gateway, the real load client: every figure is there."""
    plain = replicas.replica_command
    monkeypatch.setattr(
        replicas,
        "replica_command",
        lambda *args: [*plain(*args), "--ttft-s", "0.02", "--tokens-per-s", "2000"],
    )
    usual = triolet()
    gateways = {
        "triolet": replace(
            usual,
            setup=lambda place, policy: replace(
                usual.setup(place, policy), replica_path="/no/such/path"
            ),
        )
    }
    targets = targets_of("direct:round_robin,triolet:round_robin", gateways)
    results = Session(settings(tmp_path), cores, {"triolet": tmp_path}, lambda _: None).run(targets)
    assert sorted(cell.target for cell in results.cells) == ["direct", "triolet"]
    for cell in results.cells:
        assert cell.failure is None
        assert [warning for warning in cell.warnings if "/no/such/path" in warning] == (
            ["the replicas have no /no/such/path, which this policy asks: it balances without it"]
            if cell.target == "triolet"
            else []
        )
        assert (cell.sent, cell.completed, cell.errors) == (12, 12, {})
        assert sum(cell.requests_by_replica) == 12
        assert cell.figures.ttft_p50_ms is not None
        assert cell.figures.ttft_p50_ms > 10
        assert cell.figures.hit_rate is not None
        costs = (cell.figures.cpu_ms_per_request, cell.figures.peak_mb, cell.figures.ready_s)
        assert all(costs) if cell.target == "triolet" else costs == (None, None, None)


def cells_of(
    tmp_path: Path, cores: Cores, drive: Driver, targets: list[Target], *, repeat: int = 1
) -> session.Results:
    """Without replicas; homes are empty."""
    homes = {target.name: tmp_path for target in targets}
    given = settings(tmp_path, repeat=repeat, replicas=0)
    return Session(given, cores, homes, lambda _: None, drive).run(targets)


class Driver:
    """Stands for the load client: keeps what was to be sent."""

    def __init__(self, interrupt_at: int = 0) -> None:
        self.plans: list[tuple[Plan, bool]] = []
        self._interrupt_at = interrupt_at

    def __call__(self, plan: Plan, workload: Workload, *, warmup: bool) -> RunResult:
        self.plans.append((plan, warmup))
        if len(self.plans) == self._interrupt_at:
            raise Interrupted
        return a_result([a_record(start_s=0.0, ttft_s=0.1)])


@pytest.fixture
def no_address_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan needs a URL even where there are no replicas."""
    monkeypatch.setattr(session, "start_replicas", lambda *args, **kwargs: [])
    monkeypatch.setattr(
        Session,
        "_start",
        lambda *args: session._Started(None, 0.0, ("http://127.0.0.1:1",)),
    )


@pytest.mark.usefixtures("no_address_needed")
def test_warm_up_comes_first_and_is_not_counted(tmp_path: Path, cores: Cores) -> None:
    """Every target gets the same plan; `session` alone stays at one replica."""
    drive = Driver()
    results = cells_of(tmp_path, cores, drive, targets_of("direct", {}))
    assert [warmup for _, warmup in drive.plans] == [True, False, True, False]
    assert [plan.limits.requests for plan, _ in drive.plans] == [4, 12, 4, 12]
    assert {plan.url_strategy for plan, _ in drive.plans} == {"round_robin", "session"}
    assert [cell.sent for cell in results.cells] == [1, 1]


@pytest.mark.usefixtures("no_address_needed")
def test_who_answers_nothing_is_not_waited_for(tmp_path: Path, cores: Cores) -> None:
    """Without one good answer in the warm-up there is no measurement; and each phase has an end."""

    class Silent(Driver):
        def __call__(self, plan: Plan, workload: Workload, *, warmup: bool) -> RunResult:
            super().__call__(plan, workload, warmup=warmup)
            return a_result([a_record(start_s=0.0, ttft_s=0.1, error="timeout")])

    drive = Silent()
    results = cells_of(tmp_path, cores, drive, targets_of("direct:round_robin", {}), repeat=2)
    assert len(drive.plans) == 1
    assert drive.plans[0][0].limits.duration_s
    (cell,) = results.cells
    assert cell.failure == "no request of the warm-up succeeded: {'timeout': 1}"


@pytest.mark.usefixtures("no_address_needed")
def test_ctrl_c_leaves_what_was_measured(tmp_path: Path, cores: Cores) -> None:
    """The target under measurement is left out: half of it is not comparable."""
    results = cells_of(tmp_path, cores, Driver(interrupt_at=4), targets_of("direct", {}))
    assert results.interrupted
    assert len(results.cells) == 1
    assert "stopped by hand" in results.notes[-1]


@pytest.mark.slow
def test_a_gateway_that_does_not_start_is_told_and_not_tried_again(
    tmp_path: Path, cores: Cores
) -> None:
    """With what it printed."""
    code = "import sys; sys.exit('no such option')"
    broken = Gateway(
        "broken", None, ("only",), lambda place, policy: Setup([sys.executable, "-c", code]), "-"
    )
    results = cells_of(tmp_path, cores, Driver(), [Target(broken, "only")], repeat=3)
    [cell] = results.cells
    assert cell.failure is not None
    assert "no such option" in cell.failure


def test_sessions_suffice_and_are_the_same_for_a_seed() -> None:
    """No prompt is sent twice for want of sessions; another seed has other prompts."""
    made = workload_of("documents", requests=40, concurrency=4, replicas=2, seed=1)
    sessions = list(made.sessions)
    assert sum(len(one.turns) for one in sessions) >= 40
    again = workload_of("documents", requests=40, concurrency=4, replicas=2, seed=1)
    other = workload_of("documents", requests=40, concurrency=4, replicas=2, seed=2)
    assert list(again.sessions) == sessions != list(other.sessions)
    assert made.about
    with pytest.raises(ValueError, match="documents"):
        workload_of("nothing", requests=1, concurrency=1, replicas=1, seed=0)


def test_triolet_is_started_as_it_is_installed() -> None:
    """Or as the user says."""
    assert serve_command("x 'y z'") == ["x", "y z"]
    assert serve_command(None)[-1] == "serve"


@pytest.mark.parametrize("name", ["multi-turn", "mixed-fleet"])
@pytest.mark.parametrize("replicas", [1, 4])
def test_no_session_is_sent_twice(name: str, replicas: int) -> None:
    """A second time its prompts would be found in caches. Sessions are at different turns when the
    last request is sent, so there are more of them than it takes."""
    made = workload_of(name, requests=300, concurrency=24, replicas=replicas, seed=0)
    longest = max(len(session.turns) for session in made.sessions)
    turns = sum(len(session.turns) for session in made.sessions)
    assert turns >= 300 + 24 * (longest - 1)
