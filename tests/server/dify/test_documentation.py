"""The examples of the documentation are apps that run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from server.cli_apps import apps
from server.dify.bindings import read_bindings
from server.dify.dsl import Offers, read_app
from server.dify.schema import app_schema
from server.dify.yaml_reading import Limits, read_yaml
from server.workflow.graph import compile_graph
from server.workflow.limits import MOST_EDGES, MOST_NODES

DOCS = Path(__file__).resolve().parents[3] / "docs"
HOW_TO = (DOCS / "how-to" / "import-a-dify-app.md").read_text(encoding="utf-8")
REFERENCE = (DOCS / "reference" / "dify-import.md").read_text(encoding="utf-8")
EXAMPLES = [
    found for found in re.findall(r"```yaml\n(.*?)```", HOW_TO, re.DOTALL) if "kind: app" in found
]


def test_there_are_examples() -> None:
    """A graph and a prompt."""
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str) -> None:
    """Each fits the schema, is read without a word, and compiles."""
    schema: Any = jsonschema_rs.validator_for(json.dumps(app_schema()))
    schema.validate(read_yaml(example).value)
    app, report = read_app(example, offers=Offers(served=frozenset({"qwen3-8b"})))
    assert report.findings == ()
    assert report.is_runnable
    compile_graph(app.graph, app.mode)


def test_bindings_file() -> None:
    """The file of bindings is one."""
    (text,) = re.findall(r"```toml\n(.*?)```", HOW_TO, re.DOTALL)
    assert read_bindings(text.encode(), "b.toml").environment == {"DEPLOY_ID": "prod-7"}


def test_limits_are_documented() -> None:
    """The numbers of the table are those that count."""
    limits = Limits()
    assert f"| nodes; edges | {MOST_NODES:,}; {MOST_EDGES:,} |" in REFERENCE
    assert f"| values in it, aliases written out | {limits.values:,} |" in REFERENCE
    assert f"inside one another | {limits.depth} |" in REFERENCE


def test_all_codes_are_documented() -> None:
    """Every code of a finding stands in the reference."""
    home = Path(__file__).resolve().parents[3] / "server" / "dify"
    sources = "".join(path.read_text(encoding="utf-8") for path in home.glob("*.py"))
    adding = r'\.add\(\s*(?:"\w+"|severity),\s*"([a-z-]+)"'
    codes = set(re.findall(adding, sources)) | {"graph"}
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in REFERENCE} == set()


@pytest.mark.parametrize("name", sorted(apps.commands))
def test_commands_page_has_every_option(name: str) -> None:
    """The section of each command lists its options, all of them and no others."""
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    section = page.partition(f"# `triolet apps {name}`\n")[2]
    section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
    assert section
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `--")]
    listed = {option for row in rows for option in re.findall(r"`(--[a-z]+)", row)}
    parameters = apps.commands[name].params
    assert listed == {opt for each in parameters for opt in each.opts if opt.startswith("--")}
