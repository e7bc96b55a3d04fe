"""Forms that older exports have, turned into today's where nodes do not read them as they are.

Pure; what it is given stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

__all__ = ["handle_name", "upgraded"]

Data: TypeAlias = dict[str, Any]


def upgraded(type: str, data: Data) -> tuple[str, Data, str]:
    """The type and data of a node as exports have them today, and in a few words what was old
    about it; no words if nothing was."""
    type, renamed = _renamed(type, data)
    step = _STEPS.get(type)
    changes = step(data) if step else {}
    old = [*([renamed] if renamed else []), *(words for words in changes if words)]
    data = {**data, **{key: value for change in changes.values() for key, value in change.items()}}
    return type, ({**data, "type": type} if data.get("type") != type else data), ", ".join(old)


Changes: TypeAlias = dict[str, Data]
"""What was old, in words, and the keys to put instead: none where nodes read both forms. No words:
files written by hand have it."""


def _renamed(type: str, data: Data) -> tuple[str, str]:
    if type != "variable-assigner":
        return type, ""
    # By its name it could be either; hand-written files mean what its keys say.
    if "items" in data or "assigned_variable_selector" in data:
        return "assigner", "the name variable-assigner"
    return "variable-aggregator", "the name variable-assigner"


def _if_else(data: Data) -> Changes:
    cases = data.get("cases")
    if cases is None and data.get("conditions") is not None:
        return {"conditions without cases": {}}
    if not isinstance(cases, list):
        return {}
    named = [_named(case) for case in cases]
    return {"": {"cases": named}} if named != cases else {}


def _named(case: Any) -> Any:
    """YAML takes a bare `true` for something else than the handle of an edge."""
    if isinstance(case, dict) and isinstance(case.get("case_id"), bool):
        return {**case, "case_id": handle_name(case["case_id"])}
    return case


def handle_name(name: Any) -> str:
    """The name of a handle as text: a bare `true` or `1` is none."""
    return str(name).lower() if isinstance(name, bool) else str(name)


def _http_request(data: Data) -> Changes:
    body = data.get("body")
    if isinstance(body, str):
        return {"a body without a type": {"body": _body("raw-text" if body else "none", body)}}
    if isinstance(body, dict) and isinstance(body.get("data"), str):
        kind = str(body.get("type") or "none")
        return {"a body in one text": {"body": {**body, **_body(kind, body["data"])}}}
    return {}


def _body(kind: str, text: str) -> Data:
    if kind in ("form-data", "x-www-form-urlencoded"):
        return {"type": kind, "data": [*map(_field, filter(str.strip, text.splitlines()))]}
    fields = [{"key": "", "type": "text", "value": text}] if kind != "none" and text else []
    return {"type": kind, "data": fields}


def _field(line: str) -> Data:
    key, _, value = line.partition(":")
    return {"key": key.strip(), "type": "text", "value": value.strip()}


def _assigner(data: Data) -> Changes:
    return {} if data.get("items") is not None else {"an assigner of version 1": {}}


def _code(data: Data) -> Changes:
    languages = {"python": "python3", "nodejs": "javascript", "js": "javascript"}
    language = data.get("code_language")
    if isinstance(language, str) and language in languages:
        return {"the name of a language": {"code_language": languages[language]}}
    return {}


_STEPS: Final[dict[str, Callable[[Data], Changes]]] = {
    "if-else": _if_else,
    "http-request": _http_request,
    "assigner": _assigner,
    "code": _code,
}
