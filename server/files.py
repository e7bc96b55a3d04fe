"""Where files are kept while runs use them: uploads, what nodes made, and what lies elsewhere.

Small and fresh files stay in memory; the rest goes to a directory that only this process may read,
and all of it goes when the process does. What is not used for `keep_s`, and what was used longest
ago when there is no room, is forgotten.
"""

from __future__ import annotations

import logging
import mimetypes
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final

import msgspec
import trio

from server.workflow.services import ServiceFailed, Web, WebFailed, WebRequest
from server.workflow.values import File, FileKind, Transfer

__all__ = ["FileSettings", "FileStore", "Kept", "extension_of", "kind_of_mime"]

log = logging.getLogger(__name__)

_CLOSING_S: Final = 5.0
_NAME_CHARACTERS: Final = 255

_DOCUMENTS: Final = frozenset(
    {
        *("application/pdf", "application/json", "application/xml", "application/epub+zip"),
        *("application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint"),
        *("application/rtf", "application/x-yaml"),
    }
)
_DOCUMENT_EXTENSIONS: Final = frozenset(
    {
        *(".txt", ".md", ".markdown", ".mdx", ".pdf", ".html", ".htm", ".xlsx", ".xls", ".csv"),
        *(".docx", ".doc", ".pptx", ".ppt", ".xml", ".epub", ".eml", ".msg", ".json", ".yaml"),
        *(".yml", ".vtt", ".properties", ".rtf", ".odt"),
    }
)


class FileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a `FileStore`."""

    most_file_bytes: int = 100 * 1024 * 1024
    """Of one file."""
    most_bytes: int = 2 * 1024 * 1024 * 1024
    """Of all files."""
    memory_bytes: int = 64 * 1024 * 1024
    """Of what is in memory for long. Until a file is on the disk, twice that may be."""
    most_files: int = 20_000
    keep_s: float = 24 * 3600.0
    """After the last use."""
    url: str = "/files"
    """What the URLs of kept files begin with."""


class Kept(msgspec.Struct):
    """A file that is here. `content` is None once it is in `path`."""

    id: str
    name: str
    mime_type: str
    size: int
    content: bytes | None
    used_at: float
    path: Path | None = None


class FileStore:
    """`services.Files`, for as long as its `async with` lasts.

    >>> async with FileStore(web) as files:
    ...     file = files.keep(b"hello", name="greeting.txt", mime_type="text/plain")
    """

    def __init__(self, web: Web, settings: FileSettings | None = None) -> None:
        self._web = web
        self._settings = settings or FileSettings()
        self._kept: dict[str, Kept] = {}
        self._bytes = 0
        self._in_memory = 0
        self._folder: Path | None = None
        self._nursery_manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None
        self._litter: list[Path] = []
        self._more = trio.Event()
        self._threads = trio.CapacityLimiter(4)

    async def __aenter__(self) -> FileStore:
        self._folder = Path(await trio.to_thread.run_sync(tempfile.mkdtemp, None, "triolet-files-"))
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._nursery.start_soon(self._write_out)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._nursery is not None
        assert self._nursery_manager is not None
        self._nursery.cancel_scope.cancel()
        try:
            # What went wrong in the caller's block is the caller's: no group around it.
            # It was cancelled just now: its one task ends at its next checkpoint.
            await self._nursery_manager.__aexit__(None, None, None)  # noqa: ASYNC102
        finally:
            self._kept.clear()
            folder, self._folder = self._folder, None
            with trio.move_on_after(_CLOSING_S, shield=True):
                await trio.to_thread.run_sync(_remove_tree, folder, abandon_on_cancel=True)

    # What nodes and APIs call

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        """Keep what a node made. Raises `ServiceFailed`: too large, or no room."""
        return self._file(self._take(content, name, mime_type), "tool_file")

    def upload(self, content: bytes, *, name: str, mime_type: str) -> File:
        """Keep what a user sent. Raises `ServiceFailed`: too large, or no room."""
        return self._file(self._take(content, name, mime_type), "local_file")

    def get(self, id: str) -> Kept | None:
        """What is known of a kept file; None if it is not here, or not any more."""
        self._forget_old()
        kept = self._kept.get(id)
        if kept is not None:
            self._use(kept)
        return kept

    def file(self, id: str, transfer: Transfer = "local_file") -> File:
        """The reference to a kept file, as clients name it by its id. Raises `ServiceFailed`."""
        return self._file(self._found(id), transfer)

    def forget(self, id: str) -> None:
        """Drop a file, if it is here."""
        kept = self._kept.pop(id, None)
        if kept is None:
            return
        self._bytes -= kept.size
        self._in_memory -= 0 if kept.content is None else kept.size
        if kept.path is not None:
            self._litter.append(kept.path)
            self._more.set()

    async def read(self, file: File, most_bytes: int) -> bytes:
        """See `services.Files`: by its id if it is kept, else from its URL."""
        if file.related_id is None or file.transfer_method == "remote_url":
            return await self._fetch(file, most_bytes)
        kept = self._found(file.related_id)
        if kept.size > most_bytes:
            raise ServiceFailed(
                f"the file {kept.name!r} has {kept.size} bytes; at most {most_bytes} are read",
                "FileTooLarge",
            )
        if kept.content is not None:
            return kept.content
        assert kept.path is not None
        return await self._on_disk(kept.path.read_bytes)

    async def content(self, id: str) -> bytes:
        """The bytes of a kept file, for a download. Raises `ServiceFailed`."""
        kept = self._found(id)
        if kept.content is not None:
            return kept.content
        assert kept.path is not None
        return await self._on_disk(kept.path.read_bytes)

    # Within

    def _take(self, content: bytes, name: str, mime_type: str) -> Kept:
        settings = self._settings
        if len(content) > settings.most_file_bytes:
            raise ServiceFailed(
                f"the file {name!r} has {len(content)} bytes; "
                f"at most {settings.most_file_bytes} are kept",
                "FileTooLarge",
            )
        self._make_room(len(content))
        kept = Kept(
            id=str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
            name=_name(name, mime_type),
            mime_type=mime_type or "application/octet-stream",
            size=len(content),
            content=content,
            used_at=trio.current_time(),
        )
        self._kept[kept.id] = kept
        self._bytes += kept.size
        self._in_memory += kept.size
        if self._in_memory > settings.memory_bytes:
            self._more.set()
        return kept

    def _make_room(self, size: int) -> None:
        settings = self._settings
        self._forget_old()
        while self._kept and (
            self._bytes + size > settings.most_bytes or len(self._kept) >= settings.most_files
        ):
            self.forget(next(iter(self._kept)))
        if self._in_memory + size > 2 * settings.memory_bytes + settings.most_file_bytes:
            raise ServiceFailed("files come in faster than they can be stored", "FileStoreBusy")

    def _forget_old(self) -> None:
        oldest = trio.current_time() - self._settings.keep_s
        while self._kept:
            kept = next(iter(self._kept.values()))
            if kept.used_at >= oldest:
                return
            self.forget(kept.id)

    def _use(self, kept: Kept) -> None:
        """The dict is in the order of use."""
        kept.used_at = trio.current_time()
        self._kept[kept.id] = self._kept.pop(kept.id)

    def _found(self, id: str) -> Kept:
        kept = self.get(id)
        if kept is None:
            raise ServiceFailed(f"the file {id!r} is not here, or not any more", "FileNotFound")
        return kept

    def _file(self, kept: Kept, transfer: Transfer) -> File:
        extension = extension_of(kept.name, kept.mime_type)
        return File(
            type=kind_of_mime(kept.mime_type, extension),
            transfer_method=transfer,
            name=kept.name,
            extension=extension,
            mime_type=kept.mime_type,
            size=kept.size,
            url=f"{self._settings.url}/{kept.id}{extension}",
            related_id=kept.id,
        )

    async def _fetch(self, file: File, most_bytes: int) -> bytes:
        if not file.url:
            raise ServiceFailed(f"the file {file.name!r} has no URL", "FileNotFound")
        request = WebRequest(method="GET", url=file.url, most_bytes=most_bytes)
        try:
            answer = await self._web.send(request)
        except WebFailed as error:
            raise ServiceFailed(f"the file {file.name!r}: {error.message}", error.type) from None
        if not 200 <= answer.status < 300:
            raise ServiceFailed(
                f"the file {file.name!r}: its server answered {answer.status}", "FileNotFound"
            )
        return answer.content

    async def _on_disk(self, read: Callable[[], bytes]) -> bytes:
        try:
            return await trio.to_thread.run_sync(read, limiter=self._threads)
        except OSError as error:
            raise ServiceFailed(f"a kept file cannot be read: {error}", "FileNotFound") from None

    async def _write_out(self) -> None:
        """Move what is too much for memory to the disk, longest unused first."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._litter:
                await trio.to_thread.run_sync(_remove, self._litter.pop(), limiter=self._threads)
            for kept in list(self._kept.values()):
                if self._in_memory <= self._settings.memory_bytes:
                    break
                if kept.content is not None and kept.id in self._kept:
                    await self._move(kept)

    async def _move(self, kept: Kept) -> None:
        assert self._folder is not None
        content = kept.content
        assert content is not None
        path = self._folder / kept.id
        try:
            await trio.to_thread.run_sync(path.write_bytes, content, limiter=self._threads)
        except OSError as error:
            log.warning("a file could not be written to %s and is dropped: %s", path, error)
            self.forget(kept.id)
            return
        if kept.id not in self._kept:
            self._litter.append(path)
            self._more.set()
            return
        kept.path, kept.content = path, None
        self._in_memory -= kept.size


def _remove_tree(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a file that nobody needs could not be removed from %s: %s", path, error)


def _name(name: str, mime_type: str) -> str:
    """A file's own name: no folders, no control characters, not too long."""
    last = PurePosixPath(name.replace("\\", "/")).name
    last = "".join(letter for letter in last if letter.isprintable())[-_NAME_CHARACTERS:]
    return last or f"file{mimetypes.guess_extension(mime_type) or '.bin'}"


def extension_of(name: str, mime_type: str = "") -> str:
    """With its dot: from the name, else from the type, else ".bin"."""
    suffix = PurePosixPath(name).suffix
    if 1 < len(suffix) <= 16 and suffix[1:].isalnum():
        return suffix.lower()
    return mimetypes.guess_extension(mime_type.partition(";")[0].strip()) or ".bin"


def kind_of_mime(mime_type: str, extension: str = "") -> FileKind:
    """Which of Dify's five kinds a file is of."""
    main, _, sub = mime_type.partition(";")[0].strip().lower().partition("/")
    if main in ("image", "audio", "video"):
        return main  # type: ignore[return-value]
    if main == "text" or f"{main}/{sub}" in _DOCUMENTS:
        return "document"
    if sub.startswith(("vnd.openxmlformats-", "vnd.oasis.opendocument")):
        return "document"
    return "document" if extension in _DOCUMENT_EXTENSIONS else "custom"
