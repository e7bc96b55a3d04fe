"""JSON of any size, read without holding the loop."""

from __future__ import annotations

import json
from typing import Any, Final

import trio

__all__ = ["read_json"]

_ON_LOOP: Final = 65_536
"""Bytes or characters that are read at once: about half a millisecond."""


async def read_json(data: str | bytes) -> Any:
    """The value; control characters within texts are taken. Raises ValueError, also for what is
    nested too deeply."""
    if len(data) <= _ON_LOOP:
        return _read(data)
    return await trio.to_thread.run_sync(_read, data, abandon_on_cancel=True)


def _read(data: str | bytes) -> Any:
    try:
        return json.loads(data, strict=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
