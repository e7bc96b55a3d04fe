"""JSON of anybody: read and written as the standard library does, refused beyond what is quick."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow import large_json
from server.workflow.large_json import json_bytes, json_text, read_json, values_text
from server.workflow.sizes import TooLarge
from server.workflow.values import File

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_as_the_standard_library(value: Any) -> None:
    """Read from text and from bytes, and written to the character."""
    written = json.dumps(value, ensure_ascii=False)
    assert json_text(value) == written
    assert read_json(written) == value == json.loads(json_bytes(value))
    assert read_json(written.encode()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["a\nb\x01"]', ["a\nb\x01"]),
        ('["\\ud800"]', ["\ud800"]),
        ("[Infinity, 1e999]", [float("inf"), float("inf")]),
        ("1234567890123456789012345678901234567890", 1234567890123456789012345678901234567890),
        ('{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_what_is_not_to_the_letter_is_read_too(text: str, value: Any) -> None:
    """Control characters in texts, halves of characters, infinite and long numbers."""
    assert read_json(text) == value


@pytest.mark.parametrize("text", ["", "[1,]", "<html>", "[" * 60_000 + "]" * 60_000, '"'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    """Nesting without end, too: no RecursionError."""
    with pytest.raises(ValueError):
        read_json(text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('"' + "x" * large_json.MOST_BYTES + '"', "more than 2097152 bytes"),
        ("[" + "{}," * large_json.MOST_PARTS + "{}]", "75000 objects, lists and keys"),
        (b'{"a":' * 20_000 + b"[" * 60_000, "75000 objects, lists and keys"),
        (b"[" + b"1," * large_json.MOST_ITEMS + b"1,1]", "1000000 items"),
    ],
)
def test_what_would_take_long_is_refused_by_its_limit(data: str | bytes, message: str) -> None:
    """Before it is read."""
    with pytest.raises(TooLarge, match=message):
        read_json(data)


def test_leniency_has_its_own_limit() -> None:
    """It takes ten times as long."""
    with pytest.raises(ValueError, match="not to the letter and more than 524288 bytes"):
        read_json('"' + "a\n" * 300_000 + '"')


def test_large_values_are_written_in_the_same_form() -> None:
    """With blanks after commas and colons, characters beyond ASCII as they are."""
    value = [{"é": [1, 2.5, None, "\n"]}] * 5_000
    assert json_text(value) == json.dumps(value, ensure_ascii=False)


def test_what_is_too_large_is_not_written() -> None:
    """A limit that the error names."""
    with pytest.raises(TooLarge, match="at most 2097152 are written"):
        json_text("x" * large_json.MOST_BYTES)
    assert len(json_bytes("x" * large_json.MOST_BYTES)) == large_json.MOST_BYTES + 2


def test_half_of_a_character_is_written_as_a_mark() -> None:
    """Such a text cannot be sent as it is."""
    assert json_bytes({"a": "\ud800"}) == b'{"a":"?"}'
    with pytest.raises(TooLarge, match="half of a character in it"):
        json_bytes(["\ud800", "x" * 600_000])


@pytest.mark.parametrize("count", [1, 20_000])
async def test_files_are_written_as_their_attributes(count: int) -> None:
    """However many there are."""
    file = File(type="image", transfer_method="tool_file", name="a.png")
    written = json.loads(await values_text({"n": [1] * count, "f": [file]}))
    assert written["f"][0]["filename"] == "a.png"


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(["[]"] * (large_json.MOST_PARTS - 1)) + "]",
        "{" + ",".join(f'"k{n}":{n}' for n in range(large_json.MOST_PARTS - 1)) + "}",
        json.dumps([{"a": "x" * 60, "b": list(range(10))} for _ in range(18_000)]),
        '["' + "x" * (2_000_000) + '"]',
    ],
)
def test_the_largest_is_quick(text: str) -> None:
    """A part of a second at the very most, where it takes some 20 ms: the loop waits for it."""
    began = time.thread_time()
    value = read_json(text)
    assert len(json_text(value)) > 100_000
    assert time.thread_time() - began < 0.4
