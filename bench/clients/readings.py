"""Reading numbers out of result files that other programs wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench.clients.result import ClientFailed

__all__ = ["number", "optional_number", "read_json"]


def read_json(file: Path) -> Any:
    """The content of a result file. Raises ClientFailed if there is none, or it is not JSON."""
    try:
        return msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise ClientFailed(f"{file}: no result was written: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ClientFailed(f"{file}: {error}") from error


def number(content: Any, *path: str) -> float:
    """The number at `path` of nested objects. Raises ClientFailed if it is not there."""
    found = optional_number(content, *path)
    if found is None:
        raise ClientFailed(f"the result has no number at {'.'.join(path)}")
    return found


def optional_number(content: Any, *path: str) -> float | None:
    """The number at `path` of nested objects, None if it is missing or null.

    Raises ClientFailed if something else stands there.
    """
    for key in path:
        if not isinstance(content, dict):
            return None
        content = content.get(key)
    if content is None:
        return None
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ClientFailed(f"the result has {content!r} at {'.'.join(path)}: expected a number")
    return float(content)
