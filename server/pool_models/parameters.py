"""An export's completion_params as fields of OpenAI's API, as self-hosted engines take them. Pure.

Exports carry what their provider's form offered. What engines know goes on under their name for it;
the rest is dropped, for an unknown field makes many engines refuse the whole request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from server.workflow.services import ModelFailed

__all__ = ["request_fields"]

_MOST_STOPS: Final = 16
_STOP_CHARACTERS: Final = 256

Fields = dict[str, Any]


def request_fields(parameters: Mapping[str, Any]) -> tuple[Fields, list[str]]:
    """The fields of the request, and the names of the parameters that were dropped.

    Raises `ModelFailed` for a `json_schema` that is none.
    """
    fields: Fields = {}
    dropped = []
    for name, value in parameters.items():
        if value is None or value == "" or value == []:
            continue
        read = _READERS.get(name)
        if read is None or not read(fields, value):
            dropped.append(name)
    _add_format(fields, parameters)
    return fields, dropped


_Reader = Callable[[Fields, Any], bool]
"""Adds a value to the fields; False if it is none that engines take."""


def _number(field: str) -> _Reader:
    def read(fields: Fields, value: Any) -> bool:
        number = _as_number(value)
        if number is not None:
            fields.setdefault(field, number)
        return number is not None

    return read


def _whole(field: str) -> _Reader:
    def read(fields: Fields, value: Any) -> bool:
        number = _as_number(value)
        if number is None or number != int(number):
            return False
        fields.setdefault(field, int(number))
        return True

    return read


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = value if isinstance(value, int | float) else float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1e15 else None  # no NaN, no infinity


def _text(field: str) -> _Reader:
    def read(fields: Fields, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        fields.setdefault(field, value)
        return True

    return read


def _plain(field: str, kind: type) -> _Reader:
    def read(fields: Fields, value: Any) -> bool:
        if not isinstance(value, kind):
            return False
        fields.setdefault(field, value)
        return True

    return read


def _stop(fields: Fields, value: Any) -> bool:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        return False
    stops = [one[:_STOP_CHARACTERS] for one in given if isinstance(one, str) and one]
    if stops:
        fields["stop"] = stops[:_MOST_STOPS]
    return True


_ON: Final = frozenset({"true", "enabled", "on", "yes", "1"})
_OFF: Final = frozenset({"false", "disabled", "off", "no", "0"})


def _thinking(fields: Fields, value: Any) -> bool:
    """Qwen's templates ask for `enable_thinking`, DeepSeek's and Granite's for `thinking`; a
    template does not mind a name that it does not use."""
    if isinstance(value, Mapping):  # {"type": "enabled"}, as hosted services have it
        value = value.get("type")
    if isinstance(value, str):
        word = value.strip().lower()
        value = True if word in _ON else False if word in _OFF else None
    if not isinstance(value, bool):
        return False
    fields["chat_template_kwargs"] = {"enable_thinking": value, "thinking": value}
    return True


def _template_values(fields: Fields, value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    fields["chat_template_kwargs"] = {**fields.get("chat_template_kwargs", {}), **value}
    return True


def _later(fields: Fields, value: Any) -> bool:
    """Read with the others of its kind, by `_add_format`."""
    return True


_READERS: Final[dict[str, _Reader]] = {
    **{
        name: _number(name)
        for name in (
            *("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty"),
            *("repetition_penalty", "length_penalty"),
        )
    },
    **{
        name: _whole(name)
        for name in ("max_tokens", "max_completion_tokens", "min_tokens", "seed", "top_k")
    },
    # the same under the names of other engines
    "max_new_tokens": _whole("max_tokens"),
    "max_output_tokens": _whole("max_tokens"),
    "max_tokens_to_sample": _whole("max_tokens"),
    "num_predict": _whole("max_tokens"),
    "repeat_penalty": _number("repetition_penalty"),
    "random_seed": _whole("seed"),
    "reasoning_effort": _text("reasoning_effort"),
    "logit_bias": _plain("logit_bias", dict),
    "logprobs": _plain("logprobs", bool),
    "top_logprobs": _whole("top_logprobs"),
    "ignore_eos": _plain("ignore_eos", bool),
    "parallel_tool_calls": _plain("parallel_tool_calls", bool),
    "stop": _stop,
    "stop_sequences": _stop,
    "enable_thinking": _thinking,
    "thinking": _thinking,
    "think": _thinking,
    "chat_template_kwargs": _template_values,
    "response_format": _later,
    "json_schema": _later,
    "format": _later,
}


def _add_format(fields: Fields, parameters: Mapping[str, Any]) -> None:
    asked = parameters.get("response_format") or parameters.get("format")
    schema = parameters.get("json_schema")
    if isinstance(asked, Mapping):
        fields["response_format"] = dict(asked)
        return
    word = str(asked or "").strip().lower()
    if word == "json_schema" and schema:
        fields["response_format"] = {"type": "json_schema", "json_schema": _named(schema)}
    elif word in ("json_object", "json", "json_schema"):
        fields["response_format"] = {"type": "json_object"}


def _named(given: Any) -> dict[str, Any]:
    """A schema as the API wants it: with a name around it."""
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ModelFailed(
                f"the parameter json_schema is not valid JSON: {exc}", "InvokeBadRequestError"
            ) from None
    if not isinstance(given, Mapping):
        raise ModelFailed(
            "the parameter json_schema is no JSON object; write a schema, or an object with "
            '"name" and "schema"',
            "InvokeBadRequestError",
        )
    if isinstance(given.get("schema"), Mapping):
        return {"name": "answer", **given}
    return {"name": "answer", "schema": dict(given)}
