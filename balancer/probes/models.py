"""The model list of an engine: `GET /v1/models`, which every engine answers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["ListedModel", "read_models"]


_READ_BYTES: Final = 262_144
"""A longer list is not read: it would hold the loop, and no engine has one."""


class ListedModel(msgspec.Struct, frozen=True):
    """One entry of a model list."""

    id: str
    owned_by: str | None = None
    max_model_len: Any = None
    """Tokens of a prompt and its answer (vLLM, SGLang)."""
    meta: Any = None
    """llama.cpp's, with `n_ctx_train`, and `n_ctx` in some versions."""

    @property
    def context_tokens(self) -> int | None:
        """Tokens of a prompt and its answer together, as far as it says."""
        meta = self.meta if isinstance(self.meta, dict) else {}
        told = (self.max_model_len, meta.get("n_ctx"), meta.get("n_ctx_train"))
        return next((one for one in told if type(one) is int and one > 0), None)


class _List(msgspec.Struct):
    data: list[ListedModel]


def read_models(body: bytes) -> tuple[ListedModel, ...] | None:
    """The models in the answer; None if it is no model list, or over 256 KiB."""
    if len(body) > _READ_BYTES:
        return None
    try:
        return tuple(msgspec.json.decode(body, type=_List).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
