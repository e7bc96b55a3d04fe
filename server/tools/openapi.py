"""OpenAPI 3.x and Swagger 2 documents, read into operations. Pure.

A document is hostile until shown otherwise: its references may lead in circles or unfold to
millions of schemas, so that only local ones are followed, to a bounded depth and number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urljoin

import msgspec

from server.dify.yaml_reading import DslError, Limits, read_yaml

__all__ = ["Body", "Document", "DocumentError", "Operation", "Parameter", "parse", "read_document"]

MOST_BYTES: Final = 4 * 1024 * 1024
MOST_OPERATIONS: Final = 1000
_MOST_DEPTH: Final = 12
_MOST_SCHEMAS: Final = 20_000

Place: TypeAlias = Literal["path", "query", "header", "cookie"]
_LIMITS: Final = Limits(file_bytes=MOST_BYTES)
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_BODY_TYPES: Final = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
)
"""Those that can be written, best first."""


_OF_SCHEMAS: Final = frozenset(
    ("properties", "allOf", "anyOf", "oneOf", "items", "additionalProperties", "not")
)


class DocumentError(ValueError):
    """A document that is none, or that cannot be used; says where and why."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One that stands outside the body."""

    name: str
    place: Place
    required: bool
    schema: dict[str, Any]
    style: str = ""
    explode: bool = True


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and as what. Properties of an object are arguments of their own."""

    media_type: str
    schema: dict[str, Any]
    required: bool = False


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What one tool does."""

    name: str
    method: str
    path: str
    description: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    server: str

    @property
    def whole_body(self) -> bool:
        """Whether the body is one argument, `body`, rather than one for each property."""
        return self.body is not None and not self.body.schema.get("properties")

    @property
    def schema(self) -> dict[str, Any]:
        """Of the arguments, as JSON Schema."""
        properties = {one.name: one.schema for one in self.parameters}
        required = [one.name for one in self.parameters if one.required]
        if self.body is not None and self.whole_body:
            properties["body"] = self.body.schema
            required += ["body"] if self.body.required else []
        elif self.body is not None:
            properties = dict(self.body.schema["properties"]) | properties
            wanted = self.body.schema.get("required")
            required += [str(name) for name in wanted] if isinstance(wanted, list) else []
        return {
            "type": "object",
            "properties": properties,
            "required": list(dict.fromkeys(required)),
        }


class Document(msgspec.Struct, frozen=True):
    """An API as tools."""

    title: str
    operations: dict[str, Operation]


def parse(text: str | bytes) -> dict[str, Any]:
    """JSON or YAML. Takes long for large documents: not for the event loop. Raises
    `DocumentError`."""
    if len(text) > MOST_BYTES:
        raise DocumentError(f"the document is larger than {MOST_BYTES} bytes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _yaml(text)
    if not isinstance(found, dict):
        raise DocumentError("the document is no mapping: neither OpenAPI 3 nor Swagger 2")
    return found


def _yaml(text: str | bytes) -> Any:
    try:
        return read_yaml(text, _LIMITS).value
    except DslError as error:
        raise DocumentError(f"the document is neither JSON nor YAML: {error}"[:500]) from None


def read_document(data: Mapping[str, Any], base_url: str = "", found_at: str = "") -> Document:
    """Its operations as tools. `base_url` counts before its servers; `found_at`, the URL that it
    came from, is what relative servers are relative to. Raises `DocumentError`."""
    if str(data.get("swagger", "")).startswith("2"):
        reader: _Reader = _Swagger2(data)
    elif str(data.get("openapi", "")).startswith("3"):
        reader = _Reader(data)
    else:
        raise DocumentError('the document says neither `openapi: "3..."` nor `swagger: "2.0"`')
    server = base_url or reader.server(found_at)
    operations: dict[str, Operation] = {}
    for operation in reader.operations(server, bool(base_url), found_at):
        operations[operation.name] = operation
        if len(operations) > MOST_OPERATIONS:
            raise DocumentError(f"the document has more than {MOST_OPERATIONS} operations")
    if not operations:
        raise DocumentError("the document has no operations")
    return Document(str(_mapping(data.get("info")).get("title", "")), operations)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class _Reader:
    """OpenAPI 3."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._schemas_left = _MOST_SCHEMAS

    def server(self, found_at: str) -> str:
        return _server(self._data.get("servers"), found_at)

    def operations(self, server: str, fixed: bool, found_at: str) -> Iterator[Operation]:
        for path, item in _mapping(self._data.get("paths")).items():
            item = _mapping(self.followed(item))
            shared = _list(item.get("parameters"))
            for method in _METHODS:
                if isinstance(item.get(method), Mapping):
                    data = item[method]
                    own = data.get("servers") or item.get("servers")
                    there = _server(own, found_at) if own and not fixed else server
                    yield self._operation(str(path), method, data, shared, there)

    def _operation(
        self, path: str, method: str, data: Mapping[str, Any], shared: list[Any], server: str
    ) -> Operation:
        given = [_mapping(self.followed(one)) for one in [*shared, *_list(data.get("parameters"))]]
        description = str(data.get("description") or data.get("summary") or "")
        return Operation(
            name=str(data.get("operationId") or _made_name(path, method))[:200],
            method=method.upper(),
            path=path,
            description=description[:4000],
            parameters=tuple(self.parameters(given)),
            body=self.body(data, given),
            server=server,
        )

    def parameters(self, given: list[Mapping[str, Any]]) -> list[Parameter]:
        """Those of the operation over those of its path."""
        found: dict[tuple[str, str], Parameter] = {}
        for one in given:
            place, name = one.get("in"), str(one.get("name", ""))
            if name and place in ("path", "query", "header", "cookie"):
                found[name, place] = Parameter(
                    name=name,
                    place=place,
                    required=bool(one.get("required")) or place == "path",
                    schema=self._described(one),
                    style=self.style(one),
                    explode=self.explodes(one),
                )
        return list(found.values())

    def _described(self, one: Mapping[str, Any]) -> dict[str, Any]:
        schema = self.schema_of(one)
        if one.get("description"):
            schema = schema | {"description": str(one["description"])[:4000]}
        return schema

    def schema_of(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """The schema of a parameter."""
        content = _mapping(one.get("content"))
        inner = next((_mapping(media).get("schema") for media in content.values()), None)
        return self.unfolded(one.get("schema", inner))

    def style(self, one: Mapping[str, Any]) -> str:
        return str(one.get("style", ""))

    def explodes(self, one: Mapping[str, Any]) -> bool:
        default = one.get("style", "form") == "form" and one.get("in") in ("query", "cookie")
        return bool(one.get("explode", default))

    def body(self, data: Mapping[str, Any], given: list[Mapping[str, Any]]) -> Body | None:
        request = _mapping(self.followed(data.get("requestBody")))
        content = _mapping(request.get("content"))
        if not content:
            return None
        media_type = next(
            (one for one in _BODY_TYPES if one in content),
            next((one for one in content if "json" in one), next(iter(content))),
        )
        schema = self.unfolded(_mapping(content[media_type]).get("schema"))
        return Body(media_type=media_type, schema=schema, required=bool(request.get("required")))

    def followed(self, value: Any) -> Any:
        """What a reference leads to; only references within the document are followed."""
        for _ in range(_MOST_DEPTH):
            if not isinstance(value, Mapping) or "$ref" not in value:
                return value
            value = self._at(str(value["$ref"]))
        return {}

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            return {}
        found: Any = self._data
        for part in reference[2:].split("/"):
            found = _mapping(found).get(part.replace("~1", "/").replace("~0", "~"))
        return found

    def unfolded(self, schema: Any, depth: int = 0) -> dict[str, Any]:
        """A schema without references. What is too deep or goes in circles becomes "anything"."""
        self._schemas_left -= 1
        schema = self.followed(schema)
        if not isinstance(schema, Mapping) or depth >= _MOST_DEPTH or self._schemas_left <= 0:
            return {}
        found: dict[str, Any] = {}
        for key, value in schema.items():
            found[str(key)] = self._unfolded_part(key, value, depth + 1)
        merged = _merged(found.pop("allOf", []), found)
        if merged.pop("nullable", False) and isinstance(merged.get("type"), str):
            merged["type"] = [merged["type"], "null"]
        return merged

    def _unfolded_part(self, key: str, value: Any, depth: int) -> Any:
        if self._schemas_left <= 0 and key in _OF_SCHEMAS:
            return [] if isinstance(value, list) else {}
        if key == "properties" and isinstance(value, Mapping):
            return {str(name): self.unfolded(one, depth) for name, one in value.items()}
        if key in ("allOf", "anyOf", "oneOf") and isinstance(value, list):
            return [self.unfolded(one, depth) for one in value]
        if key in ("items", "additionalProperties", "not") and isinstance(value, Mapping):
            return self.unfolded(value, depth)
        return value


class _Swagger2(_Reader):
    """Swagger 2: host and schemes, schemas beside the names, bodies and forms as parameters."""

    def server(self, found_at: str) -> str:
        host = self._data.get("host")
        path = str(self._data.get("basePath", "")).rstrip("/")
        if not host:
            return urljoin(found_at, path or "/").rstrip("/") if found_at else ""
        schemes = [str(one) for one in _list(self._data.get("schemes"))]
        scheme = "https" if not schemes or "https" in schemes else schemes[0]
        return f"{scheme}://{host}{path}"

    def schema_of(self, one: Mapping[str, Any]) -> dict[str, Any]:
        if "schema" in one:
            return self.unfolded(one["schema"])
        left_out = ("name", "in", "required", "collectionFormat", "allowEmptyValue")
        kind = {key: value for key, value in one.items() if key not in left_out}
        return self.unfolded({} if kind.get("type") == "file" else kind)

    def style(self, one: Mapping[str, Any]) -> str:
        return {"ssv": "spaceDelimited", "pipes": "pipeDelimited"}.get(
            str(one.get("collectionFormat", "")), ""
        )

    def explodes(self, one: Mapping[str, Any]) -> bool:
        return one.get("collectionFormat") == "multi"

    def body(self, data: Mapping[str, Any], given: list[Mapping[str, Any]]) -> Body | None:
        for one in given:
            if one.get("in") == "body":
                schema = self.unfolded(one.get("schema"))
                return Body(
                    media_type="application/json",
                    schema=schema,
                    required=bool(one.get("required")),
                )
        fields = {str(one.get("name")): one for one in given if one.get("in") == "formData"}
        if not fields:
            return None
        consumes = _list(data.get("consumes", self._data.get("consumes")))
        has_file = any(one.get("type") == "file" for one in fields.values())
        multipart = has_file or "multipart/form-data" in consumes
        schema = {
            "type": "object",
            "properties": {name: self._described(one) for name, one in fields.items()},
            "required": [name for name, one in fields.items() if one.get("required")],
        }
        return Body(media_type=_BODY_TYPES[2 if multipart else 1], schema=schema)


def _merged(parts: Any, own: dict[str, Any]) -> dict[str, Any]:
    """`allOf` of objects as one object: what models and forms can be shown."""
    if not parts:
        return own
    merged: dict[str, Any] = {}
    for part in [*parts, own]:
        properties = {**_mapping(merged.get("properties")), **_mapping(part.get("properties"))}
        required = [*_list(merged.get("required")), *_list(part.get("required"))]
        merged |= part
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = required
    return merged


def _server(servers: Any, found_at: str) -> str:
    """The first server's URL with its variables' defaults."""
    first = _mapping(next(iter(_list(servers)), None))
    url = str(first.get("url", ""))
    for name, variable in _mapping(first.get("variables")).items():
        url = url.replace(f"{{{name}}}", str(_mapping(variable).get("default", "")))
    if "://" not in url:
        url = urljoin(found_at, url or "/") if found_at else url
    return url.rstrip("/")


def _made_name(path: str, method: str) -> str:
    """The name of an operation that has none, as Dify makes it: "generate-audio_post"."""
    return f"{re.sub(r'[^a-zA-Z0-9_-]', '', path.removeprefix('/'))}_{method}"
