"""Every metric against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.record import Probe, Record
from bench.report.goodput import is_good, parse_goodput
from bench.report.measures import measured
from bench.report.metrics import compute
from bench.report.table import probe_rows
from tests.bench.report.samples import failed, run_of, streamed


def test_the_naming_trap() -> None:
    """50 ms to the first token, 10 ms a token, 20 tokens: ITL is 10.0, not 12.4 and not 9.5."""
    found = measured(streamed())
    assert found["time_to_first_token"] == pytest.approx(50.0)
    assert found["inter_token_latency"] == pytest.approx(10.0)
    assert found["time_to_second_token"] == pytest.approx(10.0)
    assert found["request_latency"] == pytest.approx(50 + 19 * 10)
    assert found["output_token_throughput_per_user"] == pytest.approx(100.0)
    assert found["output_sequence_length"] == 20
    assert found["input_sequence_length"] == 100


def test_several_tokens_a_chunk() -> None:
    """Chunks at 100, 140, 200 ms of 4 + 3 + 3 tokens: ITL 100 / 6; gaps 40 and 60; stall 60."""
    record = streamed(content_s=[0.1, 0.14, 0.2], output_tokens=10, first_chunk_tokens=4)
    found = measured(record)
    assert found["inter_token_latency"] == pytest.approx(100 / 6)
    assert found["stall_max"] == pytest.approx(60.0)
    pooled = compute(run_of(record)).distributions["inter_chunk_latency"]
    assert pooled.count == 2
    assert (pooled.min, pooled.max) == pytest.approx((40, 60))


def test_a_first_chunk_counted_too_large_counts_as_one_token() -> None:
    """No division by zero, no negative latency."""
    for first in (0, 3, 9):
        record = streamed(chunks=3, output_tokens=3, first_chunk_tokens=first)
        assert measured(record)["inter_token_latency"] == pytest.approx(10.0)


def test_inter_chunk_latency_is_pooled_and_inter_token_latency_is_not() -> None:
    """An answer with 1 gap of 100 ms and one with 9 of 10 ms: 19 ms pooled, 55 ms by request."""
    metrics = compute(
        run_of(streamed(gap_s=0.1, chunks=2), streamed(gap_s=0.01, chunks=10, sent_s=1.0))
    )
    assert metrics.distributions["inter_chunk_latency"].avg == pytest.approx(190 / 10)
    assert metrics.distributions["inter_token_latency"].avg == pytest.approx((100 + 10) / 2)


def test_reasoning_comes_before_the_first_output_token() -> None:
    """TTFT counts reasoning; time to first output token does not."""
    found = measured(streamed(first_answer_s=0.09, reasoning_tokens=4))
    assert found["time_to_first_token"] == pytest.approx(50)
    assert found["time_to_first_output_token"] == pytest.approx(90)
    assert found["reasoning_token_count"] == 4


def test_a_one_token_answer_has_no_gaps() -> None:
    """It has a TTFT and a latency, but no ITL, stall or speed for the user."""
    found = measured(streamed(chunks=1))
    assert found["time_to_first_token"] == found["request_latency"] == pytest.approx(50)
    for name in ("inter_token_latency", "stall_max", "output_token_throughput_per_user"):
        assert name not in found


def test_an_answer_in_one_chunk_has_no_inter_token_latency() -> None:
    """Twenty tokens at once say nothing of the time between them."""
    assert "inter_token_latency" not in measured(streamed(chunks=1, output_tokens=20))


def test_a_whole_answer_has_a_latency_only() -> None:
    """Without a stream there is no first token, even if the body came at some time."""
    found = measured(streamed(streamed=False, content_s=[0.2], ended_s=0.25))
    assert found["request_latency"] == pytest.approx(250)
    assert "time_to_first_token" not in found
    assert "inter_token_latency" not in found


def test_a_failed_request_has_no_values() -> None:
    """Asking for them is an error, not an empty answer."""
    with pytest.raises(ValueError, match="r0: error"):
        measured(failed())


def test_failures_and_warm_up_are_in_no_distribution() -> None:
    """A failure of 9 s and a warm-up of 5 s leave the maximum at 50 ms."""
    metrics = compute(
        run_of(
            streamed(),
            failed(took_s=9.0),
            streamed(first_s=5.0, phase="warmup"),
            streamed(first_s=7.0, outcome="cancelled"),
            streamed(first_s=8.0, outcome="unfinished"),
        )
    )
    assert metrics.distributions["time_to_first_token"].max == pytest.approx(50)
    assert metrics.distributions["request_latency"].count == 1
    assert metrics.warmup["time_to_first_token"].max == pytest.approx(5000)


def test_sent_is_the_sum_of_what_became_of_them() -> None:
    """sent = completed + errored + cancelled + unfinished, errors by kind with an example."""
    counted = compute(
        run_of(
            streamed(),
            failed(),
            failed(error="timeout", error_message=None, status=None),
            failed(),
            streamed(outcome="cancelled"),
            streamed(outcome="unfinished"),
            streamed(phase="warmup"),
        )
    ).outcomes
    assert counted.sent == 6
    assert (counted.completed, counted.errored) == (1, 3)
    assert (counted.cancelled, counted.unfinished) == (1, 1)
    assert [(one.kind, one.count) for one in counted.failures] == [("http_503", 2), ("timeout", 1)]
    assert counted.failures[0].message == "no replica"
    assert counted.error_rate == pytest.approx(0.5)


def test_rates_are_over_first_start_to_last_end() -> None:
    """Starts at 1 s, ends at 3 s: two requests of 20 and 10 tokens are 1/s and 15 tokens/s."""
    metrics = compute(
        run_of(
            streamed(0.0, phase="warmup"),
            streamed(1.0, ended_s=2.0),
            streamed(1.5, chunks=10, ended_s=3.0),
            streamed(1.5, ended_s=60.0, outcome="cancelled"),
        )
    )
    assert metrics.rates is not None
    assert metrics.rates.duration_s == pytest.approx(2.0)
    assert metrics.rates.request_throughput == pytest.approx(1.0)
    assert metrics.rates.output_token_throughput == pytest.approx(15.0)
    assert metrics.rates.total_token_throughput == pytest.approx(115.0)


def test_requests_in_flight_are_averaged_over_time() -> None:
    """One of 2 s and one of 1 s within 2 s: 1.5."""
    metrics = compute(run_of(streamed(0.0, ended_s=2.0), streamed(0.5, ended_s=1.5)))
    assert metrics.rates is not None
    assert metrics.rates.requests_in_flight == pytest.approx(1.5)


def test_open_loop_latency_counts_from_the_schedule() -> None:
    """Sent 30 ms late: effective TTFT 80 ms, effective latency 270 ms, delay 30 ms."""
    found = measured(streamed(sent_s=1.03, scheduled_s=1.0))
    assert found["time_to_first_token"] == pytest.approx(50)
    assert found["effective_time_to_first_token"] == pytest.approx(80)
    assert found["effective_request_latency"] == pytest.approx(270)
    assert found["schedule_delay"] == pytest.approx(30)
    assert "schedule_delay" not in measured(streamed())


def test_goodput_is_out_of_everything_sent() -> None:
    """Of 5 sent 1 is good: one is slow, one failed, one cancelled, one unfinished. 1 in 2 s."""
    goodput = compute(
        run_of(
            streamed(0.0, ended_s=1.0),
            streamed(0.5, first_s=0.3, ended_s=2.0),
            failed(0.1),
            streamed(0.1, outcome="cancelled"),
            streamed(0.1, outcome="unfinished"),
            goodput={"time_to_first_token": 200.0, "inter_token_latency": 30.0},
        )
    ).goodput
    assert goodput is not None
    assert (goodput.good, goodput.sent) == (1, 5)
    assert goodput.fraction == pytest.approx(0.2)
    assert goodput.per_s == pytest.approx(0.5)


def test_goodput_objectives_may_be_met_exactly_and_know_their_direction() -> None:
    """A latency may be at most its limit, a throughput at least."""
    assert is_good({"time_to_first_token": 200.0}, {"time_to_first_token": 200.0})
    assert not is_good({"time_to_first_token": 200.1}, {"time_to_first_token": 200.0})
    user = "output_token_throughput_per_user"
    assert is_good({user: 30.0}, {user: 30.0})
    assert not is_good({user: 29.9}, {user: 30.0})
    assert not is_good({}, {user: 30.0})


def test_a_one_token_answer_does_not_show_that_it_meets_an_itl_objective() -> None:
    """It is not good, and a warning says why."""
    metrics = compute(run_of(streamed(chunks=1), goodput={"inter_token_latency": 30.0}))
    assert metrics.goodput is not None
    assert metrics.goodput.good == 0
    assert metrics.goodput.lacking == {"inter_token_latency": 1}
    assert any("have no inter_token_latency" in warning for warning in metrics.warnings)


def test_goodput_is_read_from_text() -> None:
    """Two objectives, in ms."""
    found = parse_goodput("time_to_first_token:200  inter_token_latency:30.5")
    assert found == {"time_to_first_token": 200.0, "inter_token_latency": 30.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no objective"),
        ("time_to_first_token", "NAME:LIMIT"),
        ("ttft:200", "no measure 'ttft'"),
        ("inter_chunk_latency:5", "no measure"),
        ("time_to_first_token:fast", "'fast' is not a number"),
        ("time_to_first_token:-1", "above 0"),
        ("time_to_first_token:nan", "above 0"),
        ("time_to_first_token:1 time_to_first_token:2", "given twice"),
    ],
)
def test_bad_objectives_are_named(text: str, said: str) -> None:
    """The error holds the part at fault."""
    with pytest.raises(ValueError, match=said):
        parse_goodput(text)


def test_output_tokens_are_the_servers_where_it_says() -> None:
    """20 by the server, 25 by the client: 20 counts, and the difference is pointed out."""
    metrics = compute(run_of(streamed(counted_output_tokens=25)))
    assert metrics.distributions["output_sequence_length"].avg == 20
    assert any("1 of 1 answers: the client counted over 10%" in one for one in metrics.warnings)
    quiet = compute(run_of(streamed(counted_output_tokens=22)))
    assert not any("the client counted" in one for one in quiet.warnings)


def test_without_usage_the_clients_count_and_the_plan_stand_in() -> None:
    """And a warning says so."""
    record = streamed(output_tokens=None, input_tokens=None, counted_output_tokens=11)
    metrics = compute(run_of(record))
    assert metrics.distributions["output_sequence_length"].avg == 11
    assert metrics.distributions["input_sequence_length"].avg == 100
    assert metrics.distributions["inter_token_latency"].avg == pytest.approx(190 / 10)
    assert any("1 of 1 answers came without usage" in one for one in metrics.warnings)


def test_when_nothing_succeeded_there_are_no_numbers() -> None:
    """No zeros, no NaN: absent."""
    metrics = compute(run_of(failed(), goodput={"request_latency": 10.0}))
    assert metrics.distributions == {}
    assert metrics.rates is None
    assert metrics.goodput is not None
    assert metrics.goodput.fraction == 0.0
    assert any("no request succeeded" in one for one in metrics.warnings)


def test_when_nothing_was_sent_there_is_a_warning() -> None:
    """An empty run is a run."""
    metrics = compute(run_of(goodput={"request_latency": 10.0}))
    assert metrics.outcomes.sent == 0
    assert metrics.goodput is not None
    assert metrics.goodput.per_s is None
    assert any("nothing was sent" in one for one in metrics.warnings)


def test_the_hit_share_is_over_requests_that_report_it() -> None:
    """50 of 100 and 0 of 300 are 12.5 %, not 25 %; a silent answer is left out."""
    cache = compute(
        run_of(
            streamed(cached_tokens=50),
            streamed(cached_tokens=0, input_tokens=300),
            streamed(cached_tokens=None, input_tokens=5000),
            failed(cached_tokens=7, input_tokens=7),
        )
    ).cache
    assert cache is not None
    assert (cache.requests, cache.prompt_tokens, cache.cached_tokens) == (2, 400, 50)
    assert cache.hit_share == pytest.approx(0.125)
    assert compute(run_of(streamed())).cache is None


def test_replica_spread() -> None:
    """3 and 1 of 4 requests: the busiest has 1.5 times the average."""
    names = ["a", "b", "a", "a"]
    found = compute(run_of(*(streamed(replica=name) for name in names))).replicas
    assert found is not None
    assert found.requests == {"a": 3, "b": 1}
    assert found.skew == pytest.approx(1.5)


def test_turn_one_and_later_turns_apart() -> None:
    """The first turn's TTFT does not blur the later ones'."""
    metrics = compute(
        run_of(streamed(), streamed(first_s=0.02, turn=1), streamed(first_s=0.04, turn=2))
    )
    assert metrics.turns["first"].avg == pytest.approx(50)
    assert metrics.turns["later"].avg == pytest.approx(30)
    assert compute(run_of(streamed())).turns == {}


def test_probes_under_load_against_idle() -> None:
    """10 ms from the due time under load, 2 ms idle; a refused probe is a failure, not a time."""

    def probe(took_s: float, status: int = 200) -> Probe:
        return Probe(
            path="/health", scheduled_s=1.0, sent_s=1.001, ended_s=1 + took_s, status=status
        )

    never = Probe(path="/health", scheduled_s=1.0, sent_s=1.0)
    (found,) = compute(
        run_of(
            streamed(),
            probes=[probe(0.01), probe(0.5, status=503), never],
            idle_probes=[probe(0.002)],
        )
    ).probes
    assert found.loaded.latency is not None
    assert found.loaded.latency.max == pytest.approx(10)
    assert found.idle is not None
    assert found.idle.latency is not None
    assert found.idle.latency.p99 > 0
    assert found.idle.sent == 1
    assert found.loaded.failures == {"http_503": 1, "unfinished": 1}


def test_probes_of_a_dead_path() -> None:
    """If no probe succeeded, that is said with the reason."""
    probe = Probe(path="/x", scheduled_s=0.0, sent_s=0.0, ended_s=0.1, status=404)
    metrics = compute(run_of(streamed(), probes=[probe, probe]))
    assert any("/x" in one and "http_404 2" in one for one in metrics.warnings)
    (table,) = probe_rows(metrics.probes)[1:]
    assert table[2:4] == ["2", "http_404 2"]


@pytest.mark.parametrize(
    ("length", "chunks", "first", "decoded"),
    [(11, 11, 3, 10), (11, 6, 3, 8), (11, 6, 9, 5), (3, 11, 1, 2), (11, 11, 0, 10)],
)
def test_first_chunk_leaves_one_token_for_each_other(
    length: int, chunks: int, first: int, decoded: int
) -> None:
    """A client's guess of the first chunk's tokens cannot stretch the inter-token latency."""
    record = streamed(gap_s=0.01, chunks=chunks, output_tokens=length, first_chunk_tokens=first)
    span_ms = 10.0 * (chunks - 1)
    assert measured(record)["inter_token_latency"] == pytest.approx(span_ms / decoded)


RECORDS = st.builds(
    streamed,
    sent_s=st.floats(0, 100),
    first_s=st.floats(0, 10),
    gap_s=st.floats(0, 1),
    chunks=st.integers(0, 5),
    outcome=st.sampled_from(["ok", "error", "cancelled", "unfinished"]),
    phase=st.sampled_from(["warmup", "profiling"]),
    streamed=st.booleans(),
    output_tokens=st.none() | st.integers(0, 10),
    first_chunk_tokens=st.integers(0, 5),
    scheduled_s=st.none() | st.floats(0, 100),
)


@given(st.lists(RECORDS, max_size=12))
def test_books_balance_whatever_came(records: list[Record]) -> None:
    """Sent adds up, no distribution holds more than completed, latencies are not negative."""
    metrics = compute(run_of(*records, goodput={"request_latency": 500.0}))
    counted = metrics.outcomes
    parts = counted.completed + counted.errored + counted.cancelled + counted.unfinished
    assert counted.sent == parts == sum(one.phase == "profiling" for one in records)
    assert metrics.goodput is not None
    assert metrics.goodput.good <= counted.completed
    for name, summary in metrics.distributions.items():
        assert name == "inter_chunk_latency" or summary.count <= counted.completed
        assert summary.min >= 0 or "effective" in name or name == "schedule_delay"
