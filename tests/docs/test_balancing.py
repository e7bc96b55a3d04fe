"""The pages on balancing and the code say the same: admin API, states, headers, faults, tiers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

import trio

from balancer.admission import BATCH
from balancer.decisions import Decision, Placement
from balancer.faults import Fault
from balancer.policies import Candidate, Explanation, LeastRequest, PolicyName
from balancer.pool import Pool
from balancer.probes.discovery import USUAL_PORTS
from balancer.probes.gpu_sample import XID_FAULTS
from balancer.prompt import SESSION_HEADERS
from balancer.readings import Gauges, GpuReading
from balancer.replica import Replica, ReplicaState
from balancer.wire.connect import Dialer
from server.api.admin_views import decision_line, decision_view, pool_view, replica_view
from server.config import Config
from server.main import Triolet
from tests.docs.pages import ROOT, rows, section, ticked

REFERENCE = ROOT / "docs" / "reference"
ADMIN = REFERENCE / "admin.md"


def fields_in(*headings: str) -> list[str]:
    """The names in the first column of the tables in that section."""
    return [name for cells in rows(section(ADMIN, *headings)) for name in ticked(cells[0])]


def a_replica() -> Replica:
    """A replica of which everything is known."""
    replica = Replica("http://h:1", Dialer())
    replica.gauges = Gauges(at=0.0)
    replica.gpu = GpuReading(at=0.0)
    return replica


async def test_admin_page_has_every_path() -> None:
    """Its first table has the methods and paths that are served, and no other."""
    app = Triolet(Config()).app
    served = {
        f"{method} {path}"
        for path, route in [*app._exact.items(), *app._prefixes]
        for method in route.handlers
        if path.startswith("/admin/") and method != "HEAD"
    }
    before = ADMIN.read_text(encoding="utf-8").split("\n## ")[0]
    listed = {ticked(cells[0])[0].replace("{request_id}", "") for cells in rows(before)}
    assert listed == served


async def test_admin_page_has_every_field_of_pools() -> None:
    """Of a pool and of its tiers."""
    shown = pool_view(Pool("m", [a_replica()], LeastRequest()))
    [tier] = shown["tiers"]
    assert fields_in("Pools") == [*shown, *tier]


async def test_admin_page_has_every_field_and_state_of_replicas() -> None:
    """What is nested is named in the line of what holds it."""
    shown = replica_view(a_replica(), ["m"], trio.current_time())
    listed = fields_in("Replicas")
    assert listed[: len(shown)] == [*shown]
    assert sorted(listed[len(shown) :]) == sorted(get_args(ReplicaState))
    lines = {ticked(cells[0])[0]: ticked(cells[1]) for cells in rows(section(ADMIN, "Replicas"))}
    for name, value in shown.items():
        if isinstance(value, dict):
            assert set(value) <= set(lines[name])


def a_decision() -> Decision:
    """One with everything that it can have."""
    candidate = Candidate("http://h:1", 3, 64, (0.25,))
    explanation = Explanation("s", ("wait",), (candidate,), 1, 0.5)
    placement = Placement("http://h:1", 0.0, 64, 128, explanation)
    return Decision("id", "m", "expected_cost", "batch", (placement,), 0.5, 120, 60)


def test_admin_page_has_every_field_of_decisions() -> None:
    """Of a decision, its placements, their explanations, and the candidates in those."""
    shown: Mapping[str, Any] = decision_view(a_decision())
    [placement] = shown["placements"]
    explanation = placement["explanation"]
    [candidate] = explanation["candidates"]
    assert fields_in("A decision") == [*shown, *placement, *explanation, *candidate]
    assert fields_in("A decision")[: len(decision_line(a_decision()))] == [
        *decision_line(a_decision())
    ]
    assert "first nine fields" in section(ADMIN, "Decisions")
    assert len(decision_line(a_decision())) == 9


def test_headers_that_name_a_session_are_listed_in_their_order() -> None:
    """The first that is there counts, so the order matters."""
    names = [name.decode() for name in SESSION_HEADERS]
    lines = [ticked(cells[0]) for cells in rows(section(REFERENCE / "headers.md", "On requests"))]
    assert names in lines


def test_every_policy_and_kind_of_failure_can_be_found() -> None:
    """In the lines of `policy` and `fallback_on`."""
    page = (REFERENCE / "config.md").read_text(encoding="utf-8")
    lines = {ticked(cells[0])[0]: cells for cells in rows(page) if ticked(cells[0])}
    named = {word.strip('"') for word in ticked(lines["policy"][3])}
    assert set(get_args(PolicyName)) <= named
    for kind in (Fault.UNAVAILABLE, Fault.OVERLOADED, Fault.CONTEXT):
        assert f'"{kind.value}"' in lines["fallback_on"][2]


def test_gpus_page_lists_the_xids_that_are_faults() -> None:
    """All of them, and no other."""
    text = section(ROOT / "docs/how-to/gpus.md", "XID errors that count as a fault")
    assert [int(number) for number in re.findall(r"\d+", text)] == sorted(XID_FAULTS)


def test_engines_page_lists_the_ports_that_are_asked() -> None:
    """Where engines are looked for."""
    lines = rows(section(ROOT / "docs/how-to/connect-engines.md", "Let it be found"))
    assert {cells[0]: int(cells[1]) for cells in lines} == USUAL_PORTS


def test_example_shows_the_batch_tier_as_it_is() -> None:
    """The values that `batch` has when a pool has no `tiers`."""
    text = (ROOT / "triolet.example.toml").read_text(encoding="utf-8")
    [shown] = re.findall(r'name = "batch", (.*?) }', text.replace("\n#", ""), re.DOTALL)
    pairs = re.findall(r"(\w+) = ([\d.]+)", shown)
    assert len(pairs) == 6
    assert {name: float(value) for name, value in pairs} == {
        name: float(getattr(BATCH, name)) for name, _ in pairs
    }
