"""`triolet apps`: what it prints, what it keeps, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from click.testing import CliRunner, Result

from server.cli_apps import apps
from tests.server.dify.exports import DSL, end, model, node, start, workflow, written

LLM = node("ask", "llm", model=model(), prompt_template=[{"role": "user", "text": "hi"}])


class Command:
    """`triolet apps` in a folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str, input: bytes | None = None) -> Result:
        found: Result = CliRunner().invoke(apps, arguments, input=input)
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found

    def file(self, export: Any, name: str = "app.yml") -> str:
        path = self.home / name
        path.write_bytes(export if isinstance(export, bytes) else written(export))
        return str(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path)


SMALL = workflow(start({"variable": "x"}), LLM, end("ask", "text"))


def test_import_says_what_is_missing(run: Command) -> None:
    """Exit code 1, and a line to copy; with it, exit code 0."""
    file = run.file(SMALL)
    found = run("import", file)
    assert found.exit_code == 1
    assert "the model openai:gpt-4o is not bound" in found.output
    assert "at workflow.graph.nodes[1].data.model, line 1" in found.output
    assert 'try --bind "model:openai:gpt-4o=MODEL"' in found.output
    assert "It can run once 1 thing is supplied." in found.output
    found = run("import", file, "--bind", "model:openai:gpt-4o=qwen")
    assert found.exit_code == 0
    assert found.output.startswith("Replaced Small (workflow), id ")
    assert "model   openai:gpt-4o  -> qwen" in found.output
    assert found.output.endswith("It can run.\n")


def test_bindings_are_kept_over_imports(run: Command) -> None:
    """A new version of an app keeps what it was given, unless told to forget it."""
    file = run.file(SMALL)
    assert run("import", file, "--bind", "model:*=qwen").exit_code == 0
    assert run("import", file).exit_code == 0
    assert run("import", file, "--fresh").exit_code == 1


def test_another_file_replaces_nothing_by_chance(run: Command) -> None:
    """A file of the same name from elsewhere is refused, with both dates; it gets the bindings of
    what it replaces only if told so."""
    mine = run.file(SMALL)
    (run.home / "sent").mkdir()
    theirs = run.file(SMALL | {"x": 1}, "sent/app.yml")
    assert run("import", mine, "--bind", "model:*=qwen", "--bind", "tool:t.key=k").exit_code == 0
    before = sorted((run.home / "apps").rglob("*"))
    found = run("import", theirs)
    assert found.exit_code == 2
    assert found.stderr.startswith("triolet: there is an app 'Small' (workflow), imported on 20")
    assert f"from {mine}; {theirs} of 20" in found.stderr
    assert "is another file. --replace puts it in its place" in found.stderr
    assert run("import", theirs, "--fresh").exit_code == 2
    assert run("import", "-", input=written(SMALL | {"x": 1})).exit_code == 2
    assert sorted((run.home / "apps").rglob("*")) == before
    assert "gpt-4o is not bound" in run("import", theirs, "--check").output
    found = run("import", theirs, "--replace")
    assert found.exit_code == 0
    assert found.output.splitlines()[0].endswith("; kept 2 bindings")
    found = run("import", mine, "--name", "Small", "--bind", "model:*=q")
    assert found.output.splitlines()[0].endswith("; kept 1 binding")


def test_a_new_version_of_a_file_needs_no_word(run: Command) -> None:
    """From the same place; and the same bytes from anywhere."""
    assert run("import", run.file(SMALL), "--bind", "model:*=qwen").exit_code == 0
    changed = SMALL | {"x": 1}
    found = run("import", run.file(changed))
    assert (found.exit_code, found.output.splitlines()[0][-16:]) == (0, "; kept 1 binding")
    assert run("import", "-", input=written(changed)).exit_code == 0


def test_check_keeps_nothing(run: Command) -> None:
    """It reports, and the folder is not even made."""
    found = run("import", run.file(SMALL), "--check")
    assert found.exit_code == 1
    assert found.output.startswith("Checked Small")
    assert not (run.home / "apps").exists()


@pytest.mark.parametrize(
    ("data", "part"),
    [(b"", "the file is empty"), (b"a: [", "not YAML"), (b"app: {mode: workflow}", "workflow")],
)
def test_what_is_no_app(run: Command, data: bytes, part: str) -> None:
    """Exit code 2, with words on the error's side."""
    found = run("import", run.file(data))
    assert found.exit_code == 2
    assert part in found.stderr
    assert "Traceback" not in found.output


@pytest.mark.parametrize(
    "arguments",
    [("nowhere.yml",), ("app.yml", "--bind", "x"), ("app.yml", "--bind", "env:A=@nowhere")],
)
def test_what_cannot_be_read(run: Command, arguments: tuple[str, ...]) -> None:
    """A file that is not there, a binding that is none: exit code 2."""
    run.file(SMALL)
    found = run("import", *arguments)
    assert found.exit_code == 2
    assert found.stderr.startswith("triolet: ")


def test_a_folder_that_cannot_be_used(run: Command) -> None:
    """Not to be written, or broken: exit code 2 and a line that says which, no traceback."""
    file = run.file(SMALL)
    (run.home / "taken").write_text("a file")
    found = run("import", file, "--dir", str(run.home / "taken" / "apps"))
    assert found.exit_code == 2
    assert found.output.startswith("triolet: ")
    assert run("import", file, "--dir", "home").exit_code == 1
    (bindings,) = (run.home / "home").glob("*/*/bindings.json")
    bindings.unlink()
    found = run("import", file, "--dir", "home")
    assert found.exit_code == 2
    assert "bindings.json" in found.output
    assert run("import", file, "--dir", "home", "--fresh").exit_code == 1


def test_a_graph_that_does_not_compile(run: Command) -> None:
    """It is imported, and the report says that it cannot run."""
    edges = [{"source": "start", "target": "nowhere"}]
    found = run("import", run.file(workflow(start(), edges=edges)))
    assert found.exit_code == 1
    assert "cannot: there is no node 'nowhere'" in found.output
    assert "It cannot run here: 1 thing is not supported." in found.output


def test_json(run: Command) -> None:
    """Programs get the whole report."""
    found = run("import", run.file(SMALL), "--json")
    report = json.loads(found.output)
    assert (report["is_runnable"], report["mode"]) == (False, "workflow")
    assert report["models"][0]["key"] == "model:openai:gpt-4o"
    assert report["findings"][0]["severity"] == "missing"


def test_configuration_counts(run: Command) -> None:
    """[models], [code] and [apps] of the configuration are what the report is about."""
    (run.home / "triolet.toml").write_text(
        '[models]\n"*" = "qwen"\n[code]\nenabled = true\n[apps]\ndir = "kept"\n'
    )
    export = workflow(start(), LLM, node("c", "code", code="def main(): ..."), end("ask", "text"))
    found = run("import", run.file(export), "--check")
    assert "-> qwen (configured)" in found.output
    assert "allowed" in found.output
    run("import", run.file(SMALL))
    assert (run.home / "kept").is_dir()
    (run.home / "triolet.toml").write_text(
        '[[pool]]\nmodel = "gpt-4o"\nreplicas = ["http://127.0.0.1:1"]\n'
    )
    found = run("import", run.file(SMALL), "--check")
    assert "-> gpt-4o (same name)" in found.output
    assert found.exit_code == 0


def test_bindings_file_and_values_from_files(run: Command) -> None:
    """--bind goes over --bindings; @ reads a file."""
    (run.home / "b.toml").write_text('[models]\n"*" = "qwen"\n[environment]\nKEY = "no"\n')
    (run.home / "key").write_text("s3cret\n")
    variable = {"name": "KEY", "value": "", "value_type": "secret"}
    file = run.file(SMALL | {"workflow": SMALL["workflow"] | {"environment_variables": [variable]}})
    found = run("import", file, "--bindings", "b.toml", "--bind", "env:KEY=@key")
    assert found.exit_code == 0
    assert "s3cret" not in found.output
    kept = next((run.home / "apps").rglob("bindings.json"))
    assert json.loads(kept.read_bytes())["environment"] == {"KEY": "s3cret"}


def test_standard_input(run: Command) -> None:
    """- is a file, too."""
    assert run("import", "-", "--bind", "model:*=q", input=written(SMALL)).exit_code == 0


def test_list_show_remove(run: Command) -> None:
    """What is imported can be seen, and taken away."""
    assert run("list").output == "No apps.\n"
    run("import", run.file(SMALL), "--name", "Zoo")
    run("import", run.file(SMALL), "--name", "旅行")
    lines = run("list").output.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["NAME", "MODE"],
        ["Zoo", "workflow"],
        ["旅行", "workflow"],
    ]
    assert [each["name"] for each in json.loads(run("list", "--json").output)] == ["Zoo", "旅行"]
    assert "the model openai:gpt-4o is not bound" in run("show", "Zoo").output
    assert json.loads(run("show", "Zoo", "--json").output)["name"] == "Zoo"
    assert run("show", "Zoo", "--file").stdout_bytes == written(SMALL)
    assert run("remove", "Zoo").exit_code == 0
    found = run("show", "Zoo")
    assert (found.exit_code, found.stderr) == (2, "triolet: there is no app 'Zoo' in apps\n")


def test_names_cannot_write_on_the_terminal(run: Command) -> None:
    """Control characters of a file do not reach the terminal."""
    export = SMALL | {"app": {"name": "a\x1b]0;b\x07c\rd\ne", "mode": "workflow"}}
    for found in (run("import", run.file(export)), run("list")):
        assert "a ]0;b c d e" in found.output


def test_schema(run: Command) -> None:
    """The schema is one, and has something against what is no app."""
    schema = jsonschema_rs.validator_for(run("schema").output)
    assert schema.is_valid(SMALL)
    assert not schema.is_valid({"app": {"mode": "dream"}})
    assert not schema.is_valid(workflow(node("ask", "llm", model={})))


@pytest.mark.slow
def test_a_real_export(run: Command) -> None:
    """A real file, with its needs met on the command line, is imported as one that can run."""
    file = DSL / "svcvit__Awesome-Dify-Workflow" / "DSL__translation_workflow.yml"
    assert run("import", str(file), "--bind", "model:*=qwen").exit_code == 0
