"""Services out of the configuration, and what is left of them afterwards: nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

from balancer.catalog import Catalog
from server.config import (
    Config,
    KnowledgeConfig,
    PoolConfig,
    WorkflowConfig,
    WorkflowTierConfig,
)
from server.running.opening import facts_of, limits_of, open_services, slots_of
from server.running.shelf import KnowledgeShelf
from server.workflow.app import ModelRef
from server.workflow.limits import Limits
from server.workflow.services import ModelFacts, Query, ServiceFailed
from tests.balancer.relays import relay
from tests.server.running.exports import app_of, echo_workflow, end, export, node, start, variable
from tests.server.workflow.fakes import FakeRun


def test_limits_are_those_of_the_configuration() -> None:
    """Steps, time, depth and items."""
    limits = limits_of(WorkflowConfig(steps=7, time_s=8.0, depth=9, value_items=10))
    assert (limits.steps, limits.time_s, limits.depth, limits.value_items) == (7, 8.0, 9, 10)
    assert limits_of(WorkflowConfig()) == Limits()


async def test_facts_are_those_of_the_configuration() -> None:
    """Nodes are told what a pool says of its model; what it does not say is guessed."""
    pool = PoolConfig(model="m", context_tokens=4096, vision=False, audio=True, json_schema=False)
    facts = {"m": ModelFacts(context_tokens=4096, vision=False, audio=True, json_schema=False)}
    assert facts_of([pool]) == facts
    assert facts_of([PoolConfig(model="m")]) == {"m": ModelFacts()}
    async with relay([]) as r, open_services(Config(pool=(pool,)), Catalog(r.pools)) as running:
        assert running.services.models.facts(ModelRef("any", "m"), FakeRun()) == facts["m"]


@pytest.mark.parametrize(("cores", "cpu", "batch"), [(1, 1, 1), (2, 2, 1), (8, 8, 2), (16, 16, 4)])
def test_without_tiers_there_are_two(cores: int, cpu: int, batch: int) -> None:
    """`batch` has a quarter of what `interactive` has, and one at least."""
    assert slots_of(WorkflowConfig(), cores) == {
        ("interactive", "model"): 256,
        ("interactive", "io"): 256,
        ("interactive", "cpu"): cpu,
        ("batch", "model"): 64,
        ("batch", "io"): 64,
        ("batch", "cpu"): batch,
    }


def test_tiers_are_those_of_the_configuration() -> None:
    """All of them, and no others."""
    tiers = (WorkflowTierConfig(name="only", model=1, io=2),)
    assert slots_of(WorkflowConfig(tiers=tiers), 3) == {
        ("only", "model"): 1,
        ("only", "io"): 2,
        ("only", "cpu"): 3,
    }


async def test_an_app_runs_on_what_was_opened() -> None:
    """Templates too, in process."""
    text = export(
        start(variable("q")),
        node(
            "t", "template-transform", template="{{ q | upper }}",
            variables=[{"variable": "q", "value_selector": ["start", "q"]}],
        ),
        end(loud=["t", "output"]),
    )  # fmt: skip
    async with open_services(Config(), Catalog()) as running:
        result = await running.run_app(app_of(text), {"q": "hush"})
    assert result.outputs == {"loud": "HUSH"}


async def test_nothing_is_left_when_it_is_closed() -> None:
    """No task, and an error of the block comes out as it is."""
    before = trio.lowlevel.current_statistics().tasks_living

    async def fails() -> None:
        async with open_services(Config(), Catalog()) as running:
            await running.run_app(app_of(echo_workflow()), {"q": "x"})
            raise KeyError

    with pytest.raises(KeyError):
        await fails()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_uploads_are_found_in_forms_and_inputs() -> None:
    """By the id of the store that was opened."""
    text = export(start(variable("doc", "file")), end(name=["start", "doc", "name"]))
    async with open_services(Config(), Catalog()) as running:
        files = running.services.files
        kept = files.upload(b"x", name="a.txt", mime_type="text/plain")  # type: ignore[attr-defined]
        given = {"transfer_method": "local_file", "upload_file_id": kept.related_id}
        result = await running.run_app(app_of(text), {"doc": given})
    assert result.outputs == {"name": "a.txt"}


# Knowledge


def shelf_of(tmp_path: Path) -> KnowledgeShelf:
    base = tmp_path / "handbook"
    base.mkdir()
    (base / "travel.md").write_text("Trains are booked by the office.", encoding="utf-8")
    return KnowledgeShelf(str(tmp_path))


async def test_knowledge_is_read_when_it_is_first_asked(tmp_path: Path) -> None:
    """Once, however many ask at the same time."""
    shelf = shelf_of(tmp_path)
    assert shelf.bases.names == []
    found: list[int] = []

    async def ask() -> None:
        query = Query(text="trains", dataset_ids=("handbook",))
        found.append(len(await shelf.retrieve(query, FakeRun())))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert found == [1, 1, 1]


async def test_knowledge_that_is_not_there_is_a_failure_of_the_node(tmp_path: Path) -> None:
    """With the path."""
    shelf = KnowledgeShelf(str(tmp_path / "none"))
    with pytest.raises(ServiceFailed, match=r"knowledge\.dir cannot be read"):
        await shelf.retrieve(Query(text="x", dataset_ids=("b",)), FakeRun())


async def test_files_that_cannot_be_read_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are there."""
    shelf = shelf_of(tmp_path)
    (tmp_path / "handbook" / "odd.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with caplog.at_level(logging.WARNING, "triolet.knowledge"):
        passages = await shelf.retrieve(Query(text="x", dataset_ids=("handbook",)), FakeRun())
    assert passages == []
    assert "odd.txt" in caplog.text


async def test_without_a_folder_there_is_no_knowledge() -> None:
    """And nothing is read."""
    async with open_services(Config(knowledge=KnowledgeConfig()), Catalog()) as running:
        query = Query(text="x", dataset_ids=("b",))
        with pytest.raises(ServiceFailed):
            await running.services.knowledge.retrieve(query, FakeRun())
