"""One cell: fleets by name, every policy on every workload, and the same row for the same seed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.engine import ProfileError
from bench.simulate.cell import LIMITS, POLICY_NAMES, Cell, parse_fleet, simulate, simulate_workload
from bench.simulate.figures import Row
from bench.simulate.processes import simulate_all
from bench.workload.named import WORKLOADS, WorkloadOptions
from tests.bench.simulate.small import ENGINE, turn, workload


def cell(workload: str, policy: str, *, scale: float = 0.02, seed: int = 1) -> Cell:
    return Cell(
        workload=workload,
        policy=policy,
        fleet=("h100-llama-8b",) * 4,
        options=WorkloadOptions(replicas=4, scale=scale, seed=seed),
    )


def comparable(row: Row) -> Row:
    """All but what depends on the machine."""
    return msgspec.structs.replace(row, cpu_s=0.0)


def test_fleet_is_a_name_for_each_replica() -> None:
    """Counts are 1 unless given; spaces do not matter."""
    assert parse_fleet("h100-llama-8b:2, a100-llama-8b") == (
        *("h100-llama-8b", "h100-llama-8b", "a100-llama-8b"),
    )


def test_fleet_of_a_measured_profile(tmp_path: Path) -> None:
    """A file as `calibrate` writes it, alone or beside named ones."""
    file = tmp_path / "mine.json"
    long = msgspec.structs.replace(ENGINE, kv_tokens=80_000, max_model_len=20_000)
    file.write_bytes(msgspec.json.encode(long))
    assert parse_fleet(f"{file}:2,h100-llama-8b") == (str(file), str(file), "h100-llama-8b")
    made = msgspec.structs.replace(cell("hot-prefix", "random"), fleet=(str(file), str(file)))
    assert simulate(made).requests > 0


@pytest.mark.parametrize(
    ("fleet", "named"),
    [
        ("h100-llama-8b:0", "'h100-llama-8b:0'"),
        ("h100-llama-8b:", "'h100-llama-8b:'"),
        ("h100-llama-8b:many", "'h100-llama-8b:many'"),
        ("h100-llama-8b:-1", "'h100-llama-8b:-1'"),
        ("h100-llama-8b:4,", "''"),
        ("", "''"),
        (":3", "':3'"),
        ("h100-lama-8b:4", "h100-llama-8b"),
        ("not-here.json:4", "not-here.json"),
    ],
)
def test_bad_fleet_is_named(fleet: str, named: str) -> None:
    """The message has the part that is wrong, or what it may have meant."""
    with pytest.raises(ValueError, match=named):
        parse_fleet(fleet)


def test_bad_profile_file_is_named(tmp_path: Path) -> None:
    """With the file and the field."""
    file = tmp_path / "bad.json"
    file.write_text('{"name": "x", "step_s": -1}')
    with pytest.raises(ProfileError, match=r"bad\.json"):
        parse_fleet(str(file))


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_policy_plays(name: str) -> None:
    """Each answers every request of a workload with shared prefixes, and keeps its books."""
    row = simulate(cell("agent", name))
    assert (row.policy, row.refused) == (name, 0)
    assert row.requests == 5 * round(1.5 * 4 * 150 * 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_played(name: str) -> None:
    """Each has requests, and figures for them."""
    row = simulate(cell(name, "expected_cost"))
    assert row.workload == name
    assert row.requests > 0
    assert row.ttft_s is not None
    assert row.ttft_s.count == row.requests
    assert (row.runs_s is not None) == (name == "fan-out")
    assert (len(row.tiers) > 0) == (name == "mixed-tiers")


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_has_one_figure(limit: str) -> None:
    """The one that it limits: what a better-than-real engine would reach beside it misleads."""
    row = simulate(cell("agent", limit))
    assert (row.hit_rate is None) != (row.ttft_s is None)
    assert row.itl_s is row.latency_s is None
    assert row.output_tokens_per_s is row.skew is None


def test_unknown_policy() -> None:
    """Not taken for a limit or a default."""
    with pytest.raises(KeyError):
        simulate_workload(workload([turn(1)]), [ENGINE], "best")


@pytest.mark.parametrize("name", ["fan-out", "multi-turn", "mixed-tiers"])
def test_same_seed_same_row(name: str) -> None:
    """To the last digit; another seed is other traffic."""
    rows = [comparable(simulate(cell(name, "least_request", scale=0.1))) for _ in range(3)]
    assert rows[0] == rows[1] == rows[2]
    assert comparable(simulate(cell(name, "least_request", scale=0.1, seed=2))) != rows[0]


@pytest.mark.slow
def test_another_process_gives_the_same_row() -> None:
    """Nothing depends on hashes of strings, on what ran before, or on the order of processes."""
    cells = [
        cell(name, policy)
        for name in ("fan-out", "conversation", "skewed-tenants")
        for policy in ("expected_cost", "prefix_hash", *LIMITS)
    ]
    here = [comparable(simulate(each)) for each in cells]
    assert [comparable(row) for row in simulate_all(cells, jobs=2)] == here
