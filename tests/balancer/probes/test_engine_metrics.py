"""Each engine's page, as it writes it, becomes Gauges; what it does not say stays None."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.probes.engine_metrics import Starts, read_page
from balancer.probes.engine_names import ENGINES
from balancer.probes.engine_status import FACTS, Facts, read_get_load, read_loads, read_slots
from balancer.probes.exposition import ExpositionInvalid
from balancer.readings import Gauges
from balancer.staleness import comparable, weight

PAGES = Path(__file__).parent / "pages"

SAID = {
    "vllm": (
        "vllm",
        Gauges(
            at=5,
            running=17,
            waiting=4,
            kv_share=0.6251,
            kv_tokens=15642 * 16,
            cached_tokens=2.36901e8,
            prompt_tokens=2.96015e8,
            started_at=1.76104192813e9,
        ),
    ),
    "vllm_old": (
        "vllm",
        Gauges(at=5, running=2, waiting=0, kv_share=0.03, cached_tokens=320, prompt_tokens=900),
    ),
    "vllm_ranks": (
        "vllm",
        Gauges(at=5, running=16, waiting=1, kv_share=0.7, kv_tokens=32000, prompt_tokens=150),
    ),
    "sglang": (
        "sglang",
        Gauges(
            at=5,
            running=8,
            waiting=5,
            kv_share=0.28,
            kv_tokens=412000,
            occupancy=0.875,
            cached_tokens=5700,
            prompt_tokens=8128902,
        ),
    ),
    "llamacpp": (
        "llama.cpp",
        Gauges(at=5, running=3, waiting=1, cached_tokens=800, prompt_tokens=2000),
    ),
    "llamacpp_old": (
        "llama.cpp",
        Gauges(at=5, running=3, waiting=0, kv_share=0.41, prompt_tokens=1200),
    ),
    "tgi": ("tgi", Gauges(at=5, running=5, waiting=3, prompt_tokens=18000)),
    "trtllm": (
        "tensorrt-llm",
        Gauges(
            at=5,
            running=12,
            waiting=2,
            kv_share=0.62,
            kv_tokens=131072,
            max_running=256,
            cached_tokens=4000,
            prompt_tokens=9000,
        ),
    ),
    "triton": (
        "triton",
        Gauges(at=5, running=4, waiting=3, kv_share=0.6, kv_tokens=512000, max_running=512),
    ),
}


def page(name: str) -> bytes:
    return (PAGES / f"{name}.txt").read_bytes()


@pytest.mark.parametrize("name", SAID)
def test_an_engines_page(name: str) -> None:
    """Every number, its unit, and which engine it is; whatever it was thought to be."""
    engine, gauges = SAID[name]
    for known in ("", engine, "triton"):
        reading = read_page(page(name), 5, known=known)
        assert reading is not None
        assert reading.engine == engine
        assert msgspec.to_builtins(reading.gauges) == pytest.approx(msgspec.to_builtins(gauges))


def test_every_page_is_tried() -> None:
    """No fixture is left out."""
    assert {path.stem for path in PAGES.iterdir()} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_line_that_is_missing_is_none(name: str) -> None:
    """Take any one series away: nothing becomes 0 that was not, and nothing else grows."""
    lines = page(name).splitlines(keepends=True)
    full = msgspec.to_builtins(SAID[name][1])
    for name_of_series in {
        line.split(b"{")[0].split(b" ")[0] for line in lines if line[:1] != b"#"
    }:
        rest = b"".join(
            line
            for line in lines
            if not line.startswith((name_of_series + b"{", name_of_series + b" "))
        )
        reading = read_page(rest, 5)
        if reading is not None:
            for field, value in msgspec.to_builtins(reading.gauges).items():
                assert value is None or value > 0 or full[field] == value


def test_sglangs_occupancy_is_none_while_it_is_not_measured() -> None:
    """It writes NaN then."""
    text = page("sglang").replace(b"} 87.5", b"} NaN")
    reading = read_page(text, 0)
    assert reading is not None
    assert (reading.gauges.running, reading.gauges.occupancy) == (8, None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>not found</html>",
        b"[]",
        b"process_start_time_seconds 1\n",
        b"vllm:something_else 3\nprocess_start_time_seconds 1\n",
        b"nv_gpu_utilization 0.5\n",
        b"vllm:num_requests_running -3\n",
        b"vllm:num_requests_running 1e300\n",
    ],
)
def test_a_page_that_tells_nothing(text: bytes) -> None:
    """It is nobody's, not an idle engine's."""
    assert read_page(text, 0) is None


def test_a_capacity_of_0_is_not_known_yet() -> None:
    """trtllm-serve has 0 until its first step."""
    text = page("trtllm").replace(b"} 256.0", b"} 0.0").replace(b"} 4096.0", b"} 0.0")
    reading = read_page(text, 0)
    assert reading is not None
    assert (reading.gauges.kv_tokens, reading.gauges.max_running) == (None, None)


def test_a_share_is_at_most_1() -> None:
    """Rounding, or a percentage by mistake, is not more than everything."""
    reading = read_page(b"vllm:kv_cache_usage_perc 1.0000001\n", 0)
    assert reading is not None
    assert reading.gauges.kv_share == 1


NAMES = sorted({source.name for engine in ENGINES for row in engine.rows for source in row.sources})
VALUES = st.sampled_from(["0", "-1", "1e308", "NaN", "3", "x", "-Inf", "1e-320"])
LABELS = st.sampled_from(
    ["", '{engine="0"}', '{engine="1",block_size="1e200"}', "{", '{num_gpu_blocks="9e99"}']
)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), LABELS, VALUES), max_size=12), st.binary(max_size=40)
)
def test_any_page(lines: list[tuple[bytes, str, str]], noise: bytes) -> None:
    """Whatever it says: shares are within 0 and 1, counts are not negative."""
    text = b"\n".join(name + f"{labels} {value}".encode() for name, labels, value in lines) + noise
    reading = read_page(text, 0)
    if reading is not None:
        said = msgspec.to_builtins(reading.gauges)
        assert all(value is None or 0 <= value < 2**53 for value in said.values())
        assert all(said[field] is None or said[field] <= 1 for field in ("kv_share", "occupancy"))


def test_a_large_page_takes_no_millisecond() -> None:
    """Histograms are passed over: 500 KB of them, the wanted lines at both ends."""
    start, end = page("vllm").split(b"# HELP vllm:prefix_cache_queries_total")
    line = b'vllm:inter_token_latency_seconds_bucket{engine="0",le="0.%d",model_name="m"} 9.0\n'
    filling = b"".join(line % i for i in range(6500))
    text = start + filling + b"# HELP vllm:prefix_cache_queries_total" + end
    assert len(text) > 500_000

    def timed() -> float:
        began = time.process_time()
        assert read_page(text, 5, known="vllm") is not None
        return time.process_time() - began

    assert min(timed() for _ in range(10)) < 0.002  # 0.6 ms where nothing else runs


# A restart is seen ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Gauges(at=0, started_at=100.0), Gauges(at=2, started_at=100.01), False),
        (Gauges(at=0, started_at=100.0), Gauges(at=2, started_at=160.0), True),
        (Gauges(at=0, prompt_tokens=10), Gauges(at=2, prompt_tokens=10), False),
        (Gauges(at=0, prompt_tokens=10), Gauges(at=2, prompt_tokens=9), True),
        (Gauges(at=0, cached_tokens=10), Gauges(at=2, cached_tokens=0), True),
        (Gauges(at=0, cached_tokens=10), Gauges(at=2), False),
        (Gauges(at=0), Gauges(at=2, prompt_tokens=9, started_at=1.0), False),
        (Gauges(at=0, started_at=1.0, prompt_tokens=9), Gauges(at=2, prompt_tokens=1), True),
    ],
)
def test_restarted(before: Gauges, after: Gauges, expected: bool) -> None:
    """A later start time, or counters that fall; silence proves nothing."""
    assert Starts().judge(before, after) == ("restarted" if expected else "same")


def judged(*readings: dict[str, Any]) -> list[str]:
    """What is said of each reading but the first."""
    starts, snapshots = Starts(), [Gauges(at=0, **one) for one in readings]
    return [starts.judge(before, after) for before, after in pairwise(snapshots)]


def test_several_processes_behind_one_url() -> None:
    """Each poll reads another one: told once, and never taken for a restart again."""
    one, other = {"started_at": 100.0}, {"started_at": 250.0}
    assert judged(one, other, one, other, one) == ["restarted", "several", "same", "same"]
    assert judged(other, one, other) == ["several", "same"]
    little, much = {"prompt_tokens": 5.0}, {"prompt_tokens": 900.0}
    assert judged(much, little, much, little) == ["restarted", "several", "same"]


def test_every_real_restart_is_one() -> None:
    """Start times go forwards, and counters begin anew each time."""
    starts: list[dict[str, Any]] = [{"started_at": float(at)} for at in (100, 100, 250, 400)]
    assert judged(*starts) == ["same", "restarted", "restarted"]
    counts: list[dict[str, Any]] = [
        {"prompt_tokens": float(count)} for count in (900, 5, 300, 2, 40)
    ]
    assert judged(*counts) == ["restarted", "same", "restarted", "same"]


# What is told in JSON ---------------------------------------------------------------------------

LOADS = b"""{"timestamp":"2026-01-01T00:00:00Z","version":"0.5.9","dp_rank_count":2,"loads":[
{"dp_rank":0,"num_running_reqs":6,"num_waiting_reqs":1,"num_used_tokens":100,
 "max_total_num_tokens":1000,"token_usage":0.1,"max_running_requests":32,"utilization":0.5},
{"dp_rank":1,"num_running_reqs":2,"num_waiting_reqs":0,"num_used_tokens":300,
 "max_total_num_tokens":1000,"token_usage":0.3,"max_running_requests":32,"utilization":0.5}]}"""


def test_sglangs_loads() -> None:
    """Counts of its ranks are added, shares averaged; a rank that leaves one out spoils it."""
    assert read_loads(LOADS, 5) == Gauges(
        at=5, running=8, waiting=1, kv_share=0.2, kv_tokens=2000, max_running=64
    )
    part = read_loads(
        b'{"loads":[{"num_running_reqs":6,"num_waiting_reqs":1},{"num_running_reqs":2}]}', 5
    )
    assert part == Gauges(at=5, running=8)


def test_sglangs_old_load() -> None:
    """`num_reqs` has the waiting ones in it."""
    body = b'[{"dp_rank":0,"num_reqs":7,"num_waiting_reqs":2,"num_tokens":900}]'
    assert read_get_load(body, 5) == Gauges(at=5, running=5, waiting=2)


def test_llamacpps_slots() -> None:
    """Its queue is not among them: None. The old form has `state`."""
    new = b'[{"id":0,"id_task":7,"n_ctx":4096,"is_processing":true},{"id":1,"is_processing":false}]'
    assert read_slots(new, 5) == Gauges(at=5, running=1, max_running=2)
    assert read_slots(b'[{"id":0,"state":1},{"id":1,"state":1}]', 5) == Gauges(
        at=5, running=2, max_running=2
    )
    assert read_slots(b'[{"id":0}]', 5) == Gauges(at=5, max_running=1)


def test_facts() -> None:
    """What is said once."""
    assert FACTS["llama.cpp"][1](b'{"total_slots":4,"model_path":"x"}') == Facts(max_running=4)
    body = b'{"max_batch_total_tokens":32000,"max_batch_size":null}'
    assert FACTS["tgi"][1](body) == Facts(kv_tokens=32000)


BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"[]", b"{}", b"null", b'{"loads":[]}', b'[{"load":3}]', b"[" * 100_000]),
)


HUGE = b"1" + b"0" * 400


@pytest.mark.parametrize("number", [HUGE, b"-1", b"9007199254740993", b"1e308", b"-1e308"])
@pytest.mark.parametrize(
    ("read", "body"),
    [
        (read_loads, b'{"loads":[{"num_running_reqs":N},{"num_running_reqs":N}]}'),
        (read_loads, b'{"loads":[{"token_usage":N},{"token_usage":N}]}'),
        (read_loads, b'{"loads":[{"max_total_num_tokens":N},{"max_total_num_tokens":N}]}'),
        (read_get_load, b'[{"num_reqs":N,"num_waiting_reqs":0}]'),
        (read_get_load, b'[{"num_reqs":0,"num_waiting_reqs":N}]'),
    ],
)
def test_no_count_at_all(
    read: Callable[[bytes, float], Gauges | None], body: bytes, number: bytes
) -> None:
    """Numbers that no engine has say nothing, and no sum of them is too large for a float."""
    assert read(body.replace(b"N", number), 0) is None


@pytest.mark.parametrize("number", [HUGE, b"-1", b"9007199254740993"])
def test_no_facts_at_all(number: bytes) -> None:
    """The same for what is said once."""
    assert FACTS["llama.cpp"][1](b'{"total_slots":%b}' % number) is None
    assert FACTS["tgi"][1](b'{"max_batch_total_tokens":%b}' % number) is None


def test_a_whole_page_has_one_bound() -> None:
    """As many lines of each name as would do for that name: together they are too many."""
    names = {source.name for one in ENGINES for row in one.rows for source in row.sources}
    page = b"".join(b'%b{engine="%d"} 1\n' % (name, n) for name in names for n in range(1_000))
    with pytest.raises(ExpositionInvalid):
        read_page(page, 0)


@given(BODIES)
def test_any_body(body: bytes) -> None:
    """What is not the engine's form tells nothing."""
    for read in (read_loads, read_get_load, read_slots):
        assert read(body, 0) is None
    for _, facts in FACTS.values():
        assert facts(body) in (None, Facts())


# Age --------------------------------------------------------------------------------------------


def test_weight() -> None:
    """1 when fresh, e^-1/2 after a poll, e^-3/2 after three, then nothing."""
    gauges = Gauges(at=100)
    assert weight(gauges, 100, 2) == 1
    assert weight(gauges, 99, 2) == 1
    assert weight(gauges, 102, 2) == pytest.approx(0.6065, abs=1e-4)
    assert weight(gauges, 106, 2) == pytest.approx(0.2231, abs=1e-4)
    assert weight(gauges, 106.01, 2) == 0
    assert weight(None, 0, 2) == 0


def test_comparable() -> None:
    """Compared only if every candidate says it; 0 is a value."""
    values: dict[str, float | None] = {"a": 0.0, "b": 1.0, "c": None}
    assert comparable("ab", values.get) == {"a": 0.0, "b": 1.0}
    assert comparable("abc", values.get) is None
    assert comparable("", values.get) is None
