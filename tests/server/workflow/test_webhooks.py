"""What a webhook's request gives."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.reading import Reader
from server.workflow.values import File
from server.workflow.webhooks import RAW, WebhookError, WebhookFields

FILE = File(type="image", transfer_method="local_file", related_id="1")


def fields(content_type: str = "application/json", **listed: Any) -> WebhookFields:
    return WebhookFields(Reader({"content_type": content_type} | listed, "node"))


def test_headers_params_and_body() -> None:
    """Each field from its place; headers whatever their case, with underscores."""
    found = fields(
        headers=[{"name": "X-Token", "required": True}],
        params=[{"name": "page", "type": "number"}],
        body=[{"name": "user", "type": "object"}, {"name": "gone", "type": "string"}],
    )
    request = {
        "headers": {"x-TOKEN": "t"},
        "query_params": {"page": "3"},
        "body": {"user": {"id": 1}, "more": 2},
    }
    assert found.values(request) == {
        "X_Token": "t",
        "page": 3,
        "user": {"id": 1},
        "gone": None,
        RAW: request,
    }


@pytest.mark.parametrize(
    ("type", "given", "value"),
    [
        ("string", "5", "5"),
        ("number", "5", 5),
        ("number", "5.5", 5.5),
        ("number", 7, 7),
        ("boolean", "TRUE", True),
        ("boolean", "0", False),
        ("object", '{"a": 1}', {"a": 1}),
        ("array[string]", ["a"], ["a"]),
        ("array[number]", "[1, 2]", [1, 2]),
        ("array[object]", [], []),
        ("file", FILE, FILE),
    ],
)
def test_types(type: str, given: Any, value: Any) -> None:
    """Forms have texts only: they are read as what the field is."""
    found = fields(body=[{"name": "x", "type": type}]).values({"body": {"x": given}})
    assert found["x"] == value


@pytest.mark.parametrize(
    ("type", "given"),
    [
        ("string", 5),
        ("number", "five"),
        ("number", True),
        ("boolean", "maybe"),
        ("object", "{"),
        ("object", "[1]"),
        ("array[string]", [1]),
        ("file", "a.png"),
    ],
)
def test_wrong_types(type: str, given: Any) -> None:
    """The field is named."""
    with pytest.raises(WebhookError, match="Parameter 'x' must be of type"):
        fields(body=[{"name": "x", "type": type}]).values({"body": {"x": given}})


def test_a_required_field_must_be_there() -> None:
    """Others are None."""
    with pytest.raises(WebhookError, match="Required parameter missing: x"):
        fields(params=[{"name": "x", "required": True}]).values({})


def test_texts_and_files() -> None:
    """A plain text is the whole of its field, an uploaded file the field of its name."""
    plain = fields("text/plain", body=[{"name": "message"}])
    assert plain.values({"body": "hello"})["message"] == "hello"
    assert plain.values({"body": {"raw": "hello"}})["message"] == "hello"
    form = fields("multipart/form-data", body=[{"name": "f", "type": "file"}])
    assert form.values({"body": {}, "files": {"f": FILE}})["f"] is FILE
