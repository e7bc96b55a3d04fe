"""What these tests share: clients that call loopback, whatever proxy this machine uses."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_proxy_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
