"""The reference and the code say the same: metrics, commands, headers, logs, errors, paths."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import msgspec
import pytest

import balancer.errors
from balancer.catalog import Catalog
from balancer.errors import BalancerError
from server.api.call import ENDPOINTS
from server.cli import main
from server.config import Config
from server.errors import ApiError, error_body
from server.main import Triolet
from server.observe import log
from server.observe.histogram import Histogram
from server.observe.metrics import EdgeCounts, Metrics
from tests.docs.pages import ROOT, rows, section, ticked

REFERENCE = ROOT / "docs" / "reference"

# --- metrics


def _metrics() -> Metrics:
    metrics = Metrics(Catalog(), loop_busy=Histogram((0.1,)), log_dropped=lambda: 0)
    metrics.edges.append(lambda: EdgeCounts(0, 0, 0, {431: 1}))
    return metrics


async def test_metrics_page_has_every_family_and_no_other() -> None:
    """Names, types and labels in the tables are those that are scraped."""
    in_code = {}
    for family in _metrics().families():
        name = family.name + ("_total" if family.type == "counter" else "")
        in_code[name] = (family.type, tuple(getattr(family, "_labelnames", ())))
    page = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    on_page = {}
    for cells in rows(page):
        if cells[0].startswith("`triolet_"):
            labels = tuple(ticked(cells[2])) if cells[2] != "none" else ()
            on_page[ticked(cells[0])[0]] = (cells[1], labels)
    assert on_page == in_code


async def test_the_metrics_of_the_process_are_named() -> None:
    """What prometheus-client adds is listed too."""
    page = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    scraped = await _metrics().render()
    names = set(re.findall(r"^(process_\w+) ", scraped.decode(), re.MULTILINE))
    assert {name for name in ticked(page) if name.startswith("process_")} >= names


# --- commands


def _options(command: click.Command) -> dict[str, click.Option]:
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for name in (*parameter.opts, *parameter.secondary_opts):
                found[name] = parameter
    return found


def test_commands_page_has_every_command() -> None:
    """Each command has a section, each section a command."""
    text = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    on_page = re.findall(r"^## `triolet ([\w-]+)`$", text, re.MULTILINE)
    assert sorted(on_page) == sorted(main.commands)


def _all_commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield before + name, command
        if isinstance(command, click.Group):
            yield from _all_commands(command, f"{before}{name} ")


COMMANDS = dict(_all_commands(main))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_page_has_every_option(name: str) -> None:
    """A command's table lists its options, all of them, with the defaults they have."""
    options = _options(COMMANDS[name])
    listed: dict[str, list[str]] = {}
    for cells in rows(section(REFERENCE / "commands.md", f"`triolet {name}`")):
        for text in ticked(cells[0]):
            if text.startswith("-"):
                listed[text.split()[0]] = cells
    assert set(listed) == set(options)
    for option, parameter in options.items():
        if parameter.show_default:
            assert ticked(listed[option][1]) == [_shown(parameter.default)]


def _shown(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


# --- headers

_ADDED = re.compile(rb"x-[a-z0-9-]+|server-timing|retry-after|allow")


def _bytes_in(path: Path) -> Iterator[bytes]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.value


def test_headers_page_has_every_header_that_is_set() -> None:
    """Each header name in the server's source stands in one of the two tables."""
    set_in_code = {
        value.decode()
        for path in (ROOT / "server").rglob("*.py")
        for value in _bytes_in(path)
        if _ADDED.fullmatch(value)
    }
    assert {"x-request-id", "x-triolet-replica", "server-timing"} <= set_in_code
    documented = {
        name for cells in rows((REFERENCE / "headers.md").read_text()) for name in ticked(cells[0])
    }
    assert set_in_code - documented == set()


def test_headers_page_names_no_header_of_ours_that_is_not_set() -> None:
    """An `x-` header in the table of answers is one that the source knows."""
    listed = {
        name
        for cells in rows(section(REFERENCE / "headers.md", "On answers"))
        for name in ticked(cells[0])
        if name.startswith("x-")
    }
    known = {value for path in (ROOT / "server").rglob("*.py") for value in _bytes_in(path)}
    assert {name for name in listed if name.encode() not in known} == set()


# --- logs


def _line_fields() -> list[str]:
    lines = [
        value
        for value in vars(log).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    ]
    [line] = [value for value in lines if "request_id" in value.__struct_fields__]
    return list(line.__struct_fields__)


def test_logs_page_has_every_key_of_the_access_line() -> None:
    """The keys of an exchange's line, in their order."""
    table = list(rows(section(REFERENCE / "logs.md", "Exchanges, as JSON")))
    keys = [ticked(cells[0])[0] for cells in table if len(cells) == 3]
    assert keys == _line_fields()


def _outcomes_in(tree: ast.AST) -> Iterator[str]:
    """What the source says became of an exchange: `….outcome = "…"`, and what `fate` returns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Attribute) and target.attr == "outcome"
            for target in node.targets
        ):
            yield from _texts(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name == "fate":
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from _texts(inner.value)


def _kinds() -> set[str]:
    """The kinds of what can go wrong on the way to a replica."""
    errors = [value for value in vars(balancer.errors).values() if isinstance(value, type)]
    kinds = {error.kind for error in errors if issubclass(error, BalancerError)}
    phases = {f"timeout_{phase}" for phase in get_args(balancer.errors.Phase)}
    return (kinds | phases) - {"balancer", "attempt", "timeout", "connection_lost"}


def test_every_outcome_is_explained() -> None:
    """Each outcome that the source gives is in the tables of metrics or logs, or is a code."""
    in_code = {
        outcome
        for path in (ROOT / "server").rglob("*.py")
        for outcome in _outcomes_in(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {"ok", "client_gone", "aborted"} <= in_code
    tables = [
        *rows(section(REFERENCE / "metrics.md", "Model calls")),
        *rows(section(REFERENCE / "logs.md", "Exchanges, as JSON")),
    ]
    assert (in_code | _kinds()) - {name for cells in tables for name in ticked(cells[0])} == set()


# --- errors

_STATUS = re.compile(r"\b[45]\d\d\b")


def _codes_in(tree: ast.AST) -> Iterator[str]:
    """Every error code that the source gives: `code=…`, tables of codes, `_server_error(…)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _codes_of_call(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.AST):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {name.id for name in targets if isinstance(name, ast.Name)}
            if any(name == "code" or name.endswith("_CODES") for name in names):
                yield from _texts(node.value)


def _codes_of_call(node: ast.Call) -> Iterator[str]:
    for keyword in node.keywords:
        if keyword.arg == "code":
            yield from _texts(keyword.value)
    if isinstance(node.func, ast.Name) and node.func.id == "_server_error":
        yield from _texts(node.args[2])


def _texts(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def test_errors_page_has_every_code_and_no_other() -> None:
    """The table of codes lists what the server can say."""
    in_code = {
        code
        for path in (ROOT / "server").rglob("*.py")
        if "config" not in path.parts
        for code in _codes_in(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {"model_not_found", "overloaded", "bad_request", "replica_failed"} <= in_code
    table = list(rows(section(REFERENCE / "errors.md", "Codes")))
    on_page = [ticked(cells[0])[0] for cells in table]
    assert len(on_page) == len(set(on_page))
    assert set(on_page) == in_code
    assert all(_STATUS.search(cells[1]) for cells in table)


def test_errors_page_shows_the_shapes_that_are_sent() -> None:
    """The fields of OpenAI's and Anthropic's error bodies are those of the page."""
    error = ApiError(404, "no", code="model_not_found", param="model")
    openai = msgspec.json.decode(error_body(error))
    anthropic = msgspec.json.decode(error_body(error, "anthropic"))
    assert list(openai["error"]) == ["message", "type", "param", "code"]
    assert anthropic["type"] == "error"
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    assert '`{"error": {"message": "…", "type": "…", "param": …, "code": "…"}}`' in page
    assert f"404 `{anthropic['error']['type']}`" in page


# --- paths


def test_api_page_has_every_path() -> None:
    """Every path that is served is on the page, with its method; relayed ones in their table."""
    relayed = {f"POST {path}" for path in ENDPOINTS}
    on_page = {
        ticked(cells[0])[0]: cells[1]
        for cells in rows(section(REFERENCE / "api.md", "Model calls"))
    }
    assert set(on_page) == relayed
    forms = {name for name, body in on_page.items() if "multipart" in body}
    assert forms == {f"POST {path}" for path, endpoint in ENDPOINTS.items() if endpoint.form}
    health = {ticked(cells[0])[0] for cells in rows(section(REFERENCE / "api.md", "Health"))}
    assert health == {"GET /healthz", "GET /readyz", "GET /metrics"}


async def test_config_page_names_every_key() -> None:
    """Each key of each table of the configuration is on its page."""
    page = (REFERENCE / "config.md").read_text(encoding="utf-8")
    listed = {ticked(cells[0])[0] for cells in rows(page) if ticked(cells[0])}
    assert {field.name for field in msgspec.structs.fields(Config)} <= listed


async def test_nothing_else_is_served() -> None:
    """A path that is on no page is not served: the reference cannot be behind unnoticed."""
    tables = [table for table in vars(Triolet(Config()).app).values() if isinstance(table, dict)]
    served = {path for table in tables for path in table}
    assert "/metrics" in served
    pages = ((REFERENCE / name).read_text(encoding="utf-8") for name in ("api.md", "admin.md"))
    documented = {word.split()[-1] for page in pages for word in ticked(page) if word}
    assert served <= documented
