"""`triolet run`: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from server.cli import main
from tests.server.cli_run.replica import ScriptedReplica, serving
from tests.server.running.exports import (
    answer,
    chat,
    echo_workflow,
    end,
    export,
    llm,
    node,
    start,
    variable,
)


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def module_replica() -> Iterator[ScriptedReplica]:
    with serving() as replica:
        yield replica


@pytest.fixture
def replica(module_replica: ScriptedReplica) -> ScriptedReplica:
    module_replica.asked.clear()
    module_replica.status = 200
    return module_replica


def run(text: str, *arguments: str, stdin: str | None = None) -> Result:
    Path("app.yml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(main, ["run", "app.yml", *arguments], input=stdin)


def two_outputs() -> str:
    return export(
        start(variable("q"), variable("n", "number")), end(q=["start", "q"], n=["start", "n"])
    )


def failing() -> str:
    """A code node, where no code is allowed."""
    code = node(
        "code", "code", code_language="python3", code="def main():\n    return {'a': 1}",
        variables=[], outputs={"a": {"type": "number", "children": None}},
    )  # fmt: skip
    return export(start(), code, end(a=["code", "a"]))


def test_a_workflow_prints_its_only_text_as_it_is() -> None:
    """And nothing else on stdout."""
    result = run(echo_workflow(), "-i", "q=hello\nthere")
    assert (result.exit_code, result.stdout) == (0, "hello\nthere\n")


def test_an_app_folder_that_cannot_be_read() -> None:
    """A line that names it, no traceback."""
    record = Path("apps/0a4b9a45-5c1c-5d0e-9f8e-0a6f5ad2a7de/record.json")
    record.parent.mkdir(parents=True)
    record.write_text("broken")
    result = run(echo_workflow(), "-i", "q=x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"triolet: {record}: ")


def test_several_outputs_are_printed_as_json() -> None:
    """Each in its kind."""
    result = run(two_outputs(), "-i", "q=x", "-i", "n=5")
    assert json.loads(result.stdout) == {"q": "x", "n": 5}


def test_the_result_as_json() -> None:
    """One object with all of it."""
    result = run(echo_workflow(), "-i", "q=x", "--json")
    told = json.loads(result.stdout)
    assert (told["status"], told["outputs"], told["steps"]) == ("succeeded", {"result": "x"}, 2)


def test_every_event_as_a_line_of_json() -> None:
    """From the first to the last, and nothing else."""
    result = run(echo_workflow(), "-i", "q=x", "--events")
    names = [json.loads(line)["event"] for line in result.stdout.splitlines()]
    assert names[0] == "run_started"
    assert names[-1] == "run_finished"
    assert names.count("node_finished") == 2


def test_a_chat_streams_its_answer(replica: ScriptedReplica) -> None:
    """From the replica that is configured, under the name that [models] gives."""
    result = run(chat(), "-q", "why is it so", *replica.pool())
    assert (result.exit_code, result.stdout.strip()) == (0, "why is it so")
    assert replica.asked[0]["model"] == "scripted"
    assert replica.asked[0]["stream"] is True


def test_without_a_terminal_the_question_is_read_from_stdin(replica: ScriptedReplica) -> None:
    """All of it, as one question."""
    result = run(chat(), *replica.pool(), stdin="from afar\n")
    assert result.stdout.strip() == "from afar"


def test_a_conversation_on_a_terminal(
    replica: ScriptedReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One turn after another until the end of the input, each knowing those before it."""
    monkeypatch.setattr("server.cli_run.command.sys.stdin.isatty", lambda: True, raising=False)
    text = export(
        start(),
        llm(memory={"window": {"enabled": False}}),
        answer("{{#llm.text#}}"),
        mode="advanced-chat",
        features={"opening_statement": "Welcome."},
    )
    Path("app.yml").write_text(text, encoding="utf-8")
    runner = CliRunner()
    with runner.isolation(input="one\n\ntwo\n") as (stdout, _, _):
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        with pytest.raises(SystemExit) as ended:
            main(["run", "app.yml", *replica.pool()], standalone_mode=False)
        shown = stdout.getvalue().decode()
    assert ended.value.code == 0
    assert shown.split("\n")[0] == "Welcome."
    assert [line.strip() for line in shown.split("\n")[1:3]] == ["one", "two"]
    assert [message["content"].strip() for message in replica.asked[1]["messages"]][-3:] == [
        "one",
        "one",
        "two",
    ]


def test_the_timeline_is_drawn(replica: ScriptedReplica) -> None:
    """A row for each node run, with the first token."""
    result = run(chat(), "-q", "a b", "--graph", "run.svg", *replica.pool())
    assert result.exit_code == 0
    picture = ElementTree.parse("run.svg").getroot()
    groups = [one for one in picture.iter() if one.get("data-node-run")]
    assert len(groups) == 3
    assert any(one.get("class") == "token" for one in picture.iter())


def test_a_timeline_that_cannot_be_written_is_a_failure() -> None:
    """The run's outputs are shown all the same."""
    result = run(echo_workflow(), "-i", "q=x", "--graph", "no/such/place.svg")
    assert result.exit_code == 1
    assert result.stdout == "x\n"
    assert "no/such/place.svg: No such file" in result.stderr


def test_a_run_that_fails_says_why(replica: ScriptedReplica) -> None:
    """On stderr, and by the exit code."""
    replica.status = 400
    result = run(chat(), "-q", "x", *replica.pool())
    assert result.exit_code == 1
    assert "the run failed: " in result.stderr
    assert "scripted to fail" in result.stderr


def test_code_that_is_not_allowed_is_told_of_before_the_run() -> None:
    """With what allows it."""
    result = run(failing())
    assert result.exit_code == 1
    assert "--allow-code" in result.stderr


@pytest.mark.slow
def test_code_runs_where_it_is_allowed() -> None:
    """In its locked-down process."""
    result = run(failing(), "--allow-code", "--json")
    assert json.loads(result.stdout)["outputs"] == {"a": 1}


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("version: [", (), "app.yml"),
        ("a: 1", (), "the name and the mode of the app are missing"),
        (echo_workflow(), (), "the app needs more: --input q=TEXT"),
        (echo_workflow(), ("-i", "z=1"), "no input 'z'; it has q (paragraph)"),
        (echo_workflow(), ("-i", "q=x", "-q", "x"), "a workflow takes no --query"),
        (two_outputs(), ("-i", "q=x", "-i", "n=five"), "n in input form must be a valid number"),
        (echo_workflow(), ("--set", "drain_s=x"), "drain_s"),
        (echo_workflow(), ("--bind", "nonsense"), "must begin with one of model:"),
        (export(start(), node("x", "odd")), (), "there is no node of type 'odd'"),
        (chat(), (), "give it as --query"),
    ],
)
def test_what_cannot_run_is_refused(text: str, arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2, and one sentence on stderr."""
    result = run(text, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_an_app_that_is_not_there() -> None:
    """Neither a file nor an imported app."""
    result = CliRunner().invoke(main, ["run", "nobody"])
    assert result.exit_code == 2
    assert "there is no file 'nobody', and there is no app 'nobody'" in result.stderr


def test_an_imported_app_runs_by_its_name() -> None:
    """From the folder of apps."""
    Path("app.yml").write_text(echo_workflow(), encoding="utf-8")
    runner = CliRunner()
    assert runner.invoke(main, ["apps", "import", "app.yml", "--name", "echo"]).exit_code == 0
    result = runner.invoke(main, ["run", "echo", "-i", "q=kept"])
    assert (result.exit_code, result.stdout) == (0, "kept\n")


def test_two_ways_of_showing_exclude_one_another() -> None:
    """As a usage error."""
    assert run(echo_workflow(), "-i", "q=x", "--json", "--events").exit_code == 2


def test_a_tier_that_is_not_there_is_refused() -> None:
    """Before anything runs, with those that are."""
    result = run(echo_workflow(), "--input", "q=x", "--tier", "urgent")
    assert result.exit_code == 2
    assert "there is no tier 'urgent'; there are batch, interactive" in result.output


def test_a_question_need_not_be_valid_text(replica: ScriptedReplica) -> None:
    """What is no UTF-8 is replaced."""
    Path("app.yml").write_text(chat(), encoding="utf-8")
    arguments = ["run", "app.yml", *replica.pool()]
    result = CliRunner().invoke(main, arguments, input=b"caf\xe9")
    assert result.exit_code == 0, result.output


def test_without_a_standard_input_a_question_must_be_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process was started with it closed."""
    monkeypatch.setattr("server.cli_run.command.sys", Mock(stdin=None, exit=sys.exit))
    result = run(chat())
    assert result.exit_code == 2
    assert "a chat needs something to answer" in result.output
