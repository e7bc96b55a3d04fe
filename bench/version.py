"""Which Triolet this is."""

from __future__ import annotations

from importlib import metadata
from typing import Final

__all__ = ["NOT_INSTALLED", "triolet_version"]

NOT_INSTALLED: Final = "(not installed)"
"""For tables."""


def triolet_version() -> str | None:
    """The installed release; None if it runs from a checkout that is not installed."""
    try:
        return metadata.version("triolet")
    except metadata.PackageNotFoundError:
        return None
