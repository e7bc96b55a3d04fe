"""What tests of tools share: a run with a file store, and a toolbox with a real web client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from server.files import FileStore
from server.tools.toolbox import Toolbox
from server.web.client import Client, WebSettings
from server.workflow.app import Bindings, ToolRef
from server.workflow.node import Run
from tests.server.workflow.fakes import FakeRun, app, services


def ref(provider_id: str, name: str = "", type: str = "builtin") -> ToolRef:
    return ToolRef(provider_type=type, provider_id=provider_id, name=name)


def run_with(
    bindings: Mapping[str, dict[str, Any]] | None = None,
    files: Any = None,
    depth: int = 0,
) -> FakeRun:
    """A run of an app with these bindings of tools."""
    bound = app(bindings=Bindings(tools=dict(bindings or {})))
    return FakeRun(run=Run(id="r", app=bound, services=services(files=files), depth=depth))


@asynccontextmanager
async def toolbox(allow: tuple[str, ...] = (), **given: Any) -> AsyncIterator[Toolbox]:
    async with Client(WebSettings(allow=allow)) as web, Toolbox(web, **given) as tools:
        yield tools


@asynccontextmanager
async def kept_files() -> AsyncIterator[FileStore]:
    async with Client() as web, FileStore(web) as files:
        yield files
