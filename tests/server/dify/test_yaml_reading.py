"""Reading YAML: what PyYAML reads, and no more than the bounds allow."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from server.dify.yaml_reading import DslError, Limits, read_yaml
from tests.server.dify.exports import DSL, sources


def refused(data: bytes | str, limits: Limits | None = None) -> DslError:
    with pytest.raises(DslError) as caught:
        read_yaml(data, limits)
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize("source", sources(), ids=lambda source: source.file)
def test_real_file_reads_as_pyyaml_reads_it(source: Any) -> None:
    """The values of each real export are those that Dify's own loader gets."""
    data = source.read()
    assert read_yaml(data).value == yaml.load(data, Loader=yaml.CSafeLoader)


def test_there_are_the_real_files() -> None:
    """The tests over real files have files to run over."""
    assert len(sources()) == 73 == sum(1 for _ in DSL.rglob("*.yml"))


# PyYAML's writer itself trips over control characters in keys.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff"),
    max_size=10,
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=15,
)


@given(PLAIN)
def test_what_pyyaml_writes_is_read_back(value: Any) -> None:
    """Any value of JSON survives being written by Dify's exporter and read here."""
    assert read_yaml(yaml.dump(value, allow_unicode=True)).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.10", 0.1),
        ("yes", True),
        ("~", None),
        ("0x1f", 31),
        ("2024-01-02", "2024-01-02"),
        ("99999999999999999999", "99999999999999999999"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("9" * 5000, "9" * 5000),
        ("!!str 12", "12"),
        ("!!float 1", 1.0),
        ("!!null ~", None),
        ("0." + "1" * 60, float("0." + "1" * 60)),
        ("'true'", "true"),
    ],
)
def test_scalar(text: str, value: Any) -> None:
    """Scalars are what YAML 1.1 says, and texts where JSON could not carry that."""
    assert read_yaml(f"a: {text}").value == {"a": value}


def test_aliases_and_merges_are_read() -> None:
    """Anchors, aliases and << give what PyYAML gives."""
    text = "a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n"
    assert read_yaml(text).value == yaml.safe_load(text)


def test_lines_are_known() -> None:
    """A path leads to its line; one that leads nowhere, to the line that is nearest."""
    document = read_yaml("a:\n  b:\n  - x\n  - c: 1\n    d: 2\n")
    assert document.line_of("a.b[1].d") == 5
    assert document.line_of("a.b[0]") == 3
    assert document.line_of("a.b[1].nowhere") == 4
    assert document.line_of("") is None


def test_alias_bomb_is_counted_and_not_written_out() -> None:
    """Ten lines that stand for 9^9 values are refused at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    began = time.perf_counter()
    error = refused("\n".join(lines))
    assert "aliases written out" in error.message
    assert error.line == 6
    assert time.perf_counter() - began < 1


def test_bomb_of_texts_is_counted() -> None:
    """Few values, but a long text many times, are refused too."""
    text = "- &a " + "x" * 1_000_000 + "\n" + "- *a\n" * 30
    assert "characters, aliases written out" in refused(text).message


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"[" * 100_000, "64 levels deep"),
        (b"{a: " * 100_000, "64 levels deep"),
        (b"- " * 100_000, "64 levels deep"),
        (b"[" + b"a," * 3_000_000, "more than 250000 values"),
        (b"a: " + b"x" * 9_000_000, "a text of 9000000 characters"),
        (b"a: '" + b"x" * 11_000_000, "at most 10485760 are read"),
        (b"? " * 100_000, "must be a text"),
        (b"[a]: 1", "must be a text"),
        (b"{[a]: 1}", "must be a text"),
        (b"{" + b"k" * 2000 + b": 1}", "short text"),
        (b"a: &a [*a]", "refers to what it stands in"),
        (b"a: *b", "nothing before it"),
        (b"a: 1\nb: 2\na: 3", "there twice"),
        (b"a: 1\n---\nb: 2", "second document"),
        (b"a: !!python/object/apply:os.system [x]", "is not read"),
        (b"a: !mine x", "is not read"),
        (b"a: !!binary aGk=", "is not read"),
        (b"a: !!int x", "does not fit its tag"),
        (b"<<: 1", "takes a mapping"),
        (b"", "empty"),
        (b"# only a comment", "empty"),
        (b"a: [1", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"\x00", "not YAML"),
        ("a: \ud800", "Unicode"),
    ],
)
def test_refused(data: bytes | str, part: str) -> None:
    """Each kind of hostile or broken file is refused, soon and in words."""
    began = time.perf_counter()
    assert part in str(refused(data))
    assert time.perf_counter() - began < 2


def test_refusal_names_place_and_line() -> None:
    """The path and the line of what is wrong are told."""
    error = refused("workflow:\n  graph:\n    nodes:\n    - id: a\n      id: b\n")
    assert (error.place, error.line) == ("workflow.graph.nodes[0]", 5)
    assert str(error).startswith("workflow.graph.nodes[0] (line 5): ")


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes | str) -> None:
    """Whatever comes, it is a value or a `DslError`."""
    with suppress(DslError):
        read_yaml(data)
