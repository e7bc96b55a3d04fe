"""The commands `triolet apps import`, `list`, `show`, `remove` and `schema`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from server.apps import AppFolder, AppRecord
    from server.dify.needs import Offers
    from server.dify.report import Report
    from server.workflow.app import App, Bindings

__all__ = ["apps"]

_NEEDS: Final = 1
"""Exit code: imported, and it still needs something."""
_FAILED: Final = 2
"""Exit code: not imported."""

_config = click.option(
    "--config", "config", metavar="FILE", help="Configuration; default ./triolet.toml if it exists."
)
_dir = click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder of apps; default [apps] dir, or ./apps.",
)
_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")


@click.group()
def apps() -> None:
    """Import Dify apps, and look at what is imported."""


@apps.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="KEY=VALUE",
    help="Supply what the file lacks; keys as the report names them. In tool: and env:, @FILE"
    " takes the value from a file.",
)
@click.option(
    "--bindings",
    "bindings_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A TOML or JSON file of bindings; --bind goes over it.",
)
@click.option("--fresh", is_flag=True, help="Forget the bindings of an earlier import.")
@click.option("--name", help="Another name than the file's.")
@click.option(
    "--replace",
    is_flag=True,
    help="Replace an app of this name that came from another file; it keeps its bindings.",
)
@click.option("--check", is_flag=True, help="Report only; keep nothing.")
@_json
@_config
@_dir
def import_(
    file: Path,
    binds: tuple[str, ...],
    bindings_file: Path | None,
    fresh: bool,
    name: str | None,
    replace: bool,
    check: bool,
    as_json: bool,
    config: str | None,
    folder: Path | None,
) -> None:
    """Import FILE (- is the standard input) and say what it needs.

    Nothing is run and nothing fetched. Exit code 0: the app can run; 1: it needs something first,
    which the report names; 2: it was not imported.
    """
    from server.apps import AppMissing, FolderError
    from server.dify.bindings import BindingError
    from server.dify.yaml_reading import DslError

    home = _Home(config, folder)
    try:
        bindings = _bindings(binds, bindings_file)
        imported = _Import(home, file, bindings, name)
        may_replace = replace or name is not None
        app, report = imported.look(fresh=fresh, may_replace=may_replace)
        if not check:
            imported.keep()
    except (BindingError, DslError) as exc:
        _fail(f"{file}: {exc}" if isinstance(exc, DslError) else str(exc))
    except (AppMissing, FolderError) as exc:
        _fail(str(exc.args[0]))
    except OSError as exc:
        _fail(f"{file}: {exc.strerror or exc}")
    if as_json:
        click.echo(_as_json(app, report))
    else:
        from server.dify.report_text import report_lines

        done = "Checked" if check else "Replaced" if imported.replaces else "Imported"
        first = f"{done} {app.name} ({app.mode}), id {app.id}{_kept(imported.kept)}"
        _print([first, *report_lines(report)])
    sys.exit(0 if report.is_runnable else _NEEDS)


class _Import:
    """One file on its way into the folder."""

    def __init__(self, home: _Home, file: Path, bindings: Bindings, name: str | None) -> None:
        self._home = home
        self._file = file
        self._bindings = bindings
        self._name = name
        self._data = _file_bytes(file)
        self._source = "" if str(file) == "-" else str(file.resolve())
        self._refusal = ""
        self.replaces = False
        self.kept = 0
        """Bindings of an earlier import that count."""

    def look(self, *, fresh: bool, may_replace: bool) -> tuple[App, Report]:
        """Read it with its bindings, over those that an earlier import of the app was given: not
        of an app that came from another file, unless it may replace that."""
        from server.apps import checked
        from server.dify.bindings import merged
        from server.dify.dsl import read_app

        app, report = read_app(self._data, self._bindings, self._home.offers(), name=self._name)
        earlier = self._home.folder.earlier(app.id)
        self.replaces = earlier is not None
        if earlier is None:
            return app, checked(app, report)
        if not may_replace and self._home.folder.is_another(earlier, self._data, self._source):
            self._refusal = _another(earlier, self._file, self._source)
        elif not fresh:
            given, before = self._bindings, self._home.folder.bindings(app.id)
            self._bindings = merged(before, given)
            self.kept = len(_keys(before) - _keys(given))
            app, report = read_app(self._data, self._bindings, self._home.offers(), name=self._name)
        return app, checked(app, report)

    def keep(self) -> None:
        """Ends the process if it would replace an app that came from another file."""
        if self._refusal:
            _fail(self._refusal)
        self._home.folder.save(self._data, self._bindings, name=self._name, source=self._source)


def _another(earlier: AppRecord, file: Path, source: str) -> str:
    changed = f"{source} of {_date(file.stat().st_mtime)}" if source else "the standard input"
    return (
        f"there is an app {earlier.name!r} ({earlier.mode}), imported on "
        f"{_date(earlier.imported_at)} from {earlier.source or 'the standard input'}; {changed} is "
        "another file. --replace puts it in its place, with its bindings; --name NAME keeps both"
    )


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _keys(bindings: Bindings) -> set[tuple[str, ...]]:
    found = {("model", key) for key in bindings.models}
    found |= {("knowledge", key) for key in bindings.knowledge}
    found |= {("environment", key) for key in bindings.environment}
    tools: set[tuple[str, ...]] = {
        ("tool", key, name) for key, settings in bindings.tools.items() for name in settings
    }
    return tools | found


def _kept(count: int) -> str:
    return f"; kept {count} binding{'' if count == 1 else 's'}" if count else ""


@apps.command("list")
@_json
@_config
@_dir
def list_(as_json: bool, config: str | None, folder: Path | None) -> None:
    """List the imported apps."""
    import msgspec

    records = _Home(config, folder).guarded(lambda apps: apps.list())
    if as_json:
        click.echo(msgspec.json.encode(records).decode())
        return
    from server.dify.report_text import columns

    rows = [(each.name, each.mode, each.version, each.id) for each in records]
    _print(columns([("NAME", "MODE", "FORMAT", "ID"), *rows]) if rows else ["No apps."])


@apps.command("show")
@click.argument("name")
@click.option("--file", "whole", is_flag=True, help="Print the file as it was imported.")
@_json
@_config
@_dir
def show(name: str, whole: bool, as_json: bool, config: str | None, folder: Path | None) -> None:
    """Show what the app NAME (or its id) has and needs."""
    from server.apps import checked

    home = _Home(config, folder)
    if whole:
        sys.stdout.buffer.write(home.guarded(lambda apps: apps.file(name)))
        return
    app, report = home.guarded(lambda apps: apps.report(name, home.offers()))
    report = checked(app, report)
    if as_json:
        click.echo(_as_json(app, report))
        return
    from server.dify.report_text import report_lines

    _print([f"{app.name} ({app.mode}), id {app.id}", *report_lines(report)])


@apps.command("remove")
@click.argument("name")
@_config
@_dir
def remove(name: str, config: str | None, folder: Path | None) -> None:
    """Remove the app NAME (or its id) with its bindings."""
    record = _Home(config, folder).guarded(lambda apps: apps.remove(name))
    _print([f"Removed {record.name} ({record.mode}), id {record.id}"])


@apps.command("schema")
def schema() -> None:
    """Print the JSON Schema of app files, for editors."""
    import json

    from server.dify.schema import app_schema

    click.echo(json.dumps(app_schema(), indent=2, ensure_ascii=False))


class _Home:
    """The folder of apps, and the server that they are meant for."""

    def __init__(self, config: str | None, folder: Path | None) -> None:
        from server.apps import AppFolder
        from server.config import ConfigError, load

        try:
            self._config: Any = load(config, environ=os.environ, flags={})
        except ConfigError as exc:
            _fail(str(exc))
        self.folder: AppFolder = AppFolder(folder or self._config.apps.dir or "apps")

    def offers(self) -> Offers:
        """What the configured server has for the needs of apps."""
        from server.apps import offers_of

        return offers_of(self._config, self.folder)

    def guarded(self, do: Any) -> Any:
        """What `do` says of the folder; or exit, saying why it cannot."""
        from server.apps import AppMissing, FolderError
        from server.dify.yaml_reading import DslError

        try:
            return do(self.folder)
        except (AppMissing, FolderError, DslError) as exc:
            _fail(str(exc.args[0] if isinstance(exc, AppMissing) else exc))


def _bindings(binds: tuple[str, ...], file: Path | None) -> Bindings:
    from server.dify.bindings import bound, read_bindings

    base = None if file is None else read_bindings(_file_bytes(file), file.name)
    return bound(binds, base, _value_of)


def _value_of(name: str) -> str:
    from server.dify.bindings import BindingError

    try:
        return _file_bytes(Path(name)).decode().rstrip("\n")
    except OSError as exc:
        raise BindingError(f"@{name}: {exc.strerror or exc}") from None
    except UnicodeDecodeError:
        raise BindingError(f"@{name}: it is not a text") from None


def _file_bytes(path: Path) -> bytes:
    """Bounded: one byte more than is read is enough to be refused."""
    from server.dify.yaml_reading import Limits

    most = Limits().file_bytes + 1
    if str(path) == "-":
        return sys.stdin.buffer.read(most)
    with path.open("rb") as file:
        return file.read(most)


def _as_json(app: App, report: Report) -> str:
    import msgspec

    told = {
        "id": app.id,
        "digest": app.digest,
        "is_runnable": report.is_runnable,
        **msgspec.structs.asdict(report),
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()


def _print(lines: list[str]) -> None:
    from server.dify.report_text import printable

    click.echo("\n".join(map(printable, lines)))


def _fail(message: str) -> NoReturn:
    from server.dify.report_text import printable

    click.echo(printable(f"triolet: {message}"), err=True)
    sys.exit(_FAILED)
