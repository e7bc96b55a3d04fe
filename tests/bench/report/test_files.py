"""Exported files against the shapes of the tools whose readers take them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.report import write as write_module
from bench.report.aiperf_files import aiperf_csv, aiperf_json, jsonl_line
from bench.report.genai_perf_files import genai_perf_csv, genai_perf_json, raw_bytes, raw_json
from bench.report.metrics import Analysis, analyse, compute
from bench.report.run import ClientLag, ServerFacts
from bench.report.write import (
    ReadError,
    artifact_name,
    check_destination,
    find_runs,
    read_run,
    write_reports,
)
from tests.bench.report.samples import failed, noisy_run, run_of, streamed

GENAI_PERF_STATISTICS = (
    *("unit", "avg", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99"),
    *("min", "max", "std"),
)


class AiperfMetadata(msgspec.Struct, forbid_unknown_fields=True):
    """`MetricRecordMetadata` of aiperf 0.13: what it requires and what we fill of the rest."""

    session_num: int
    request_start_ns: int
    request_end_ns: int
    worker_id: str
    record_processor_id: str
    benchmark_phase: str
    x_request_id: str | None = None
    conversation_id: str | None = None
    turn_index: int | None = None
    credit_issued_ns: int | None = None
    request_ack_ns: int | None = None
    was_cancelled: bool = False


class AiperfValue(msgspec.Struct, forbid_unknown_fields=True):
    """`MetricValue`."""

    value: float | list[float]
    unit: str


class AiperfError(msgspec.Struct, forbid_unknown_fields=True):
    """`ErrorDetails`: a message at least."""

    message: str
    code: int | None = None
    type: str | None = None


class AiperfLine(msgspec.Struct):
    """`MetricRecordInfo`, which allows more fields than it knows."""

    metadata: AiperfMetadata
    metrics: dict[str, AiperfValue]
    error: AiperfError | None = None


class AiperfMetric(msgspec.Struct, forbid_unknown_fields=True):
    """`JsonMetricResult`."""

    unit: str
    avg: float | None = None
    p1: float | None = None
    p5: float | None = None
    p10: float | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    min: float | None = None
    max: float | None = None
    std: float | None = None
    count: int | None = None
    sum: float | None = None


def analysis(**changes: Any) -> Analysis:
    return analyse(
        run_of(
            streamed(),
            streamed(1.0),
            failed(0.5),
            streamed(-1.0, phase="warmup"),
            goodput={"time_to_first_token": 200.0},
            **changes,
        )
    )


def test_genai_perf_json_has_its_keys_in_its_order() -> None:
    """An object a metric, statistics inside in GenAI-Perf's order, units as it names them."""
    content = genai_perf_json(analysis())
    assert list(content) == [
        *("request_throughput", "request_latency", "request_count", "time_to_first_token"),
        *("time_to_second_token", "inter_token_latency", "output_token_throughput"),
        *("output_token_throughput_per_user", "output_sequence_length", "input_sequence_length"),
        *("request_goodput", "input_config"),
    ]
    assert tuple(content["time_to_first_token"]) == GENAI_PERF_STATISTICS
    assert content["request_throughput"]["unit"] == "requests/sec"
    assert content["request_count"] == {"unit": "count", "avg": 2.0}
    assert content["inter_token_latency"]["avg"] == pytest.approx(10.0)
    assert content["input_config"]["model_names"] == ["mock/model"]
    assert content["input_config"]["perf_analyzer"] == {"stimulus": {"concurrency": 4}}


def test_genai_perf_csv_to_the_letter() -> None:
    """Both blocks, its titles, thousands separated, two decimals."""
    text = genai_perf_csv(analyse(run_of(streamed(first_s=2.0, ended_s=2.5))))
    blocks = [list(csv.reader(block.splitlines())) for block in text.split("\r\n\r\n")]
    assert blocks[0][0] == [
        *("Metric", "avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25", "p10"),
        *("p5", "p1"),
    ]
    assert blocks[0][1] == ["Time To First Token (ms)", *["2,000.00"] * 12]
    assert [row[0] for row in blocks[0][2:]] == [
        "Time To Second Token (ms)",
        "Request Latency (ms)",
        "Inter Token Latency (ms)",
        "Output Token Throughput Per User (tokens/sec/user)",
        "Output Sequence Length (tokens)",
        "Input Sequence Length (tokens)",
    ]
    assert blocks[1] == [
        ["Metric", "Value"],
        ["Output Token Throughput (tokens/sec)", "8.00"],
        ["Request Throughput (per sec)", "0.40"],
        ["Request Count (count)", "1.00"],
    ]


def test_without_streams_no_stream_metric_is_in_the_files() -> None:
    """GenAI-Perf leaves them out of its CSV; so do we, and of the JSON too."""
    found = analyse(run_of(streamed(streamed=False, content_s=[]), streamed=False))
    assert "Time To First Token" not in genai_perf_csv(found)
    assert "Inter Token Latency" not in genai_perf_csv(found)
    assert "time_to_first_token" not in genai_perf_json(found)


def test_when_nothing_succeeded_the_files_hold_no_zeros() -> None:
    """No throughput of zero, no latency of zero: the keys are absent."""
    found = analyse(run_of(failed()))
    assert list(genai_perf_json(found)) == ["input_config"]
    assert genai_perf_csv(found).splitlines()[1:] == ["", "Metric,Value"]
    assert "request_throughput" not in aiperf_json(found)
    assert aiperf_json(found)["error_request_count"] == {"unit": "requests", "avg": 1}


def raw(found: Analysis) -> dict[str, Any]:
    content: dict[str, Any] = json.loads("".join(raw_json(found.run)))
    return content


def test_the_raw_file_is_perf_analyzers() -> None:
    """Keys, wall-clock nanoseconds, one response a chunk, only what succeeded, tokens counted."""
    content = raw(analysis())
    assert set(content) == {"experiments", "version", "service_kind", "endpoint"}
    assert (content["service_kind"], content["endpoint"]) == ("openai", "v1/chat/completions")
    (experiment,) = content["experiments"]
    assert experiment["experiment"] == {"mode": "concurrency", "value": 4}
    assert set(experiment) == {"experiment", "requests", "window_boundaries"}
    first = experiment["requests"][0]
    assert len(experiment["requests"]) == 2
    assert first["timestamp"] == 1_700_000_000_000_000_000
    assert first["response_timestamps"][0] == 1_700_000_000_050_000_000
    assert len(first["response_timestamps"]) == len(first["response_outputs"]) == 20
    prompt = json.loads(first["request_inputs"]["payload"])["messages"][0]["content"]
    assert len(prompt.split()) == 100


def test_the_raw_file_reads_back_to_the_same_metrics() -> None:
    """GenAI-Perf's arithmetic on it gives our numbers: TTFT 50, ITL 10, 20 tokens."""
    (request, _) = raw(analysis())["experiments"][0]["requests"]
    times, start = request["response_timestamps"], request["timestamp"]
    texts = [
        json.loads(one["response"].removeprefix("data: "))["choices"][0]["delta"]["content"]
        for one in request["response_outputs"]
    ]
    tokens = len("".join(texts).split())
    assert tokens == 20
    assert (times[0] - start) / 1e6 == pytest.approx(50)
    assert (times[-1] - times[0]) / (tokens - 1) / 1e6 == pytest.approx(10)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"output_tokens": 10, "first_chunk_tokens": 4}, [4, 3, 3]),
        ({"output_tokens": 11, "first_chunk_tokens": 4}, [4, 4, 3]),
        ({"output_tokens": 2}, [1, 1, 1]),
        ({"output_tokens": 4, "first_chunk_tokens": 9}, [2, 1, 1]),
    ],
)
def test_stand_in_texts_hold_as_many_tokens_as_were_counted(
    changes: dict[str, int], expected: list[int]
) -> None:
    """First chunk first, the rest evenly, none empty (a reader would drop it)."""
    found = analyse(run_of(streamed(chunks=3, **changes)))
    outputs = raw(found)["experiments"][0]["requests"][0]["response_outputs"]
    assert [one["response"].count(" a") for one in outputs] == expected


def test_other_modes_and_endpoints_in_the_raw_file() -> None:
    """A rate is a float, a schedule a rate of 0, completions and whole answers in their shapes."""
    rate = raw(analysis(mode="request_rate", load=8))
    assert rate["experiments"][0]["experiment"] == {"mode": "request_rate", "value": 8.0}
    schedule = raw(analysis(mode="schedule", load=None))
    assert schedule["experiments"][0]["experiment"] == {"mode": "request_rate", "value": 0.0}
    completions = raw(analysis(endpoint_type="completions"))
    assert completions["endpoint"] == "v1/completions"
    assert "text_completion" in json.dumps(completions)
    whole = raw(analyse(run_of(streamed(streamed=False, content_s=[]))))
    (response,) = whole["experiments"][0]["requests"][0]["response_outputs"]
    assert json.loads(response["response"])["object"] == "chat.completion"


def test_the_raw_files_size_is_known_before_it_is_written() -> None:
    """The estimate is within a third of the truth: it decides whether to write it."""
    run = noisy_run(1, 50)
    assert raw_bytes(run) == pytest.approx(len("".join(raw_json(run))), rel=0.33)


def test_aiperf_json_fits_its_schema() -> None:
    """Every metric is a `JsonMetricResult`; errors, phases and identity are where it has them."""
    content = aiperf_json(analysis(mode="request_rate", load=8.0))
    assert content["schema_version"] == "1.4"
    metrics = {
        name: msgspec.convert(value, AiperfMetric)
        for name, value in content.items()
        if isinstance(value, dict) and "unit" in value
    }
    assert metrics["time_to_first_token"].count == 2
    assert metrics["request_count"] == AiperfMetric(unit="requests", avg=2)
    assert metrics["good_request_fraction"].avg == pytest.approx(2 / 3)
    assert metrics["request_error_rate"].avg == pytest.approx(100 / 3)
    assert content["error_summary"] == [
        {
            "error_details": {"code": 503, "type": "http_503", "message": "no replica"},
            "count": 1,
        }
    ]
    assert content["warmup_metrics"]["time_to_first_token"]["count"] == 1
    assert content["input_config"]["phases"][0]["name"] == "profiling"
    assert content["run_info"] == {
        "random_seed": 1,
        "cli_command": "triolet bench --concurrency 4",
    }


def test_aiperf_csv_has_its_header_and_order() -> None:
    """Distributions by tag, then single figures by tag, whole numbers without decimals."""
    blocks = aiperf_csv(analysis()).split("\r\n\r\n")
    rows = list(csv.reader(blocks[0].splitlines()))
    assert rows[0] == [
        *("Metric", "avg", "min", "max", "sum", "p1", "p5", "p10", "p25", "p50", "p75", "p90"),
        *("p95", "p99", "std"),
    ]
    assert rows[1][:2] == ["Input Sequence Length (tokens)", "100.00"]
    singles = dict(csv.reader(blocks[1].splitlines()))
    assert singles["Request Count"] == "2"
    assert singles["Error Request Count"] == "1"


def test_jsonl_lines_fit_aiperfs_record() -> None:
    """Warm-up tagged, failures with an error and no metric, names translated."""
    found = analysis(mode="request_rate", load=8.0)
    late = streamed(2.0, scheduled_s=1.9, cached_tokens=16)
    open_end = streamed(3.0, outcome="unfinished", ended_s=None, content_s=[3.5])
    lines = [
        msgspec.convert(jsonl_line(found.run, record), AiperfLine)
        for record in (*found.run.records, late, open_end)
    ]
    assert lines[3].metadata.benchmark_phase == "warmup"
    assert lines[2].metrics == {}
    assert lines[2].error == AiperfError("no replica", 503, "http_503")
    assert lines[4].metadata.credit_issued_ns == 1_700_000_001_900_000_000
    assert lines[4].metrics["credit_to_start_latency"].value == pytest.approx(100)
    assert lines[4].metrics["effective_latency"].value == pytest.approx(340)
    assert lines[4].metrics["usage_prompt_cache_read_tokens"].value == 16
    assert lines[5].metadata.was_cancelled
    assert lines[5].metadata.request_end_ns == 1_700_000_003_500_000_000


def test_a_run_reads_back_as_it_was(tmp_path: Path) -> None:
    """Same records (chunk times to the microsecond), same identity, same figures."""
    run = noisy_run(
        1,
        50,
        config={"concurrency": [4], "request-rate": None},
        client_lag=ClientLag(mean_s=0.001),
        server=ServerFacts(software="vllm"),
        goodput={"request_latency": 200.0},
    )
    written = write_reports([run], tmp_path)
    again = read_run(tmp_path)
    assert again.records[7].sent_s == run.records[7].sent_s
    assert again.records[7].content_s == pytest.approx(run.records[7].content_s, abs=1e-6)
    assert (again.config, again.server, again.client_lag) == (
        run.config,
        run.server,
        run.client_lag,
    )
    ours, theirs = compute(run), compute(again)
    assert theirs.outcomes == ours.outcomes
    assert theirs.distributions["inter_token_latency"].p99 == pytest.approx(
        ours.distributions["inter_token_latency"].p99, abs=1e-2
    )
    assert {path.name for path in written} == {
        "profile_export.html",
        "profile_export.txt",
        "profile_export.json",
        "profile_export.jsonl",
        "profile_export_genai_perf.json",
        "profile_export_genai_perf.csv",
        "profile_export_aiperf.json",
        "profile_export_aiperf.csv",
        "run.json",
    }
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}


def test_a_sweep_has_a_directory_a_load_point(tmp_path: Path) -> None:
    """The report and the table above them; a repeated load gets a number; found by load."""
    runs = [run_of(streamed(), load=load) for load in (8.0, 1.0, 8.0)]
    written = write_reports(runs, tmp_path, prefix="mine")
    assert written[0] == tmp_path / "mine.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.html",
        "mine_sweep.csv",
        "mine_sweep.txt",
        "mock_model-openai-chat-concurrency1",
        "mock_model-openai-chat-concurrency8",
        "mock_model-openai-chat-concurrency8-2",
        "run.json",
    ]
    assert [run.load for run in find_runs(tmp_path)] == [1.0, 8.0, 8.0]


def test_what_was_written_last_is_read(tmp_path: Path) -> None:
    """A directory used again: neither an earlier run nor a load point of an earlier sweep."""
    for loads in ([3.0], [1.0, 2.0, 4.0], [2.0, 1.0], [5.0]):
        write_reports([run_of(streamed(), load=load) for load in loads], tmp_path)
        assert [run.load for run in find_runs(tmp_path)] == sorted(loads)


def test_a_run_half_replaced_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing fails half-way: the earlier run's description must not stand over new records."""
    write_reports([run_of(streamed())], tmp_path)
    replace = write_module.replace_file

    def full_disk(path: Path, pieces: Any) -> Path:
        if path.name.endswith(".json"):
            raise OSError(28, "No space left on device")
        return replace(path, pieces)

    monkeypatch.setattr(write_module, "replace_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_reports([run_of(streamed(), streamed(1.0))], tmp_path)
    with pytest.raises(ReadError):
        find_runs(tmp_path)


def test_destination_is_checked_beforehand(tmp_path: Path) -> None:
    """A prefix with a slash, and a directory that cannot be made; a good one is left empty."""
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="prefix"):
        check_destination(tmp_path, "a/b")
    with pytest.raises(OSError, match="file"):
        check_destination(tmp_path / "file", "x")
    check_destination(tmp_path / "new", "x")
    assert list((tmp_path / "new").iterdir()) == []


def test_without_a_directory_the_name_is_genai_perfs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """artifacts/<model>-openai-chat-concurrency4, slashes replaced."""
    monkeypatch.chdir(tmp_path)
    (report, *_) = write_reports([run_of(streamed())])
    assert report == Path("artifacts/mock_model-openai-chat-concurrency4/profile_export.html")
    assert report.exists()


def test_a_models_name_cannot_leave_the_directory() -> None:
    """Dots in front, slashes and control characters do not get into the path."""
    assert artifact_name([run_of(model="../../etc/x\n")]).startswith("_.._etc_x_-openai-chat")
    assert artifact_name([run_of(mode="request_rate", load=2.5)]).endswith("request_rate2.5")
    assert artifact_name([run_of(mode="schedule", load=None)]).endswith("fixed_schedule")


def test_texts_utf8_cannot_hold_and_endless_rates_do_not_lose_the_report(tmp_path: Path) -> None:
    """A lone surrogate in an error and an infinite rate: everything is still written."""
    run = run_of(
        streamed(),
        failed(error_message="bad \udcff byte", replica="\ud800"),
        mode="request_rate",
        load=float("inf"),
        config={"request-rate": float("inf"), "name": "n\udcff"},
        name="n\udcff",
    )
    write_reports([run], tmp_path)
    assert read_run(tmp_path).records[1].error_message == "bad ? byte"


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a file is never seen under its name, and nothing is left beside it."""
    write_reports([run_of(streamed())], tmp_path)
    before = (tmp_path / "profile_export.jsonl").read_bytes()

    def broken(*_: object) -> object:
        raise OSError("disk full")

    monkeypatch.setattr("bench.report.write.jsonl_line", broken)
    with pytest.raises(OSError, match="disk full"):
        write_reports([run_of(streamed(), streamed(1.0))], tmp_path)
    assert (tmp_path / "profile_export.jsonl").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """File and line."""
    with pytest.raises(ReadError, match="no such file"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(ReadError, match=r"no run\.json in it"):
        find_runs(tmp_path)
    write_reports([run_of(streamed())], tmp_path)
    (tmp_path / "profile_export.jsonl").write_text('{"record": {}}\n')
    with pytest.raises(ReadError, match=r"profile_export\.jsonl, line 1: .*phase"):
        read_run(tmp_path)
    (tmp_path / "profile_export.jsonl").unlink()
    with pytest.raises(ReadError, match=r"profile_export\.jsonl: No such file"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ReadError, match=r"run\.json: not an object"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 99}')
    with pytest.raises(ReadError, match="not a run of this version"):
        read_run(tmp_path)


@pytest.mark.parametrize("prefix", ["", "../x", "a/b", ".hidden"])
def test_a_prefix_is_a_plain_name(tmp_path: Path, prefix: str) -> None:
    """It cannot lead out of the directory."""
    with pytest.raises(ValueError, match="prefix"):
        write_reports([run_of(streamed())], tmp_path, prefix=prefix)
