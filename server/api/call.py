"""Reads a model call out of an HTTP request: which model, and what goes on to the replica. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from balancer.wire.openai import Asked, read_asked, with_model
from server.errors import ApiError, Dialect

__all__ = ["ENDPOINTS", "Endpoint", "ModelCall", "passed_headers", "read_call"]

Headers = list[tuple[bytes, bytes]]


class Endpoint(NamedTuple):
    """A path that is relayed to replicas."""

    dialect: Dialect = "openai"
    form: bool = False
    """Whether the body is multipart/form-data instead of JSON."""


ENDPOINTS: Final[dict[str, Endpoint]] = {
    "/v1/chat/completions": Endpoint(),
    "/v1/completions": Endpoint(),
    "/v1/embeddings": Endpoint(),
    "/v1/rerank": Endpoint(),
    "/v1/responses": Endpoint("responses"),
    "/v1/messages": Endpoint("anthropic"),
    "/v1/messages/count_tokens": Endpoint("anthropic"),
    "/v1/audio/speech": Endpoint(),
    "/v1/audio/transcriptions": Endpoint(form=True),
    "/v1/audio/translations": Endpoint(form=True),
}


class ModelCall(NamedTuple):
    """What was asked for. `model_span` is where a form's body holds the model's name."""

    model: str
    body: bytes
    stream: bool
    model_span: tuple[int, int] | None = None

    def body_for(self, model: str) -> bytes:
        """The body with the model's name replaced, all else the same to the byte."""
        if self.model_span is None:
            return with_model(self.body, model)
        start, end = self.model_span
        return self.body[:start] + model.encode() + self.body[end:]


def read_call(endpoint: Endpoint, headers: Headers, body: bytes) -> ModelCall:
    """Raises `ApiError`: 400 naming the place, 415 for another content type."""
    media_type = _header(headers, b"content-type").partition(b";")[0].strip().lower()
    if endpoint.form:
        return _read_form(headers, media_type, body)
    # Engines refuse JSON under another name too (curl -d says it is a form), with less to go by.
    if media_type != b"application/json" and not media_type.endswith(b"+json"):
        raise _wrong_type(media_type, "application/json")
    return _read_json(body)


def _wrong_type(found: bytes, expected: str) -> ApiError:
    shown = repr(found.decode("latin-1")) if found else "missing"
    message = f"content-type is {shown}, expected {expected}"
    return ApiError(415, message, code="unsupported_media_type")


def _read_json(body: bytes) -> ModelCall:
    try:
        asked = read_asked(body)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc), _field(str(exc))) from None
    except msgspec.DecodeError as exc:
        raise ApiError(
            400, f"the body is not valid JSON: {exc}", code="invalid_json", kind="bad_request"
        ) from None
    except UnicodeDecodeError:
        raise _not_utf8(body) from None
    except RecursionError:
        raise _invalid("the JSON is nested too deeply", None) from None
    return ModelCall(_checked_model(asked), body, bool(asked.stream))


def _not_utf8(body: bytes) -> ApiError:
    try:
        body.decode()
        place = "a string"
    except UnicodeDecodeError as exc:
        place = f"byte {exc.start}"
    message = f"the body is not valid JSON: not UTF-8 at {place}"
    return ApiError(400, message, code="invalid_json", kind="bad_request")


def _checked_model(asked: Asked) -> str:
    if not asked.model:
        raise ApiError(
            400,
            "you must name a model: the field `model` is missing or empty",
            code="missing_required_parameter",
            param="model",
            kind="bad_request",
        )
    return asked.model


def _invalid(message: str, param: str | None) -> ApiError:
    return ApiError(
        400, f"invalid body: {message}", code="invalid_type", param=param, kind="bad_request"
    )


def _field(message: str) -> str | None:
    found = re.search(r"`\$\.(\w+)", message)
    return found.group(1) if found else None


def _header(headers: Headers, wanted: bytes) -> bytes:
    for name, value in headers:
        if name == wanted:
            return value
    return b""


_BOUNDARY: Final = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^;\s"]{1,70}))', re.IGNORECASE)
_DISPOSITION: Final = re.compile(rb"\r\ncontent-disposition:[ \t]*form-data", re.IGNORECASE)
_PARAMETER: Final = re.compile(
    rb'[ \t]*;[ \t]*([^=;"\r\n]+)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^;"\r\n]*))'
)
_PART_HEAD_BYTES: Final = 8_192
"""A part whose head is longer is no field that is looked for here."""


def _read_form(headers: Headers, media_type: bytes, body: bytes) -> ModelCall:
    if media_type != b"multipart/form-data":
        raise _wrong_type(media_type, "multipart/form-data")
    boundary = _BOUNDARY.search(_header(headers, b"content-type"))
    if boundary is None:
        raise _invalid("multipart/form-data without a boundary", None)
    fields = _small_fields(body, boundary.group(1) or boundary.group(2))
    start, end = fields.get(b"model", (0, 0))
    try:
        model = _checked_model(Asked(body[start:end].decode()))
    except UnicodeDecodeError:
        raise _invalid("the field `model` is not UTF-8", "model") from None
    stream = fields.get(b"stream", (0, 0))
    return ModelCall(model, body, body[slice(*stream)].lower() in (b"true", b"1"), (start, end))


def _small_fields(body: bytes, boundary: bytes) -> dict[bytes, tuple[int, int]]:
    """Where each field's value stands; files are skipped over, not copied."""
    fields: dict[bytes, tuple[int, int]] = {}
    mark = b"--" + boundary
    at = body.find(mark)
    while at >= 0:
        following = body.find(b"\r\n" + mark, at + len(mark))
        if following < 0:
            break
        # Within the part alone: many parts without a blank line must not each search to the end.
        head_end = body.find(b"\r\n\r\n", at, min(following, at + _PART_HEAD_BYTES))
        name = _part_name(body[at:head_end]) if head_end >= 0 else None
        if name is not None:
            fields.setdefault(name, (head_end + 4, following))
        at = following + 2
    return fields


def _part_name(head: bytes) -> bytes | None:
    """The field's name. Parameters are stepped over one by one: a file may be called
    `x; name=model`.
    """
    disposition = _DISPOSITION.search(head)
    at = disposition.end() if disposition else len(head)
    while (parameter := _PARAMETER.match(head, at)) is not None:
        name, quoted, plain = parameter.groups()
        if name.strip().lower() == b"name":
            return quoted if quoted is not None else plain.strip()
        at = parameter.end()
    return None


_NOT_PASSED: Final = frozenset(
    {
        # this hop's own business (RFC 9110, 7.6.1)
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        # set anew for the replica
        b"host",
        b"content-length",
        b"expect",
        b"x-request-id",
        # ours
        b"x-triolet-tier",
        b"x-triolet-deadline-ms",
        # a compressed answer could not be read for its errors and its usage
        b"accept-encoding",
    }
)


def passed_headers(headers: Headers, request_id: str) -> Headers:
    """The client's headers that go on to a replica, and the request's id."""
    dropped = _NOT_PASSED
    connection = b",".join([value for name, value in headers if name == b"connection"])
    if connection and connection.lower() not in (b"keep-alive", b"close"):
        # What Connection names is for this hop too.
        dropped |= {name.strip() for name in connection.lower().split(b",")}
    passed = [header for header in headers if header[0] not in dropped]
    passed.append((b"x-request-id", request_id.encode()))
    return passed
