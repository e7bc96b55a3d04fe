"""JSON out of what models write."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.json_text import NO_JSON, json_in, object_in
from tests.balancer.scripted import in_virtual_time
from tests.server.workflow.scripted_models import json_says


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (' [1, {"a": 2}] ', [1, {"a": 2}]),
        ("```json\n[1]\n```", [1]),
        ('```\n{"a": "`"}\n``` and more', {"a": "`"}),
        ('Well: {"a": {"b": 1}} is it', {"a": {"b": 1}}),
        ('<think>{"no": 1}</think>{"a": 1}', {"a": 1}),
        ("{'a': True, b: 'c',}", {"a": True, "b": "c"}),
        ('{"a": "cut o', {"a": "cut o"}),
        ('{"a": 1} {"b": 2}', [{"a": 1}, {"b": 2}]),
        ("no JSON", NO_JSON),
        ("12", NO_JSON),
        ('"text"', NO_JSON),
        ("", NO_JSON),
        ("{", NO_JSON),
        ("[" * 500, NO_JSON),
        ('{"a":' * 100 + "1" + "}" * 100, NO_JSON),
        ("{" + "x" * 70_000, NO_JSON),
    ],
)
async def test_texts(text: str, value: Any) -> None:
    """Alone, in a block, among words, nearly right; not what is nested or broken beyond reason."""
    assert await json_in(text) == value


async def test_objects() -> None:
    """The first object of a list is one."""
    assert await object_in('[1, {"a": 1}, {"b": 2}]') == {"a": 1}
    assert await object_in("[1]") is None


@given(
    st.dictionaries(
        st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=9), min_size=1
    )
)
def test_what_is_json_stays_so(value: dict[str, Any]) -> None:
    """Whatever stands in its texts, and around it."""

    async def read() -> None:
        assert await json_in(json_says(value)) == value
        assert await json_in(f"```json\n{json_says(value)}\n```") == value

    in_virtual_time(read)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ['1"', "{]", ")- {- })1", '{"a', '{"a":["x" y ', '"', "[", "\\"])
async def test_hostile_texts_end(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long their repair would take."""
    monkeypatch.setattr("server.workflow.json_text._REPAIR_S", 0.05)
    begun = time.perf_counter()
    await json_in("{" + unit * (60_000 // len(unit)))
    assert time.perf_counter() - begun < 1


def test_the_time_limit_ends_json_repair_and_nothing_else() -> None:
    """The garbage collector runs finalizers in any thread; an error there would be lost, and the
    limit with it."""
    from server.workflow.json_text import _repaired, _time_limit

    def finalizer() -> str:
        return "whole"

    with _time_limit(-1):
        assert finalizer() == "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.workflow.json_text._REPAIR_S", -1)
        assert _repaired("{a: 1") is NO_JSON
    assert _repaired("{a: 1") == {"a": 1}
