"""The replica's page in the reference says what the code says."""

from __future__ import annotations

import re

import trio.testing

from bench.engine.gpus import GPUS
from bench.engine.models import MODELS
from bench.replica import ReplicaSettings, create_app, load_profile
from bench.replica.faults import FaultChange
from tests.bench.replica.driver import call
from tests.docs.pages import ROOT, rows, section, ticked

PAGE = ROOT / "docs" / "reference" / "replica.md"


def first_cells(*headings: str) -> set[str]:
    return {name for cells in rows(section(PAGE, *headings)) for name in ticked(cells[0])}


def test_settings() -> None:
    """Every setting has a row."""
    assert first_cells("The replica", "Settings") == {*ReplicaSettings.__struct_fields__}


def test_faults() -> None:
    """Every fault has a row."""
    assert first_cells("The replica", "Faults") == {*FaultChange.__struct_fields__}


def test_parts_of_profiles() -> None:
    """All GPUs and models are listed."""
    named = {
        name
        for cells in rows(section(PAGE, "The replica", "Profiles"))
        if cells[0] in ("GPU", "model")
        for name in ticked(cells[1])
    }
    assert named == {*GPUS, *MODELS}


async def test_metrics(autojump_clock: trio.testing.MockClock) -> None:
    """Every family that is scraped stands on the page, under its old name as well."""
    listed = set(re.findall(r"vllm:\w+", section(PAGE, "The replica", "Metrics")))
    scraped = set()
    for old in (False, True):
        settings = ReplicaSettings(profile=load_profile("h100-llama-8b"), old_metric_names=old)
        page = (await call(create_app(settings), "GET", "/metrics")).body.decode()
        scraped |= set(re.findall(r"^# TYPE (vllm:\w+)", page, re.MULTILINE))
    assert listed == scraped
