"""completion_params of exports as fields of the API."""

from __future__ import annotations

from typing import Any

import pytest

from server.pool_models.body import make_body
from server.pool_models.parameters import request_fields
from server.workflow.services import ModelFailed
from tests.server.pool_models.calls import call_of


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"temperature": 0.7, "top_p": 1, "top_k": 50}, None),
        ({"presence_penalty": 0, "frequency_penalty": 0.5, "seed": 3}, None),
        ({"min_p": 0.1, "repetition_penalty": 1.1, "reasoning_effort": "low"}, None),
        ({"max_tokens": "512"}, {"max_tokens": 512}),
        ({"max_new_tokens": 9}, {"max_tokens": 9}),
        ({"num_predict": 9, "repeat_penalty": 1.2}, {"max_tokens": 9, "repetition_penalty": 1.2}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["a", "", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": [], "max_tokens": None, "seed": ""}, {}),
        ({"response_format": "text"}, {}),
        ({"response_format": "json_object"}, {"response_format": {"type": "json_object"}}),
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        ({"response_format": {"type": "x"}}, {"response_format": {"type": "x"}}),
        (
            {"response_format": "json_schema", "json_schema": '{"name": "n", "schema": {}}'},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}},
                }
            },
        ),
        (
            {"response_format": "json_schema", "json_schema": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}},
                }
            },
        ),
        ({"json_schema": "not looked at"}, {}),
        (
            {"enable_thinking": False},
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
        (
            {"thinking": {"type": "enabled"}},
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
        ),
        (
            {"think": "disabled"},
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
    ],
)
def test_fields(given: dict[str, Any], fields: dict[str, Any] | None) -> None:
    """What engines know goes on, under their name; None here: as it is."""
    assert request_fields(given) == (given if fields is None else fields, [])


@pytest.mark.parametrize(
    "given",
    [
        {"web_search": True},
        {"temperature": "warm"},
        {"temperature": float("nan")},
        {"temperature": True},
        {"max_tokens": 1.5},
        {"stop": 7},
        {"thinking": "perhaps"},
        {"reasoning_budget": 10240},
        {"model": "another"},
        {"messages": []},
        {"stream": False, "n": 2},
        {"user": "me"},
    ],
)
def test_dropped(given: dict[str, Any]) -> None:
    """What engines do not know is not sent blindly; nor can an export change what we ask."""
    fields, dropped = request_fields({name: value for name, value in given.items() if value != []})
    assert fields == {}
    assert dropped == [name for name, value in given.items() if value != []]


@pytest.mark.parametrize("schema", ["{", "[1]", 7])
def test_a_broken_schema(schema: Any) -> None:
    """It is told, and not sent."""
    with pytest.raises(ModelFailed, match="json_schema") as failed:
        request_fields({"response_format": "json_schema", "json_schema": schema})
    assert failed.value.type == "InvokeBadRequestError"


def test_the_name_differs_from_pool_to_pool() -> None:
    """The rest of a body is the same bytes."""
    body = make_body(call_of(stream=False))
    rest = b',"messages":[{"role":"user","content":"Hello?"}],"stream":false}'
    assert body.for_model('a"b') == b'{"model":"a\\"b"' + rest
    assert body.for_model("c") == b'{"model":"c"' + rest


def test_half_a_character() -> None:
    """An input may have one: it is sent escaped."""
    body = make_body(call_of(messages=[{"role": "user", "content": "\ud83d"}]))
    assert b'"content":"\\ud83d"' in body.for_model("m")


def test_parameters_that_are_no_json() -> None:
    """An export may hold anything."""
    with pytest.raises(ModelFailed, match="no JSON"):
        make_body(call_of(parameters={"logit_bias": {None: 1}}))


def test_a_body_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused here."""
    monkeypatch.setattr("server.pool_models.body._MOST_BYTES", 1000)
    huge = call_of(messages=[{"role": "user", "content": "x" * 1000}])
    with pytest.raises(ModelFailed, match="shorten"):
        make_body(huge)
