"""Prometheus' text form is read by name, and nothing in a page does harm."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from balancer.probes.exposition import (
    ExpositionInvalid,
    Sample,
    has_prefix,
    number,
    read_samples,
)

PAGE = b"""# HELP load x
# TYPE load gauge
load{engine="0"} 1
load{engine="1"} 2.5e1 1760000000
load_total 9
 load 8
load 3
"""


def test_samples_of_exactly_that_name() -> None:
    """In the order of the page; a longer name, a comment and an indented line are others."""
    expected = [Sample({"engine": "0"}, 1), Sample({"engine": "1"}, 25), Sample({}, 3)]
    assert read_samples(PAGE, b"load") == expected
    assert read_samples(PAGE, b"load_total") == [Sample({}, 9)]
    assert read_samples(PAGE, b"loa") == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"x 1", 1),
        (b"x\t 1", 1),
        (b"x{} 1", 1),
        (b"x{ } 1", 1),
        (b"x {} 1", 1),
        (b'x{a="1",} 1', 1),
        (b'x{a="1", b = "2" } 1', 1),
        (b"x -1.5e-3", -0.0015),
        (b"x 1\r", 1),
        (b"x NaN", None),
        (b"x +Inf", None),
        (b"x", None),
        (b"x ", None),
        (b"x one", None),
        (b"x " + b"1" * 5000, None),
        (b"x{ 1", None),
        (b'x{a="1} 1', None),
        (b"x{a=1} 1", None),
        (b"x} 1", None),
        (b"x\xff 1", None),
    ],
)
def test_a_line(line: bytes, expected: float | None) -> None:
    """What is malformed, or not a finite number, is left out; what is odd but right is not."""
    values = [sample.value for sample in read_samples(b"y 7\n" + line + b"\ny 8\n", b"x")]
    assert values == ([] if expected is None else [expected])
    assert [sample.value for sample in read_samples(line, b"x")] == values


def test_labels_are_unescaped() -> None:
    """A quote, a backslash, a line break and a brace within a value do not end it."""
    page = rb'x{a="q\"b\\c\nd}",b="%s"} 1' % "ü".encode()
    assert read_samples(page, b"x") == [Sample({"a": 'q"b\\c\nd}', "b": "ü"}, 1)]


def test_has_prefix() -> None:
    """Only where a line begins."""
    assert has_prefix(PAGE, b"# HELP")
    assert has_prefix(PAGE, b"load_t")
    assert not has_prefix(PAGE, b"gauge")


def test_too_many_lines_are_no_engines() -> None:
    """A page made to hold the loop is refused; what an engine can have is read."""
    assert len(read_samples(b"x 1\n" * 1000, b"x")) == 1000
    with pytest.raises(ExpositionInvalid, match="too many lines begin with x"):
        read_samples(b"x 1\n" * 100_000, b"x")


@pytest.mark.parametrize(
    "page", [b'x{a="' * 400_000, b"x" * 2_000_000, b'\nx{a="b",' * 400_000, b"x{" + b"," * 10**6]
)
def test_a_hostile_page_is_soon_done_with(page: bytes) -> None:
    """No pattern is tried twice over the same bytes: megabytes take milliseconds."""
    began = time.process_time()
    with contextlib.suppress(ExpositionInvalid):
        assert read_samples(page, b"x") == []
    assert time.process_time() - began < 0.25


@given(st.binary(max_size=300), st.sampled_from([b"x", b"x{", b"vllm:a"]))
def test_any_bytes(noise: bytes, name: bytes) -> None:
    """Whatever stands in a page: samples with finite values, or the one error."""
    page = name + noise + b"\n" + name + b' {a="' + noise + b'"} 1\n' + name + noise
    assert all(math.isfinite(sample.value) for sample in read_samples(page, name))


@given(st.text(max_size=50), st.text(max_size=20))
def test_number(text: str, other: str) -> None:
    """A finite float or None, of any text."""
    for word in (text, other, text.encode()):
        value = number(word)
        assert value is None or math.isfinite(value)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=5,
    )
)
def test_reads_what_the_python_client_writes(values: dict[str, float]) -> None:
    """Any label, any value, as vLLM, SGLang and TensorRT-LLM write them."""
    registry = CollectorRegistry()
    gauge = Gauge("x", "Help.", ["a"], registry=registry)
    for label, value in values.items():
        gauge.labels(label).set(value)
    samples = read_samples(generate_latest(registry), b"x")
    assert {sample.labels["a"]: sample.value for sample in samples} == values
