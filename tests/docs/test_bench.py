"""The pages on benchmarks and the code say the same: options, metrics, files, names, warnings."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import bench.__main__
from bench.engine.profile import Profile
from bench.load.record import Outcome, Record
from bench.locust.settings import Settings, read_settings
from bench.peers.registry import PEERS
from bench.peers.report import COLUMNS as PEER_COLUMNS
from bench.peers.workload import workload_names
from bench.report.aiperf_files import aiperf_json
from bench.report.genai_perf_files import genai_perf_json
from bench.report.measures import MEASURES
from bench.report.metrics import analyse
from bench.report.statistics import STATISTICS
from bench.report.sweep import sweep_rows
from bench.report.write import write_reports
from bench.simulate.cell import LIMITS, POLICY_NAMES
from bench.validate.errors import METRICS as VALIDATED
from bench.validate.errors import compare
from bench.validate.recording import Served
from bench.workload.data import BUNDLED
from bench.workload.input_file import input_file
from bench.workload.named import ABOUT
from bench.workload.traces.detect import READERS
from tests.bench.report.samples import failed, run_of, streamed
from tests.docs.pages import ROOT, code_blocks, rows, section, ticked

COMMANDS_PAGE = ROOT / "docs" / "reference" / "commands.md"
PAGE = ROOT / "docs" / "reference" / "benchmark.md"
HOW_TO = [ROOT / "docs" / "how-to" / f"{name}.md" for name in (
    "benchmark", "calibrate-a-replica", "compare-policies",
)]  # fmt: skip
NAMES = sorted(bench.__main__._COMMANDS)


def command(name: str) -> click.Command:
    """The command as `triolet bench` finds it; fails if its module is not there."""
    module, _, attribute = bench.__main__._COMMANDS[name].partition(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


def options(name: str) -> Iterator[click.Option]:
    """Its options, without --help."""
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            yield parameter


def first_cells(*headings: str) -> set[str]:
    """What stands in backticks in the first cells of a section's tables."""
    return {name for cells in rows(section(PAGE, *headings)) for name in ticked(cells[0])}


# --- commands


def test_commands_page_has_every_command() -> None:
    """Each command of `triolet bench` has a section, each such section a command."""
    text = COMMANDS_PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## `triolet bench ([\w-]+)`$", text, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_commands_page_has_every_option(name: str) -> None:
    """A command's tables list its options with every spelling, all of them and no other."""
    listed: list[str] = []
    for cells in rows(section(COMMANDS_PAGE, f"`triolet bench {name}`")):
        listed += [text.split()[0] for text in ticked(cells[0]) if text.startswith("-")]
    known = [spelt for one in options(name) for spelt in (*one.opts, *one.secondary_opts)]
    assert sorted(listed) == sorted(known)


@pytest.mark.parametrize("name", NAMES)
def test_commands_page_has_every_default(name: str) -> None:
    """What an option does by default stands beside it, where `--help` says it."""
    shown = {}
    for cells in rows(section(COMMANDS_PAGE, f"`triolet bench {name}`")):
        for text in ticked(cells[0]):
            shown[text.split()[0]] = cells[1].replace("`", "")
    wrong = {
        one.opts[-1]: (shown[one.opts[-1]], wanted)
        for one in options(name)
        if (wanted := _default(one)) is not None and shown[one.opts[-1]] not in wanted
    }
    assert wrong == {}


def _default(option: click.Option) -> tuple[str, ...] | None:
    """The ways to write it; None where `--help` says nothing that could be compared."""
    told = re.search(r"\[default: ([\d.]+|poisson|/\w+)\]", option.help or "")
    if told:
        return (told[1],)
    if option.required:
        return ("required",)
    if option.envvar:
        return (str(option.envvar),)
    if option.is_flag:
        return ("on",) if option.default is True else ("off",)
    if isinstance(option.show_default, str):
        return (option.show_default,)
    if option.show_default is not True or option.default in (None, ""):
        return None
    if isinstance(option.default, tuple):
        return (", ".join(option.default),)
    if isinstance(option.default, float):
        return (f"{option.default:g}",)
    # A list of all there is may be called that.
    return (str(option.default), *(("all",) if str(option.default).count(",") > 4 else ()))


def test_environment_variables_are_listed() -> None:
    """Each variable that an option or the Locust file reads is in the tables, with its default."""
    of_options = {str(one.envvar) for name in NAMES for one in options(name) if one.envvar}
    table = {
        ticked(cells[0])[0]: cells[1].strip("`") for cells in rows(section(PAGE, "Environment"))
    }
    of_locust = {name: default for name, default in table.items() if "LOCUST" in name}
    assert set(table) - set(of_locust) == of_options
    assert {f"TRIOLET_LOCUST_{field.upper()}" for field in Settings.__dataclass_fields__} == set(
        of_locust
    )
    given = {name: value for name, value in of_locust.items() if value != "none"}
    assert read_settings(given) == Settings()


# --- commands shown


def _shown_commands() -> Iterator[tuple[str, list[str]]]:
    """Each `scripts/bench …` of the how-tos, split as a shell does."""
    for page in HOW_TO:
        for block in code_blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.replace("$n", "1").strip().rstrip(";"), comments=True)
                if words and words[0] == "scripts/bench":
                    yield page.name, words[1:]


def test_commands_are_shown() -> None:
    """The test below has something to look at: each page, and every main command."""
    found = list(_shown_commands())
    assert {page for page, _ in found} == {page.name for page in HOW_TO}
    assert {"load", "compare", "calibrate", "simulate", "peers", "clients"} <= {
        words[0] for _, words in found
    }


@pytest.mark.parametrize(("page", "words"), list(_shown_commands()))
def test_commands_shown_can_be_run(
    page: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command line of a how-to names a command and options that it has, with such values."""
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.endswith(("jsonl", "json")):
            (tmp_path / word).parent.mkdir(exist_ok=True)
            (tmp_path / word).touch()
    assert words[0] in NAMES, f"{page}: {words[0]}"
    if "--help" in words:
        return
    try:
        command(words[0]).make_context(words[0], words[1:])
    except click.UsageError as error:
        pytest.fail(f"{page}: {shlex.join(words)}: {error.format_message()}")


# --- metrics


def test_every_metric_is_defined() -> None:
    """The table has what is measured of a request, with its unit, and nothing else."""
    table = [cells for cells in rows(section(PAGE, "Metrics")) if len(cells) == 3]
    units = {name: cells[1] for cells in table for name in ticked(cells[0])}
    assert {name: units[name] for name in MEASURES} == {
        name: measure.unit for name, measure in MEASURES.items()
    }
    assert set(STATISTICS) <= set(ticked(section(PAGE, "Metrics")))


def _everything() -> list[Record]:
    scheduled: dict[str, Any] = {
        "scheduled_s": 0.0,
        "queue_s": 0.001,
        "reasoning_tokens": 2,
        "cached_tokens": 16,
    }
    return [streamed(0.1, **scheduled), streamed(0.2, **scheduled), failed(0.3)]


def test_every_metric_of_the_files_is_defined() -> None:
    """What AIPerf's and GenAI-Perf's files hold is on the page by the name it has there."""
    analysis = analyse(run_of(*_everything(), goodput={"time_to_first_token": 200.0}))
    in_files = {
        name
        for content in (aiperf_json(analysis), genai_perf_json(analysis))
        for name, value in content.items()
        if isinstance(value, dict) and "unit" in value
    }
    assert {"goodput", "request_goodput", "error_request_count", "effective_latency"} <= in_files
    assert in_files - set(ticked(PAGE.read_text(encoding="utf-8"))) == set()


def test_outcomes_and_errors_are_explained() -> None:
    """Each outcome and each kind of error that the client sets is in its table, and no other."""
    kinds = {
        text
        for path in (ROOT / "bench" / "load").glob("*.py")
        for text in _kinds_in(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {"connect", "cut", "in_band"} <= kinds
    listed = first_cells("Outcomes")
    statuses = {name for name in listed if name.startswith("http_")}
    assert statuses
    assert listed - statuses == kinds | set(get_args(Outcome))


def _kinds_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "BadAnswer":
            values = [node.args[0]]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") == "error":
            values = [node.value]
        else:
            continue
        for inner in (inner for value in values for inner in ast.walk(value)):
            text = inner.value if isinstance(inner, ast.Constant) else None
            if isinstance(text, str) and not text.startswith("http_"):
                yield text


# --- warnings

_WARNERS = (
    ("load/selfcheck.py", ("_of_lag", "_of_delay", "_of_rate")),
    ("load/runner.py", ("_own_warnings", "_scrape")),
    ("load/client.py", ("ask",)),
    ("load/command.py", ("_of_data",)),
    ("load/handover.py", ("_of_sessions",)),
    ("report/warning.py", ("_of_outcomes", "_of_tokens", "_of_goodput", "_of_probes")),
)
"""The functions that say what makes a run's figures less than they seem."""


def _warnings_said() -> Iterator[str]:
    """Their sentences, with `…` for what is filled in."""
    for name, functions in _WARNERS:
        tree = ast.parse((ROOT / "bench" / name).read_text(encoding="utf-8"))
        defined = [node for node in ast.walk(tree) if getattr(node, "name", None) in functions]
        assert len(defined) == len(functions), f"{name} has other functions now"
        for text in (text for node in defined for text in _sentences(node)):
            if " " in text.replace("…", "").strip(" :"):
                yield text


def _sentences(node: ast.AST) -> Iterator[str]:
    """Texts of several words; the docstring and the parts of a text apart from it are none."""
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        for child in ast.iter_child_nodes(node):
            yield from _sentences(child)


def test_every_warning_is_listed() -> None:
    """Each sentence that a run can be warned with has its line, and each line its sentence."""
    said = set(_warnings_said())
    assert len(said) > 15
    listed = [ticked(cells[0])[0] for cells in rows(section(PAGE, "Warnings"))]
    patterns = {text: re.compile(".*".join(map(re.escape, text.split("…")))) for text in listed}
    unexplained = {text for text in said if not any(one.search(text) for one in patterns.values())}
    assert unexplained == set()
    assert [text for text, one in patterns.items() if not any(map(one.search, said))] == []


# --- files


def test_every_file_is_listed(tmp_path: Path) -> None:
    """A run and a sweep write the files of the table, and no other."""
    run, other = run_of(*_everything()), run_of(*_everything(), load=8.0)
    written = write_reports([run], tmp_path / "run") + write_reports([run, other], tmp_path / "s")
    listed = {ticked(cells[0])[0] for cells in rows(section(PAGE, "Files"))}
    names = {name for name in listed if "." in name}
    assert {path.name for path in written} == names


def test_every_field_of_a_record_is_listed() -> None:
    """The fields of `record` in a line of the JSON lines."""
    assert set(Record.__struct_fields__) <= first_cells("Files")


def test_sweep_columns_are_listed() -> None:
    """The columns of a sweep's table."""
    heading = sweep_rows([])[0]
    assert set(heading) <= set(ticked(section(PAGE, "Files")))


# --- names


def test_every_workload_is_described() -> None:
    """The table has the workloads of `simulate` and `peers`, and no other."""
    assert first_cells("Workloads") == {*ABOUT, *workload_names()}


def test_every_policy_is_named() -> None:
    """All policies are on the page; what each does, and the limits, on those it points to."""
    assert set(POLICY_NAMES) <= set(ticked(section(PAGE, "Policies")))
    explained = (ROOT / "docs" / "design" / "policies.md").read_text(encoding="utf-8")
    assert set(POLICY_NAMES) <= set(ticked(explained))
    limits = (ROOT / "docs" / "how-to" / "compare-policies.md").read_text(encoding="utf-8")
    assert set(LIMITS) <= set(ticked(limits))


def test_every_trace_format_is_listed() -> None:
    """The formats that `--trace-format` takes."""
    assert set(READERS) <= first_cells("Prompts", "Traces")
    assert first_cells("Prompts", "Traces") <= {*READERS}


def test_profiles_are_described() -> None:
    """Every field of a profile."""
    assert first_cells("Profiles") == set(Profile.__struct_fields__)


def test_peers_are_listed() -> None:
    """Every gateway, and every column of their table."""
    text = section(PAGE, "Peers")
    assert set(PEERS) <= set(ticked(text))
    assert {column.title for column in PEER_COLUMNS} | {"errors"} == first_cells("Peers")


def test_validation_is_explained() -> None:
    """Every figure that a prediction is held against."""
    figures = compare([_SERVED], [_SERVED]).figures
    explained = first_cells("Validation")
    assert {*VALIDATED, *(figure.metric for figure in figures)} <= explained
    assert {"measured", "predicted", "error", "held out", "calibrated"} <= explained


_SERVED = Served(0, 10, 10, arrived_s=0.0, first_token_s=0.1, last_token_s=0.5)


def test_data_has_its_licence() -> None:
    """Each recorded file that comes along is in the table here and in the list beside it."""
    beside = (ROOT / "bench" / "data" / "README.md").read_text(encoding="utf-8")
    listed = {name.rstrip("/"): cells[1] for cells in rows(section(PAGE, "Data"))
              for name in ticked(cells[0])}  # fmt: skip
    assert {file.partition("/")[0] for file in BUNDLED.values()} == set(listed)
    for name, licence in listed.items():
        [line] = [row for row in beside.splitlines() if f"`{name}" in row and "| " in row][:1]
        assert licence in line


def test_example_prompts_are_read(tmp_path: Path) -> None:
    """The lines of recorded prompts that are shown can be read, all of them."""
    [block] = [text for text in code_blocks(HOW_TO[0], "") if text.startswith('{"text"')]
    file = tmp_path / "prompts.jsonl"
    file.write_text(block)
    sessions = list(input_file(file).sessions)
    assert [len(session.turns) for session in sessions] == [1, 1, 2]


def test_tables_shown_are_those_that_are_printed() -> None:
    """The headings of tables in the how-tos are the headings of the code."""
    heading = sweep_rows([])[0]
    assert re.search(r" +".join(map(re.escape, heading)), HOW_TO[0].read_text(encoding="utf-8"))
