"""The sandbox as the rest of the server sees it: code, templates, documents."""

from __future__ import annotations

import logging
from collections import OrderedDict
from types import TracebackType
from typing import Any, Final, Literal

import msgspec
import trio

from server.sandbox import monty
from server.sandbox.children import Profile
from server.sandbox.options import CallLimits, SandboxOptions
from server.sandbox.pool import WorkerPool, WorkFailed
from server.sandbox.scan import fits_monty
from server.workflow.services import CodeFailed
from server.workflow.values import plain

__all__ = ["Sandbox"]

logger = logging.getLogger("triolet.sandbox")

_CODE: Final = "CodeExecutionError"
_DOCUMENT: Final = "TextExtractionError"
_MONTY_INPUT: Final = 256 * 1024
"""Arguments larger than this go to a worker: Monty's client would convert them while it holds the
interpreter's lock."""
_REMEMBERED: Final = 1024
_HARMLESS: Final = ("json_repair",)
"""Packages of our own that code may import in any case: they compute, and do nothing else."""
_DISABLED: Final = (
    "code is not allowed to run here: set `enabled = true` in [code], or start with --allow-code"
)


class Sandbox:
    """Implements `services.Code`, `services.Documents` and the slow path of `services.Jinja`.

    `async with Sandbox(options) as sandbox`. Nothing is started before the first call that needs
    it; leaving the block kills all processes.
    """

    def __init__(self, options: SandboxOptions | None = None) -> None:
        self.options = options = options or SandboxOptions()
        self.output_limits = options.outputs
        self._code = _pool(options, _code_profile(options), options.code, options.idle_workers)
        self._templates = _pool(options, _template_profile(options), options.templates, 1)
        self._documents = _pool(options, _document_profile(options), options.documents, 0)
        self._monty: monty.MontyPool | None = None
        wanted = options.monty and monty.is_installed()
        if wanted and monty.is_allowed(strict=options.strict):
            self._monty = monty.MontyPool(options.code, workers=options.workers)
        self._unfit: OrderedDict[int, None] = OrderedDict()
        self._told = False

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            for pool in (self._code, self._templates, self._documents):
                await pool.close()
            if self._monty is not None:
                await self._monty.close()

    @property
    def busy(self) -> int:
        """Calls in flight."""
        pools = (self._code, self._templates, self._documents)
        return sum(pool.busy for pool in pools) + (self._monty.busy if self._monty else 0)

    @property
    def pids(self) -> list[int]:
        """Of all processes that live now."""
        pools = (self._code, self._templates, self._documents)
        found = [pid for pool in pools for pid in pool.pids]
        return found + (self._monty.pids if self._monty else [])

    async def run(
        self, language: Literal["python3", "javascript"], source: str, arguments: dict[str, Any]
    ) -> Any:
        """What `main(**arguments)` returned, as JSON has it. Raises `CodeFailed`."""
        if not self.options.enabled:
            raise CodeFailed(_DISABLED, _CODE)
        if language not in ("python3", "javascript"):
            raise CodeFailed(f"code in {language!r} is not run here", _CODE)
        body = _packed(source, arguments, self.options.code)
        if language == "python3" and self._goes_to_monty(source, body):
            result = await self._run_monty(source, plain(arguments), body)
        else:
            result = await self._run_worker(language, source, body)
        return _unpacked(result)

    async def render(self, source: str, values: dict[str, Any]) -> str:
        """A template rendered in a worker. Raises `CodeFailed`."""
        body = _packed(source, values, self.options.templates)
        job = {"job": "template", "source": source}
        text = await self._work(self._templates, job, body, self.options.templates, _CODE)
        return text.decode("utf-8", "replace")

    async def text_of(self, content: bytes, name: str, mime_type: str | None) -> str:
        """The text of a document. Raises `CodeFailed`: of a kind that is not read, or broken."""
        limits = self.options.documents
        if len(content) > limits.input_bytes:
            raise CodeFailed(f"the document is larger than {limits.input_bytes} bytes", _DOCUMENT)
        job = {"job": "document", "name": name, "mime_type": mime_type}
        text = await self._work(self._documents, job, content, limits, _DOCUMENT)
        return text.decode("utf-8", "replace")

    def _goes_to_monty(self, source: str, body: bytes) -> bool:
        if self._monty is None or self._monty.rests or len(body) > _MONTY_INPUT:
            return False
        return hash(source) not in self._unfit and fits_monty(source)

    async def _run_monty(self, source: str, arguments: dict[str, Any], body: bytes) -> bytes:
        """What fails there runs again in CPython: code nodes have no effects that could double.
        What fails only there does not go there again."""
        assert self._monty is not None
        try:
            result = await self._monty.call(source, arguments)
            msgspec.json.decode(result)
        except monty.MontyFailed as error:
            raise CodeFailed(str(error), _CODE) from error
        except (monty.MontyUnsure, msgspec.DecodeError):
            result = await self._run_worker("python3", source, body)
            self._remember(source)
        return result

    def _remember(self, source: str) -> None:
        self._unfit[hash(source)] = None
        while len(self._unfit) > _REMEMBERED:
            self._unfit.popitem(last=False)

    async def _run_worker(self, language: str, source: str, body: bytes) -> bytes:
        limits = self.options.code
        job = {"job": language, "source": source, "memory_bytes": limits.memory_bytes}
        return await self._work(self._code, job, body, limits, _CODE)

    async def _work(
        self, pool: WorkerPool, job: dict[str, Any], body: bytes, limits: CallLimits, type: str
    ) -> bytes:
        try:
            return await pool.work(job, body, limits.output_bytes)
        except WorkFailed as error:
            # What code says of itself is not to be told from what a worker says: it has one type.
            kind = type if pool is self._code else error.type or type
            raise CodeFailed(str(error), kind) from error
        finally:
            self._tell(pool)

    def _tell(self, pool: WorkerPool) -> None:
        """Say once what this kernel lacks."""
        if self._told or pool.locks is None:
            return
        self._told = True
        lacking = {"landlock", "seccomp"} - set(pool.locks)
        if lacking:
            logger.warning(
                "this kernel lacks %s: workers are limited in time, memory and user, but not"
                " locked down; [code] strict = true refuses to run them",
                " and ".join(sorted(lacking)),
            )


def _pool(options: SandboxOptions, profile: Profile, limits: CallLimits, idle: int) -> WorkerPool:
    return WorkerPool(
        profile,
        workers=options.workers,
        idle=min(idle, options.workers),
        strict=options.strict,
        time_s=limits.time_s,
    )


def _code_profile(options: SandboxOptions) -> Profile:
    packages = options.packages + (("requests",) if options.network else ())
    return Profile(
        name="code",
        prepare=("server.sandbox.python_job", "server.sandbox.javascript"),
        preload=(*_HARMLESS, *packages),
        packages=bool(packages),
        network=options.network,
        memory_bytes=options.code.memory_bytes,
        cpu_s=_cpu_s(options.code),
    )


def _template_profile(options: SandboxOptions) -> Profile:
    return Profile(
        name="templates",
        prepare=("server.sandbox.jinja_worker",),
        packages=True,
        memory_bytes=options.templates.memory_bytes,
        cpu_s=_cpu_s(options.templates),
    )


def _document_profile(options: SandboxOptions) -> Profile:
    return Profile(
        name="documents",
        prepare=("server.sandbox.document_text",),
        packages=True,
        memory_bytes=options.documents.memory_bytes,
        cpu_s=_cpu_s(options.documents),
    )


def _cpu_s(limits: CallLimits) -> int:
    """A second net: the deadline comes first."""
    return int(limits.time_s) + 2


def _packed(source: str, values: dict[str, Any], limits: CallLimits) -> bytes:
    try:
        body = msgspec.json.encode(plain(values))
    except (TypeError, ValueError, RecursionError) as error:
        raise CodeFailed(f"the arguments cannot be JSON: {error}", _CODE) from error
    if len(body) + len(source) > limits.input_bytes:
        raise CodeFailed(f"the arguments are larger than {limits.input_bytes} bytes", _CODE)
    return body


def _unpacked(result: bytes) -> Any:
    try:
        return msgspec.json.decode(result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CodeFailed(f"the result is not JSON: {error}", _CODE) from error
