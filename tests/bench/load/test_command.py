"""The command: flags to plans and workloads, contradictions, exit codes, files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bench.load import chosen as chosen_module
from bench.load import command as command_module
from bench.load.chosen import Chosen, choose
from bench.load.command import load
from bench.load.handover import command_line, report_run
from bench.load.plan import Closed, Limits, Rated, Scheduled
from bench.load.progress import Tally
from bench.load.record import Record
from bench.load.result import ClientFacts, RunResult
from bench.load.runner import run
from tests.bench.load.rig import plan

BASE = "-u host:8000 -m m "
MOONCAKE = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'


def chosen(flags: str) -> Chosen:
    """What the command would run."""
    found: list[Chosen] = []

    @click.command()
    @click.pass_context
    def catch(context: click.Context, /, **given: Any) -> None:
        found.append(choose(given))

    catch.params = load.params
    catch.main(shlex.split(BASE + flags), standalone_mode=False)
    return found[0]


def refused(flags: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        chosen(flags)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_defaults() -> None:
    """One session at a time, the data set once through, not streamed."""
    (only,) = chosen("").plans
    assert (only.loop, only.limits) == (Closed(concurrency=1), Limits())
    assert only.urls == ("http://host:8000",)
    assert not only.streaming
    assert len(list(chosen("").workload.sessions)) == 100


def test_load_flags() -> None:
    """Sweeps by lists or by --sweep, rates with their arrivals, caps, limits and their units."""
    loops = [point.loop for point in chosen("--concurrency 1,2,8").plans]
    assert loops == [Closed(concurrency=number) for number in (1, 2, 8)]
    assert [one.loop for one in chosen("--sweep concurrency=1,2,8").plans] == loops
    (rated,) = chosen(
        "--request-rate 5 --arrival-pattern gamma --burstiness 0.5 --max-concurrency 9"
    ).plans
    assert rated.loop == Rated(rate=5, arrival="gamma", smoothness=0.5)
    assert rated.max_in_flight == 9
    rates = chosen("--sweep request-rate=1,2 --arrival-pattern constant").plans
    assert [one.load for one in rates] == [1, 2]
    (limited,) = chosen("--request-count 7 --measurement-interval 2500 --num-sessions 3").plans
    assert limited.limits == Limits(requests=7, sessions=3, duration_s=2.5)
    (warm,) = chosen("--warmup-request-count 4 --benchmark-duration 3").plans
    assert (warm.warmup, warm.limits.duration_s) == (Limits(requests=4), 3)


def test_request_flags() -> None:
    """Headers, key, extra fields with JSON values, cancellation in percent, goodput."""
    (one,) = chosen(
        "-H 'X-A: b' --api-key k --extra-inputs ignore_eos:true --extra-inputs stop:end "
        """--extra-inputs '{"top_k": 4}' --request-cancellation-rate 25 --streaming """
        "--goodput 'time_to_first_token:200 inter_token_latency:30' --endpoint v2/chat"
    ).plans
    assert one.headers == (("X-A", "b"), ("authorization", "Bearer k"))
    assert one.extra_inputs == {"ignore_eos": True, "stop": "end", "top_k": 4}
    assert (one.cancellation_rate, one.path) == (0.25, "/v2/chat")
    assert one.goodput == {"time_to_first_token": 200, "inter_token_latency": 30}


def test_data_flags(tmp_path: Path) -> None:
    """Made-up sessions, recorded prompts, traces and named workloads."""
    made = chosen("--num-sessions 2 --session-turns-mean 3 --isl 50 --osl 7").workload
    sessions = list(made.sessions)
    assert [len(one.turns) for one in sessions] == [3, 3]
    assert sessions[0].turns[0].output_tokens == 7
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "Hello there"}\n' * 3)
    found = chosen(f"--input-file {prompts}")
    assert len(list(found.workload.sessions)) == 3
    assert found.plans[0].loop == Closed(concurrency=1)
    trace = tmp_path / "trace.jsonl"
    trace.write_text(MOONCAKE + MOONCAKE.replace('p": 0', 'p": 4000'))
    found = chosen(f"--trace {trace} --trace-speedup 2")
    assert found.plans[0].loop == Scheduled()
    due = [one.turns[0].due_s for one in found.workload.sessions]
    assert (due[1] or 0) - (due[0] or 0) == pytest.approx(2.0, abs=1.6)
    assert chosen(f"--trace {trace} --concurrency 3").plans[0].loop == Closed(concurrency=3)
    assert chosen("--workload multi-turn").plans[0].loop == Closed(concurrency=5)


def test_malformed_lines(tmp_path: Path) -> None:
    """Fatal, naming file and line, before the load begins; or skipped and counted."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text(MOONCAKE + "{broken\n" + MOONCAKE)
    assert "trace.jsonl:2" in refused(f"--trace {trace}")
    found = chosen(f"--trace {trace} --bad-lines skip")
    assert found.bad_lines.count == 1
    assert len(list(found.workload.sessions)) == 2


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--fixed-schedule --request-rate 1", ["--fixed-schedule", "--request-rate"]),
        ("--fixed-schedule --concurrency 1", ["--fixed-schedule", "--concurrency"]),
        ("--sweep concurrency=1,2 --concurrency 3", ["--sweep", "--concurrency"]),
        ("--measurement-interval 5 --benchmark-duration 5", ["--measurement-interval"]),
        ("--arrival-smoothness 2 --request-rate 1", ["--arrival-smoothness", "gamma"]),
        ("--arrival-pattern gamma", ["--arrival-pattern", "--request-rate"]),
        ("--probe-path /x", ["--probe-path", "--probe-request-rate"]),
        ("--trace-speedup 2", ["--trace-speedup", "--trace"]),
        ("--workload agent --isl 3", ["--workload", "--synthetic-input-tokens-mean"]),
        ("--seq-dist 1,2:100 --isl 3", ["--seq-dist", "--synthetic-input-tokens-mean"]),
        ("--request-rate 1,2 --concurrency 3,4", ["--concurrency", "--request-rate"]),
        ("--concurrency 1.5", ["1.5"]),
        ("--concurrency 0", ["--concurrency"]),
        ("--sweep nonsense", ["--sweep"]),
        ("--fixed-schedule", ["--fixed-schedule"]),
        ("--goodput time_to_first_token:9", ["time_to_first_token", "--streaming"]),
        ("--goodput nonsense", ["goodput"]),
        ("--workload nonsense", ["nonsense"]),
        ("--tokenizer /does/not/exist.json", ["exist.json"]),
        ("-H nonsense", ["--header"]),
        ("--extra-inputs nonsense", ["--extra-inputs"]),
        ("--num-prefix-prompts 3", ["prefix_prompt_length"]),
        ("-u ftp://x", ["ftp://x"]),
    ],
)
def test_refusals(flags: str, named: list[str]) -> None:
    """What contradicts itself or cannot be is refused with its names, exit code 2."""
    message = refused(flags)
    assert all(name in message for name in named), message


def test_secrets_stay_out_of_the_command_line() -> None:
    """Keys and headers are hidden, in both spellings; the rest can be pasted into a shell."""
    words = ["bench", "--api-key", "k1", "--api-key=k2", "-H", "a: k3", "-Ha: k4", "-H=a: k5"]
    shown = command_line([*words, "--goodput", "a:1 b:2"])
    assert not any(key in shown for key in ("k1", "k2", "k3", "k4", "k5"))
    assert "'a:1 b:2'" in shown


def result(*outcomes: str, cancelled: bool = False) -> RunResult:
    """A result of requests that ended so."""
    records = [
        Record(phase="profiling", session=0, turn=0, request_id="r", streamed=False, sent_s=0.0,
               ended_s=1.0, content_s=[1.0] if outcome == "ok" else [], outcome=outcome,  # type: ignore[arg-type]
               error=None if outcome == "ok" else "connect", asked_input_tokens=1)
        for outcome in outcomes
    ]  # fmt: skip
    return RunResult(
        plan=plan(), workload="w", records=records, started_at=0.0, was_cancelled=cancelled,
        turns_not_sent=2, client=ClientFacts(wall_s=2.0, cpu_s=1.0),
    )  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[RunResult]:
    """What the load is to have measured, instead of measuring."""
    results: list[RunResult] = []
    monkeypatch.setattr(command_module, "_measure", lambda *_: results)
    return results


def invoke(tmp_path: Path, flags: str = "") -> Result:
    return CliRunner().invoke(load, shlex.split(BASE + f"--artifact-dir {tmp_path} " + flags))


@pytest.mark.parametrize(
    ("results", "flags", "code"),
    [
        ([result("ok", "error")], "", 0),
        ([result("error", "error")], "", 1),
        ([result()], "", 1),
        ([result("ok", "error")], "--failed-request-threshold 0.4", 1),
        ([result("ok", "error")], "--failed-request-threshold 0.5", 0),
        ([result("ok", cancelled=True)], "", 130),
        ([result("ok"), result("error")], "", 1),
    ],
)
def test_exit_codes(
    results: list[RunResult], flags: str, code: int, tmp_path: Path, measured: list[RunResult]
) -> None:
    """0; 1 if nothing or too little succeeded; 130 when stopped. The files are there each time."""
    measured += results
    done = invoke(tmp_path, flags)
    assert done.exit_code == code, done.output
    assert (tmp_path / "profile_export.html").exists()


@pytest.mark.parametrize("where", ["choose", "_measure", "_deliver"])
def test_a_second_interrupt_has_the_same_exit_code(
    where: str, tmp_path: Path, measured: list[RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """130 wherever it hits: while flags are read, the load is driven or the report written."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    measured.append(result("ok"))
    module = chosen_module if where == "choose" else command_module
    monkeypatch.setattr(module, where, interrupted)
    assert invoke(tmp_path).exit_code == 130


@pytest.mark.parametrize("flags", ["--profile-export-prefix a/b", "--artifact-dir {}/file/x"])
def test_unwritable_report_is_found_before_the_run(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured that could not be written."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(command_module, "_measure", lambda *_: pytest.fail("was measured"))
    done = invoke(tmp_path, flags.format(tmp_path))
    assert done.exit_code == 2
    assert "the report could not be written" in done.output


def test_files_come_before_the_table(
    tmp_path: Path, measured: list[RunResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that is gone loses the table, not the report."""

    def broken(_: str) -> None:
        raise OSError(5, "Input/output error")

    measured.append(result("ok"))
    monkeypatch.setattr(click, "echo", broken)
    with pytest.raises(OSError, match="Input/output"):
        load.main(shlex.split(BASE + f"--artifact-dir {tmp_path}"), standalone_mode=False)
    assert (tmp_path / "run.json").exists()


def test_report(tmp_path: Path, measured: list[RunResult]) -> None:
    """The key is in none of the files; what the run was is."""
    measured.append(result("ok"))
    done = invoke(tmp_path, "--api-key very-secret -H 'x: very-secret' --concurrency 1")
    assert done.exit_code == 0, done.output
    assert "very-secret" not in done.output
    texts = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert texts
    assert not [text for text in texts if "very-secret" in text]
    written = json.loads((tmp_path / "run.json").read_text())
    assert "2 later turns were not sent" in json.dumps(written)


def test_nothing_is_wrong_by_itself() -> None:
    """A handed-over run keeps what the result says."""
    given = report_run(result("ok", "error"), name="n")
    assert (given.mode, given.load, given.name) == ("concurrency", 1, "n")
    assert given.client_lag is not None
    assert given.client_lag.cpu_share == 0.5


def test_no_first_token_without_a_stream(tmp_path: Path, measured: list[RunResult]) -> None:
    """Who did not ask for streams is told, beside the output, why there is no time to one."""
    measured.append(result("ok"))
    hint = "--streaming measures it"
    assert hint in invoke(tmp_path).stderr
    assert hint not in invoke(tmp_path).stdout
    assert hint not in invoke(tmp_path, "--streaming").output


def test_recorded_prompts_of_a_later_load_point(tmp_path: Path, measured: list[RunResult]) -> None:
    """Words made up differ from point to point; recorded ones may be cached, which is said."""
    measured += [result("ok"), result("ok")]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "Hello there"}\n')
    for flags, times in (("", 0), (f"--input-file {prompts}", 1)):
        done = invoke(tmp_path / "out", flags)
        assert done.output.count("same recorded prompts") == times


def test_progress_line() -> None:
    """Counts, median and rate in one line."""
    now = 0.0
    tally = Tally("profiling", lambda: now)
    for record in result("ok", "ok", "error").records:
        record.output_tokens = 10
        tally.settle(record)
    now = 2.0
    assert "2 ok, 1 errors" in tally.line()
    assert "TTFT p50 1000 ms, 10 tok/s" in tally.line()


async def test_rig_plan_runs() -> None:
    """A whole run without anybody listening, over the real network code."""
    nobody = plan(urls=("http://127.0.0.1:1",), limits=Limits(requests=1))
    found = await run(nobody, chosen("--num-sessions 1").workload)
    assert [record.error for record in found.records] == ["connect"]
