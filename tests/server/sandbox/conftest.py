"""A sandbox for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.sandbox import Sandbox
from tests.server.sandbox.watching import options


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """CPython workers only, with short limits."""
    async with Sandbox(options()) as sandbox:
        yield sandbox
