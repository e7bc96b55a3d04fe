"""Inputs, checked by dify.md a.6."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.app import InputSpec
from server.workflow.inputs import MOST_NESTED, InputError, checked, of_event
from server.workflow.values import File

UPLOADED = File(
    type="document", transfer_method="local_file", name="a.pdf", extension=".pdf", related_id="u1"
)


def spec(type: str, **fields: Any) -> InputSpec:
    return InputSpec(name="x", type=type, **fields)


def find(id: str) -> File | None:
    return UPLOADED if id == "u1" else None


def take(spec: InputSpec, value: Any) -> Any:
    return checked([spec], {"x": value}, upload=find)["x"]


URL = {"type": "image", "transfer_method": "remote_url", "url": "https://h/d/a.png?q=1"}

TAKEN: list[tuple[InputSpec, Any, Any]] = [
    (spec("text-input"), "a", "a"),
    (spec("text-input"), "a\x00b", "ab"),
    (spec("text-input"), "", ""),
    (spec("text-input"), None, None),
    (spec("text-input", default="d"), None, "d"),
    (spec("text-input", max_length=3), "abc", "abc"),
    (spec("paragraph", required=True), "", ""),
    (spec("select", options=("a", "b")), "b", "b"),
    (spec("select", options=("a", "b"), default=""), None, ""),
    (spec("select", options=("a", "b"), default="a"), None, "a"),
    (spec("number"), 5, 5),
    (spec("number"), 5.5, 5.5),
    (spec("number"), "5", 5),
    (spec("number"), "5.0", 5.0),
    (spec("number"), " ", None),
    (spec("number", default="7"), None, 7),
    (spec("number", default=""), None, None),
    (spec("checkbox"), True, True),
    (spec("checkbox"), "Yes", True),
    (spec("checkbox"), "off", False),
    (spec("checkbox"), 0, False),
    (spec("json_object"), {"a": ["b\x00"]}, {"a": ["b"]}),
    (spec("external_data_tool"), "a", "a"),
    (spec("file"), {"transfer_method": "local_file", "upload_file_id": "u1"}, UPLOADED),
    (spec("file-list"), [], []),
    (spec("paragraph"), "a\x00\ud83d\u00e9", "a?\u00e9"),
    (
        spec("file-list", max_length=1),
        [{"transfer_method": "local_file", "upload_file_id": "u1", "type": "document"}],
        [UPLOADED],
    ),
]


@pytest.mark.parametrize(("spec", "value", "taken"), TAKEN)
def test_what_is_taken(spec: InputSpec, value: Any, taken: Any) -> None:
    """Each type is read as Dify reads it."""
    found = take(spec, value)
    assert found == taken
    assert type(found) is type(taken)


REFUSED: list[tuple[InputSpec, Any, str]] = [
    (spec("text-input", required=True), None, "x is required in input form"),
    (spec("text-input"), 5, "(type 'text-input') x in input form must be a string"),
    (spec("paragraph"), ["a"], "(type 'paragraph') x in input form must be a string"),
    (spec("select"), 5, "(type 'select') x in input form must be a string"),
    (spec("text-input", max_length=3), "abcd", "x in input form must be less than 3 characters"),
    (
        spec("select", options=("a", "b")),
        "c",
        "x in input form must be one of the following: ['a', 'b']",
    ),
    (spec("number"), "five", "x in input form must be a valid number"),
    (spec("number"), "1.2.3", "x in input form must be a valid number"),
    (spec("number"), [5], "x in input form must be a valid number"),
    (spec("number"), "9" * 5000, "x in input form must be a valid number"),
    (spec("checkbox"), "maybe", "x in input form must be a boolean"),
    (spec("file"), "a.png", "x in input form must be a file"),
    (spec("file-list"), URL, "x in input form must be a list of files"),
    (spec("file-list"), ["a"], "x in input form must be a list of files"),
    (spec("file-list", max_length=1), [URL, URL], "x in input form must be less than 1 files"),
    (spec("json_object"), "{}", "x in input form must be a dict"),
    (spec("file"), {"transfer_method": "remote_url", "url": "file:///a"}, "Invalid file url"),
    (spec("file"), {"transfer_method": "remote_url"}, "Invalid file url"),
    (
        spec("file"),
        {"transfer_method": "local_file", "upload_file_id": "no"},
        "Invalid upload file: 'no' is not known",
    ),
    (
        spec("file", extra={"allowed_file_types": ["document"]}),
        URL,
        "File validation failed for file: a.png",
    ),
]


@pytest.mark.parametrize(("spec", "value", "message"), REFUSED)
def test_what_is_refused(spec: InputSpec, value: Any, message: str) -> None:
    """With Dify's words, and the variable's name."""
    with pytest.raises(InputError) as error:
        take(spec, value)
    assert error.value.message == message
    assert error.value.name == "x"


def test_what_is_not_declared_is_dropped() -> None:
    """The result has the declared names, in their order."""
    specs = [InputSpec(name="b", type="number"), InputSpec(name="a", type="paragraph")]
    assert list(checked(specs, {"a": "1", "z": 2}).items()) == [("b", None), ("a", "1")]


def test_deep_objects_are_refused() -> None:
    """What walks over values recurses."""
    value: dict[str, Any] = {}
    for _ in range(MOST_NESTED + 1):
        value = {"a": value}
    with pytest.raises(InputError, match="nested more than 100 deep"):
        take(spec("json_object"), value)


ANY = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2)


@given(st.sampled_from(["text-input", "select", "number", "checkbox", "file", "json_object"]), ANY)
def test_inputs_are_taken_or_refused(type: str, value: Any) -> None:
    """No value of a client's does anything else."""
    try:
        taken = take(spec(type, options=("a",)), value)
    except InputError:
        return
    assert taken is None or isinstance(taken, str | float | int | bool | File | dict)


def test_no_input_has_too_many_items() -> None:
    """Each by itself, whatever its kind; refused by its name before anything runs."""
    specs = [InputSpec(name="o", type="json_object"), InputSpec(name="p", type="json_object")]
    fits = {"x": [1, 2, {"a": "b"}]}
    assert checked(specs, {"o": fits, "p": fits}, most_items=5) == {"o": fits, "p": fits}
    with pytest.raises(InputError, match="more than 4 items") as refused:
        checked(specs, {"o": {}, "p": fits}, most_items=4)
    assert refused.value.name == "p"
    with pytest.raises(InputError, match="more than 50000 items"):
        of_event({"e": [{}] * 50_001})
