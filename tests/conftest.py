"""What every test shares: how hypothesis runs, and where a Triolet keeps its admin key."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadline: a slow moment of the machine is not a failure. CI tries the same examples every time.
settings.register_profile("triolet", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "triolet")


@pytest.fixture(scope="session", autouse=True)
def _keys_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Not among those of whoever runs the tests; subprocesses inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield
