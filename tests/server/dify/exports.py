"""Small exports for the tests of `server.dify`, and the real ones."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

DSL = Path(__file__).resolve().parents[2] / "data" / "dsl"


class Source(msgspec.Struct, frozen=True):
    """A row of SOURCES.tsv."""

    file: str
    mode: str
    types: dict[str, int]
    capabilities: frozenset[str]

    def read(self) -> bytes:
        return (DSL / self.file).read_bytes()


def sources() -> list[Source]:
    with (DSL / "SOURCES.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        Source(
            row["file"],
            row["mode"],
            {
                name: int(count)
                for name, count in (item.split("=") for item in _split(row["node_types"]))
            },
            frozenset(_split(row["capabilities"])),
        )
        for row in rows
    ]


def _split(cell: str) -> list[str]:
    return [item for item in cell.split(";") if item]


def workflow(
    *nodes: dict[str, Any],
    edges: list[Any] | None = None,
    mode: str = "workflow",
    version: Any = "0.3.0",
    **more: Any,
) -> dict[str, Any]:
    """An export with these nodes, in a chain unless `edges` says otherwise."""
    if edges is None:
        names = [node["id"] for node in nodes]
        edges = [{"source": one, "target": next} for one, next in pairwise(names)]
    return {
        "kind": "app",
        "version": version,
        "app": {"name": "Small", "mode": mode},
        "workflow": {"graph": {"nodes": list(nodes), "edges": edges}, **more},
    }


def node(id: str, type: str, **data: Any) -> dict[str, Any]:
    return {"id": id, "data": {"type": type, "title": id, **data}}


def start(*variables: dict[str, Any]) -> dict[str, Any]:
    return node("start", "start", variables=list(variables))


def end(*selector: str) -> dict[str, Any]:
    return node("end", "end", outputs=[{"variable": "out", "value_selector": list(selector)}])


def model(name: str = "gpt-4o", provider: str = "openai", mode: str = "chat") -> dict[str, Any]:
    return {"provider": provider, "name": name, "mode": mode, "completion_params": {}}


def easy(mode: str, **config: Any) -> dict[str, Any]:
    """A chat, agent-chat or completion app."""
    return {
        "kind": "app",
        "version": "0.3.0",
        "app": {"name": "Small", "mode": mode},
        "model_config": {"model": model(), **config},
    }


def written(export: Any) -> bytes:
    """As a file: JSON is YAML."""
    return msgspec.json.encode(export)
