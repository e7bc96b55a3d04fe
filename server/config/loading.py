"""From sources to a `Config`: read, check each source, lay one over another, check the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec import inspect

from server.config.check import (
    INVALID,
    Checker,
    Problem,
    Source,
    field_of,
    node_at,
    reachable,
    report_missing,
)
from server.config.hints import joined
from server.config.model import Config, ReplicaConfig, Replicas
from server.config.rules import check_replica_rules, check_replicas, check_rules
from server.config.sources import (
    ConfigSourceError,
    Entry,
    environment_entries,
    file_entry,
    flag_entries,
    listing_entry,
    merged_into,
)


class ConfigError(Exception):
    """The configuration cannot be used. Its text is one line per problem, for people to read."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def load(path: str | None, *, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """Read and check the configuration.

    `path`: the file; None means the one TRIOLET_CONFIG names, else ./triolet.toml if it exists.
    `environ`: where TRIOLET_ variables and "env:NAME" API keys are looked up.
    `flags`: dotted keys ("limits.body_bytes") to typed or textual values; None or () is not given.
    Raises ConfigError with every problem found, in all sources.
    """
    problems: list[Problem] = []
    root = inspect.type_info(Config)
    assert isinstance(root, inspect.StructType)
    try:
        file = file_entry(path, environ)
    except ConfigSourceError as error:
        problems.append(Problem(error.source, "", error.message))
        file = None
    unread = bool(problems)
    layers = _Layers(root, problems)
    for entry in _entries(file, environ, flags, root, problems):
        layers.add(entry)
    if not unread:  # Rules about the whole would blame what only the file lacks.
        layers.check_whole()
    if problems:
        raise ConfigError(problems)
    return msgspec.convert(layers.tree, Config)


class _ReplicaFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    replicas: Replicas


def load_replicas(path: str, *, environ: Mapping[str, str]) -> tuple[ReplicaConfig, ...]:
    """The replicas that a `replicas_file` lists: TOML, or JSON if its name ends with `.json`.

    Raises ConfigError with every problem found.
    """
    problems: list[Problem] = []
    try:
        entry = listing_entry(path, environ)
    except ConfigSourceError as error:
        raise ConfigError([Problem(error.source, "", error.message)]) from error

    def report(key: str, message: str) -> None:
        problems.append(Problem(entry.source.name, key, message))

    root = inspect.type_info(_ReplicaFile)
    checked = Checker(root, entry.source, report).check(root, entry.value, "", whole=True)
    if isinstance(checked, dict):
        check_replicas(checked.get("replicas"), "replicas", report)
    if problems:
        raise ConfigError(problems)
    return msgspec.convert(checked, _ReplicaFile).replicas


def check_replica(fields: Mapping[str, object]) -> tuple[ReplicaConfig | None, list[str]]:
    """A replica out of plain data that came over the wire, and what is wrong with it if it is None.

    "env:NAME" does not work there: who may add a replica must not be able to read the environment.
    Twenty problems are enough.
    """
    problems: list[str] = []

    def report(key: str, message: str) -> None:
        problems.append(f"{key} {message}")
        if len(problems) == _ENOUGH:
            raise _Enough

    root = inspect.type_info(ReplicaConfig)
    try:
        checker = Checker(root, Source("a request", "", None), report)
        checked = checker.check(root, dict(fields), "", whole=True)
        if isinstance(checked, dict):
            check_replica_rules(checked, "", report)
    except _Enough:
        return None, [*problems, "and maybe more"]
    return (None if problems else msgspec.convert(checked, ReplicaConfig)), problems


class _Enough(Exception):
    """So much is wrong that there is no use in looking on."""


_ENOUGH: Final = 20


def _entries(
    file: Entry | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    root: inspect.StructType,
    problems: list[Problem],
) -> Iterator[Entry]:
    """Every source's entries, weakest first."""
    keys = list(reachable(root))
    if file is not None:
        yield file
    yield from environment_entries(environ, root, keys, problems)
    yield from flag_entries(flags, environ, root, keys, problems)


class _Layers:
    """The sources laid over one another, and which source each key came from."""

    def __init__(self, root: inspect.StructType, problems: list[Problem]) -> None:
        self.tree: dict[str, object] = {}
        self._root = root
        self._problems = problems
        self._origins: dict[str, str] = {}

    def add(self, entry: Entry) -> None:
        """Check an entry and lay what is sound of it over the rest."""
        name = entry.source.name

        def report(key: str, message: str) -> None:
            self._problems.append(Problem(name, key, message))

        checker = Checker(self._root, entry.source, report)
        node = node_at(self._root, entry.path)
        checked = checker.check(node, entry.value, ".".join(entry.path), whole=False)
        if checked is not INVALID:
            merged_into(self.tree, entry.path, checked)
        self._origins.update(dict.fromkeys(_keys(entry), name))

    def check_whole(self) -> None:
        """Report required keys that no source gave, and rules between keys that are broken."""
        for one in self._root.fields:
            table, given = field_of(one.type).type, self.tree.get(one.name)
            if isinstance(table, inspect.StructType) and isinstance(given, dict):
                report_missing(table, given, one.name, self._report)
        check_rules(self.tree, self._report)

    def _report(self, key: str, message: str) -> None:
        # A key that is known to be bad is not also missing.
        if all(problem.key != key for problem in self._problems):
            self._problems.append(Problem(self._origin(key), key, message))

    def _origin(self, key: str) -> str:
        """The source of a key, or of what holds it: its list, its table."""
        own = key.partition("[")[0]
        while own and own not in self._origins:
            own = own.rpartition(".")[0]
        return self._origins.get(own, "defaults")


def _keys(entry: Entry) -> Iterator[str]:
    """The dotted key of all that an entry sets, outside lists, and of the tables around it."""
    for length in range(1, len(entry.path)):
        yield ".".join(entry.path[:length])
    yield from _keys_of(entry.value, ".".join(entry.path))


def _keys_of(value: object, key: str) -> Iterator[str]:
    if key:
        yield key
    for name, item in value.items() if isinstance(value, dict) else ():
        yield from _keys_of(item, joined(key, name))
