"""Services out of the configuration."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec

from balancer.catalog import Catalog
from balancer.dispatch import Trace
from server.config import CodeConfig, Config, FilesConfig, PoolConfig, WebConfig, WorkflowConfig
from server.config.model import WorkflowTierConfig
from server.files import FileSettings, FileStore
from server.pool_models import PoolModels
from server.running.calls import AppCalls, Lookup
from server.running.runs import Running
from server.running.shelf import KnowledgeShelf
from server.sandbox import Sandbox, SandboxOptions
from server.tools.toolbox import Toolbox
from server.web.client import Client
from server.web.settings import WebSettings
from server.workflow.capacity import Capacity
from server.workflow.forms import FormBook
from server.workflow.jinja import InProcessJinja, TieredJinja
from server.workflow.limits import Limits
from server.workflow.model_names import ModelNames
from server.workflow.node import NodeRun, Work
from server.workflow.services import ModelFacts, ServiceFailed, Services
from server.workflow.values import File

__all__ = ["facts_of", "limits_of", "open_services", "slots_of"]

_FACTS: Final = ("context_tokens", "vision", "audio", "documents", "tools", "json_schema")
"""Of a pool's keys, those that say what its model can do."""

_BATCH_SHARE: Final = 4
"""Where no tiers are configured, `batch` has one slot for so many of `interactive`."""


@asynccontextmanager
async def open_services(
    config: Config,
    catalog: Catalog,
    *,
    allow_code: bool = False,
    apps: Lookup | None = None,
    on_call: Callable[[Trace, NodeRun], None] | None = None,
) -> AsyncIterator[Running]:
    """All that runs need, for as long as the block lasts; leaving it ends whatever is left of it.

    `catalog` is what models are served from, `apps` finds those that may be called as tools,
    `allow_code` is as `[code] enabled`, `on_call` hears of each call of a model.
    """
    calls = AppCalls(apps)
    async with AsyncExitStack() as stack:
        web = await stack.enter_async_context(Client(_web(config.web)))
        files = await stack.enter_async_context(FileStore(web, _files(config.files)))
        sandbox = await stack.enter_async_context(Sandbox(_sandbox(config.code, allow_code)))
        toolbox = await stack.enter_async_context(
            Toolbox(web, bindings=config.tools, workflows=calls)
        )
        upload = _upload(files)
        services = Services(
            models=PoolModels(
                catalog, ModelNames(config.models), facts=facts_of(config.pool), on_call=on_call
            ),
            web=web,
            code=sandbox,
            jinja=TieredJinja(InProcessJinja(), sandbox),
            documents=sandbox,
            files=files,
            tools=toolbox,
            knowledge=KnowledgeShelf(config.knowledge.dir),
            forms=FormBook(upload=upload),
        )
        running = calls.running = Running(
            services,
            Capacity(slots_of(config.workflow), share=config.workflow.app_share),
            limits_of(config.workflow),
            catalog=catalog,
            upload=upload,
        )
        yield running


def limits_of(config: WorkflowConfig) -> Limits:
    """What one run may take."""
    return Limits(
        steps=config.steps,
        time_s=config.time_s,
        depth=config.depth,
        value_items=config.value_items,
    )


def facts_of(pools: Iterable[PoolConfig]) -> dict[str, ModelFacts]:
    """What is configured of each model; what is not is as `ModelFacts` guesses."""
    told = {pool.model: {name: getattr(pool, name) for name in _FACTS} for pool in pools}
    return {
        model: ModelFacts(**{name: value for name, value in facts.items() if value is not None})
        for model, facts in told.items()
    }


def slots_of(config: WorkflowConfig, cores: int | None = None) -> dict[tuple[str, Work], int]:
    """By tier and kind of work. `cores` is how many there are, if not those of this machine."""
    cores = cores or _cores()
    slots: dict[tuple[str, Work], int] = {}
    for tier in config.tiers or _usual(cores):
        slots[tier.name, "model"] = tier.model
        slots[tier.name, "io"] = tier.io
        slots[tier.name, "cpu"] = tier.cpu or cores
    return slots


def _usual(cores: int) -> tuple[WorkflowTierConfig, ...]:
    first = WorkflowTierConfig(name="interactive", cpu=cores)
    batch = WorkflowTierConfig(
        name="batch",
        model=first.model // _BATCH_SHARE,
        io=first.io // _BATCH_SHARE,
        cpu=max(cores // _BATCH_SHARE, 1),
    )
    return (first, batch)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _web(config: WebConfig) -> WebSettings:
    return WebSettings(
        allow=config.allow,
        deny=config.deny,
        proxy=config.proxy,
        connections=config.connections,
        connections_per_host=config.connections_per_host,
    )


def _files(config: FilesConfig) -> FileSettings:
    return FileSettings(
        most_file_bytes=config.file_bytes,
        most_bytes=config.total_bytes,
        memory_bytes=config.memory_bytes,
        keep_s=config.keep_s,
    )


def _sandbox(config: CodeConfig, allow_code: bool) -> SandboxOptions:
    usual = SandboxOptions()
    limits = msgspec.structs.replace(
        usual.code, time_s=config.time_s, memory_bytes=config.memory_bytes
    )
    return msgspec.structs.replace(
        usual,
        enabled=config.enabled or allow_code,
        network=config.network,
        packages=config.packages,
        strict=config.strict,
        workers=config.workers or max(_cores(), 2),
        code=limits,
    )


def _upload(files: FileStore) -> Callable[[str], File | None]:
    def find(id: str) -> File | None:
        try:
            return files.file(id)
        except ServiceFailed:
            return None

    return find
