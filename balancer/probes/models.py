"""The model list of an engine: `GET /v1/models`, which every engine answers."""

from __future__ import annotations

import msgspec

__all__ = ["ListedModel", "read_models"]


class ListedModel(msgspec.Struct, frozen=True):
    """One entry of a model list."""

    id: str
    owned_by: str | None = None


class _List(msgspec.Struct):
    data: list[ListedModel]


def read_models(body: bytes) -> tuple[ListedModel, ...] | None:
    """The models in the answer; None if it is no model list."""
    try:
        return tuple(msgspec.json.decode(body, type=_List).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
