"""Kinds and renderings of values, as dify.md b.0 has them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.workflow.values import File, kind_of, markdown_of, plain, text_of

PICTURE = File(
    type="image", transfer_method="remote_url", name="a.png", extension=".png", url="http://h/a.png"
)
PAPER = File(type="document", transfer_method="local_file", url="http://h/b", related_id="7")

# value, kind, text, markdown; checked against graphon 0.8
RENDERINGS: list[tuple[Any, str, str, str]] = [
    (None, "none", "", ""),
    ("as it is", "string", "as it is", "as it is"),
    ("", "string", "", ""),
    (True, "boolean", "True", "True"),
    (False, "boolean", "False", "False"),
    (7, "number", "7", "7"),
    (1.0, "number", "1.0", "1.0"),
    (-0.0, "number", "-0.0", "-0.0"),
    (1e20, "number", "1e+20", "1e+20"),
    (10**20, "number", "1" + "0" * 20, "1" + "0" * 20),
    ({}, "object", "{}", "{}"),
    (
        {"é": [1, None]},
        "object",
        '{"é": [1, null]}',
        '{\n  "é": [\n    1,\n    null\n  ]\n}',
    ),
    ([], "array[any]", "", ""),
    (["é", 'a"b'], "array[string]", '["é", "a\\"b"]', '- é\n- a"b'),
    ([1, 2.5], "array[number]", "[1, 2.5]", "- 1\n- 2.5"),
    ([True], "array[boolean]", "[True]", "- True"),
    ([{"a": "b"}], "array[object]", "[{'a': 'b'}]", "- {'a': 'b'}"),
    ([None], "array[any]", "[None]", "- None"),
    ([1, "a"], "array[any]", "[1, 'a']", "- 1\n- a"),
    ([[]], "array[any]", "[[]]", "- []"),
    ([[1], [2]], "array[any]", "[[1], [2]]", "- [1]\n- [2]"),
    ([True, 1], "array[any]", "[True, 1]", "- True\n- 1"),
    (PICTURE, "file", "", "![a.png](http://h/a.png)"),
    (PAPER, "file", "", "[http://h/b](http://h/b)"),
    ([PICTURE, PAPER], "array[file]", "", "![a.png](http://h/a.png)\n[http://h/b](http://h/b)"),
]


@pytest.mark.parametrize(("value", "kind", "text", "markdown"), RENDERINGS)
def test_renderings(value: Any, kind: str, text: str, markdown: str) -> None:
    """Each value has its kind, and reads in templates and answers as in Dify."""
    assert (kind_of(value), text_of(value), markdown_of(value)) == (kind, text, markdown)


def test_files_in_objects_read_as_their_dict() -> None:
    """A file below an object or a list is written out, not left empty."""
    assert json.loads(text_of({"f": PAPER})) == {"f": PAPER.as_dict()}
    assert text_of([PAPER, 1]) == str([PAPER.as_dict(), 1])


def test_plain_copies_only_what_holds_files() -> None:
    """Values without files pass through as they are."""
    value = {"a": [1, {"b": 2}]}
    assert plain(value) is value
    assert plain([PAPER, value]) == [PAPER.as_dict(), value]


def test_foreign_values_have_no_kind() -> None:
    """What no variable can hold is refused by name."""
    with pytest.raises(TypeError, match="a set is no value"):
        kind_of({1})


def test_deep_lists_do_not_run_out_of_stack() -> None:
    """The kind of a list is found from its items, not from theirs."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert kind_of(value) == "array[any]"
    while value:  # taken apart: freeing it in one go recurses in C
        value = value.pop()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(JSON)
def test_every_json_value_renders(value: Any) -> None:
    """Objects read back as themselves; a list is one line each, in Markdown, for each item."""
    if isinstance(value, dict):
        assert json.loads(text_of(value)) == json.loads(markdown_of(value)) == value
    if isinstance(value, list):
        assert markdown_of(value).startswith("- ") is bool(value)
    assert isinstance(text_of(value), str)


def test_a_large_object_is_indented_quickly_and_as_python_does() -> None:
    """Who reads an answer holds up nobody else for long; odd numbers and texts read the same."""
    for value in ({"x": float("nan"), "y": []}, {"x": "\ud800", "y": {}}, {"x": 1e16, "y": [[]]}):
        assert markdown_of(value) == json.dumps(value, ensure_ascii=False, indent=2)
    large = {"x": [{"a": number} for number in range(20_000)]}
    quick, slow = _seconds(markdown_of, large), _seconds(_indented, large)
    assert quick < slow


def _indented(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _seconds(render: Callable[[Any], str], value: Any) -> float:
    """Of the quickest of three."""
    times = []
    for _ in range(3):
        began = time.process_time()
        render(value)
        times.append(time.process_time() - began)
    return min(times)
