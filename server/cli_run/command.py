"""`triolet run`: options in, exit code out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

if TYPE_CHECKING:
    from server.config import Config
    from server.dify.dsl import Offers
    from server.dify.report import Report
    from server.workflow.app import App, Bindings

__all__ = ["run"]

_WRONG: Final = 2
"""Exit code: not importable, or inputs that it does not take."""

_LONGEST_QUERY: Final = 1_000_000
"""In bytes, of what is read from the standard input."""


@click.command("run")
@click.argument("app", metavar="FILE|APP")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input of the app; @FILE for a file, JSON for an object. May be repeated.",
)
@click.option("-q", "--query", metavar="TEXT", help="What a chat is asked; without it, a prompt.")
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="KEY=VALUE",
    help="Supply what the file lacks, as for `triolet apps import`. May be repeated.",
)
@click.option("--allow-code", is_flag=True, help="Run its code nodes, in locked-down processes.")
@click.option("--events", is_flag=True, help="Print every event as a line of JSON, nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, nothing else.")
@click.option(
    "--graph",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="SVG",
    help="Draw the run's timeline into this file.",
)
@click.option("--tier", default="interactive", show_default=True, help="Whose slots it takes.")
@click.option("--user", default="terminal", show_default=True, help="Who it says is asking.")
@click.option(
    "--config", "path", metavar="FILE", help="Configuration; default ./triolet.toml if it exists."
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key of the configuration, such as web.proxy=http://127.0.0.1:3128.",
)
def run(
    app: str,
    inputs: tuple[str, ...],
    query: str | None,
    binds: tuple[str, ...],
    allow_code: bool,
    events: bool,
    as_json: bool,
    graph: Path | None,
    tier: str,
    user: str,
    path: str | None,
    settings: tuple[str, ...],
) -> None:
    """Run an app: a Dify export, a file of the same format, or an imported app by its name.

    Its models are those that are configured, found on this machine, or a demo. Text comes as it is
    made. Exit code 0: it succeeded; 1: it failed; 2: it could not be read, or not with these
    inputs; 130: it was interrupted.
    """
    from server.cli_run.given import GivenError, given_event, given_inputs
    from server.cli_run.session import Asked, Shown, go
    from server.workflow.graph import begins_with_an_event

    if events and as_json:
        raise click.UsageError("--events and --json exclude one another")
    config = _config(path, settings)
    _check_tier(tier, config)
    loaded = _Loaded(config, app, binds, allow_code)
    try:
        if begins_with_an_event(loaded.app.graph):
            given = given_event(inputs)
        else:
            given = given_inputs(loaded.app.inputs, inputs)
    except GivenError as exc:
        _fail(str(exc))
    shown: Shown = "events" if events else "json" if as_json else "text"
    asked = Asked(inputs=given, query=_query(loaded.app, query), tier=tier, user=user)
    sys.exit(go(config, loaded, asked, shown, graph=graph))


def _config(path: str | None, settings: tuple[str, ...]) -> Config:
    from server.config import ConfigError, load

    flags: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
        flags[key.strip()] = value
    try:
        return load(path, environ=os.environ, flags=flags)
    except ConfigError as exc:
        _fail(str(exc))


def _check_tier(tier: str, config: Config) -> None:
    """A tier that nobody knows would have slots of its own, and no rank."""
    known = {each.name for each in config.workflow.tiers} or {"interactive", "batch"}
    known |= {each.name for pool in config.pool for each in pool.tiers}
    if tier not in known:
        _fail(f"there is no tier {tier!r}; there are {', '.join(sorted(known))}")


def _query(app: App, query: str | None) -> str | None:
    """What a chat is asked; None where it is to be asked for on the terminal."""
    if app.mode in ("workflow", "completion"):
        if query is not None and app.mode == "workflow":
            _fail("a workflow takes no --query; its inputs are given with --input")
        return query or ""
    if query is None and (sys.stdin is None or not sys.stdin.isatty()):
        query = _standard_input().strip()
        if not query:
            _fail("a chat needs something to answer: give it as --query, or on the standard input")
    return query


def _standard_input() -> str:
    """Nothing where the process was started with it closed."""
    read = b"" if sys.stdin is None else sys.stdin.buffer.read(_LONGEST_QUERY)
    return read.decode("utf-8", "replace")


class _Loaded:
    """The app, read from a file or from the folder of apps."""

    def __init__(self, config: Config, name: str, binds: tuple[str, ...], allow_code: bool) -> None:
        from server.apps import AppFolder

        self._config = config
        self._asked_for = name
        self.allow_code = allow_code
        self.folder = AppFolder(config.apps.dir or "apps")
        self._data, self._bindings, self._name = self._source(name, binds)
        self.app, self.report = self.read(self.offers(None))

    def read(self, offers: Offers) -> tuple[App, Report]:
        """The app and what it needs of what is offered. Ends the process if it is none."""
        from server.dify.dsl import DslError, read_app

        try:
            return read_app(self._data, self._bindings, offers, name=self._name)
        except DslError as exc:
            _fail(f"{self._asked_for}: {exc}")

    def offers(self, served: frozenset[str] | None) -> Offers:
        """What this server has, with these models; without, with those of the configured pools.
        Ends the process if the folder of apps cannot be read."""
        from server.apps import FolderError, offers_of

        try:
            return offers_of(
                self._config, self.folder, served=served or None, allow_code=self.allow_code
            )
        except FolderError as exc:
            _fail(str(exc))

    def find(self, id: str) -> App | None:
        """Another app of the folder, by id or name."""
        from server.apps import AppMissing, FolderError
        from server.dify.dsl import DslError

        try:
            return self.folder.load(id)
        except (AppMissing, FolderError, DslError):
            return None

    def _source(self, name: str, binds: tuple[str, ...]) -> tuple[bytes, Bindings, str | None]:
        from server.apps import AppMissing, FolderError
        from server.dify.bindings import BindingError, bound

        try:
            if name == "-" or Path(name).is_file():
                return _bytes(name), bound(binds), None
            record = self.folder.find(name)
            bindings = bound(binds, self.folder.bindings(record.id))
            return self.folder.file(record.id), bindings, record.given_name
        except AppMissing as exc:
            _fail(f"there is no file {name!r}, and {exc.args[0]}")
        except (BindingError, FolderError) as exc:
            _fail(str(exc))
        except OSError as exc:
            _fail(f"{name}: {exc.strerror or exc}")


def _bytes(name: str) -> bytes:
    """Bounded: one byte more than is read is enough to be refused."""
    from server.dify.dsl import Limits

    most = Limits().file_bytes + 1
    if name == "-":
        return sys.stdin.buffer.read(most)
    with Path(name).open("rb") as file:
        return file.read(most)


def _fail(message: str) -> NoReturn:
    click.echo(f"triolet: {message}", err=True)
    sys.exit(_WRONG)
