"""The folder of imported apps: each with its file byte for byte, its bindings, and a short record.

    apps/<id>/record.json         names the version below that counts
    apps/<id>/<version>/app.yml
    apps/<id>/<version>/bindings.json

Bindings may be secrets, and so may be what a file holds: nobody but the owner may read the folder.
A version is whole before the record names it, so that a crash leaves the old app or the new one.
All calls read or write files: a server makes them in a thread.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from server.dify.dsl import Limits, Offers, read_app
from server.dify.report import Findings, Report
from server.workflow.app import App, Bindings
from server.workflow.model_names import ModelNames
from server.workflow.reading import GraphError

if TYPE_CHECKING:
    from server.config import Config

__all__ = ["AppFolder", "AppMissing", "AppRecord", "FolderError", "checked", "offers_of"]


class FolderError(Exception):
    """The folder cannot be read or written, or what is in it is broken."""


class AppMissing(LookupError):
    """There is no such app, or more than one fits."""


class AppRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of apps shows, without reading them."""

    id: str
    name: str
    mode: str
    digest: str
    version: str = ""
    """Of the file's format."""
    description: str = ""
    source: str = ""
    """The path of the file that it was imported from; empty for the standard input."""
    given_name: str | None = None
    """What it was named at the import, if not as in the file."""
    imported_at: float = 0.0
    """Unix time, in seconds."""


_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_SHORTEST_PREFIX: Final = 4
_RECORD: Final = "record.json"
_LONGEST_SOURCE: Final = 4096
_MOST_RECORD_BYTES: Final = 64 * 1024
_MOST_BINDINGS_BYTES: Final = 32 * 1024 * 1024


class AppFolder:
    """Apps by name or id. What was read is kept in memory, by digest, as long as it is used."""

    def __init__(self, path: Path | str, *, kept: int = 128) -> None:
        """`kept`: apps that stay in memory."""
        self.path = Path(path)
        self._apps: _Kept[App] = _Kept(kept)
        self._writing = threading.Lock()

    def save(
        self,
        data: bytes,
        bindings: Bindings | None = None,
        *,
        name: str | None = None,
        source: str = "",
        offers: Offers | None = None,
    ) -> tuple[App, Report]:
        """Read a file and keep it, in place of an app of its name and mode. Raises `DslError`, and
        `FolderError` if it cannot be written."""
        app, report = read_app(data, bindings or Bindings(), offers or Offers(), name=name)
        record = AppRecord(
            id=app.id,
            name=app.name,
            mode=app.mode,
            digest=app.digest,
            version=app.version,
            description=app.description[:1000],
            source=source[:_LONGEST_SOURCE],
            given_name=name,
            imported_at=time.time(),
        )
        try:
            with self._writing:
                self._write(record, data, app.bindings)
        except OSError as exc:
            raise FolderError(f"{self.path}: {exc.strerror or exc}") from exc
        self._apps.put(app.digest, app)
        return app, report

    def earlier(self, app_id: str) -> AppRecord | None:
        """The app that an import of this id would replace. Raises `FolderError`."""
        path = self.path / app_id / _RECORD
        return self._record(path, app_id) if path.exists() else None

    def is_another(self, record: AppRecord, data: bytes, source: str) -> bool:
        """Whether a file is no new version of what is kept: neither the same bytes nor from the
        same place. What the app was given, secrets among it, is not meant for such a file."""
        same_place = bool(source) and source[:_LONGEST_SOURCE] == record.source
        return not same_place and self._file(record) != data

    def load(self, name: str) -> App:
        """By name, id, or the beginning of an id.

        Raises `AppMissing`, `FolderError`, or `DslError` if its file was changed by hand.
        """
        record = self.find(name)
        found = self._apps.get(record.digest)
        if found is None:
            found, _ = self._read(record, Offers())
            self._apps.put(found.digest, found)
        return found

    def report(self, name: str, offers: Offers | None = None) -> tuple[App, Report]:
        """The app, and what it needs of this server now."""
        return self._read(self.find(name), offers or Offers())

    def file(self, name: str) -> bytes:
        """The file as it was imported."""
        return self._file(self.find(name))

    def bindings(self, name: str) -> Bindings:
        """What it was imported with."""
        return self._bindings(self.find(name))

    def list(self) -> list[AppRecord]:
        """All of them, by name."""
        return sorted(self._records(), key=lambda each: (each.name.casefold(), each.id))

    def remove(self, name: str) -> AppRecord:
        """Take it away for good."""
        record = self.find(name)
        home = self.path / record.id
        gone = self.path / f".{record.id}.{secrets.token_hex(4)}"
        try:
            # First out of sight, at once; what takes time comes after.
            home.rename(gone)
            shutil.rmtree(gone)
        except OSError as exc:
            raise FolderError(f"{home}: {exc.strerror or exc}") from exc
        return record

    def find(self, name: str) -> AppRecord:
        """Its record. Raises `AppMissing`, naming those that would fit. By its whole id an app is
        found whatever state the others are in."""
        if _ID.match(name) and (path := self.path / name / _RECORD).exists():
            return self._record(path, name)
        records = self.list()
        fits = [each for each in records if name in (each.id, each.name)]
        if not fits and len(name) >= _SHORTEST_PREFIX:
            fits = [each for each in records if each.id.startswith(name)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            ids = ", ".join(f"{each.id} ({each.mode})" for each in fits[:5])
            raise AppMissing(f"{name!r} fits several apps: {ids}")
        raise AppMissing(f"there is no app {name!r} in {self.path}")

    def _records(self) -> Iterator[AppRecord]:
        try:
            entries = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir())
        except FileNotFoundError:
            return
        except OSError as exc:
            raise FolderError(f"{self.path}: {exc.strerror or exc}") from exc
        for name in entries:
            path = self.path / name / _RECORD
            if _ID.match(name) and path.exists():
                yield self._record(path, name)

    def _record(self, path: Path, id: str) -> AppRecord:
        try:
            record = msgspec.json.decode(self._bytes(path, _MOST_RECORD_BYTES), type=AppRecord)
        except msgspec.DecodeError as exc:
            raise FolderError(f"{path}: {exc}") from None
        if record.id != id or not re.fullmatch(r"[0-9a-f]{64}", record.digest):
            raise FolderError(f"{path}: it is not the record of {id}")
        return record

    def _read(self, record: AppRecord, offers: Offers) -> tuple[App, Report]:
        try:
            data, bindings = self._file(record), self._bindings(record)
        except FolderError:
            # An import may have replaced it since its record was read.
            newer = self.find(record.id)
            if newer.digest == record.digest:
                raise
            return self._read(newer, offers)
        return read_app(data, bindings, offers, name=record.given_name)

    def _file(self, record: AppRecord) -> bytes:
        return self._bytes(self._version(record) / "app.yml", Limits().file_bytes)

    def _bindings(self, record: AppRecord) -> Bindings:
        path = self._version(record) / "bindings.json"
        try:
            return msgspec.json.decode(self._bytes(path, _MOST_BINDINGS_BYTES), type=Bindings)
        except msgspec.DecodeError as exc:
            raise FolderError(f"{path}: {exc}") from None

    def _version(self, record: AppRecord) -> Path:
        return self.path / record.id / record.digest[:16]

    def _bytes(self, path: Path, most: int) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(most + 1)
        except OSError as exc:
            raise FolderError(f"{path}: {exc.strerror or exc}") from exc
        if len(data) > most:
            raise FolderError(f"{path}: it has more than {most} bytes")
        return data

    def _write(self, record: AppRecord, data: bytes, bindings: Bindings) -> None:
        home, version = self.path / record.id, self._version(record)
        version.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        _replace(version / "app.yml", data)
        _replace(version / "bindings.json", msgspec.json.encode(bindings))
        _replace(home / _RECORD, msgspec.json.format(msgspec.json.encode(record)))
        for old in home.iterdir():
            if old.is_dir() and old != version:
                shutil.rmtree(old, ignore_errors=True)


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that at any time there is the old one or the new one, on the disk too."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    except OSError:
        made.unlink(missing_ok=True)
        raise


def checked(app: App, report: Report) -> Report:
    """The report, with what compiling the graph has to say: a cycle, an edge to nowhere, a node
    whose data is wrong."""
    from server.workflow.graph import compile_graph

    if any(each.code == "node-type" for each in report.findings):
        return report
    try:
        compile_graph(app.graph, app.mode)
    except GraphError as exc:
        findings = Findings()
        findings.add("unsupported", "graph", exc.place, exc.message)
        return msgspec.structs.replace(report, findings=(*findings.all, *report.findings))
    return report


def offers_of(
    config: Config,
    folder: AppFolder,
    *,
    served: frozenset[str] | None = None,
    allow_code: bool = False,
) -> Offers:
    """What a server of this configuration has for the needs of apps.

    `served` are the models that it really serves; unless told, those of the configured pools.
    Raises `FolderError`.
    """
    pools = frozenset(pool.model for pool in config.pool)
    return Offers(
        models=ModelNames(config.models),
        served=pools if served is None else served,
        code=config.code.enabled or allow_code,
        knowledge=_names_in(config.knowledge.dir),
        tools=config.tools,
        providers=_installed_providers(),
        apps=frozenset(name for each in folder.list() for name in (each.name, each.id)),
    )


def _names_in(folder: str | None) -> frozenset[str]:
    """The names of the knowledge bases that a folder has."""
    try:
        return frozenset(each.name for each in Path(folder).iterdir()) if folder else frozenset()
    except OSError:  # whoever reads the bases says what is wrong
        return frozenset()


def _installed_providers() -> frozenset[str]:
    """Of tools, in packages beside Triolet."""
    from importlib.metadata import entry_points

    from server.tools.plugins import GROUP

    return frozenset(point.name for point in entry_points(group=GROUP))


T = TypeVar("T")


class _Kept(Generic[T]):
    """The values that were used last, up to a number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[str, T] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self._values[key] = value
            return value

    def put(self, key: str, value: T) -> None:
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            while len(self._values) > self._most:
                del self._values[next(iter(self._values))]
