"""What a gateway under comparison is: where it comes from, what it can do, how it is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DebianPackage", "Gateway", "NpmPackage", "Place", "PythonPackage", "Setup", "Source"]


@dataclass(frozen=True)
class PythonPackage:
    """A release on the Python package index; `extras` as in `name[extras]`."""

    name: str
    version: str
    extras: str = ""


@dataclass(frozen=True)
class NpmPackage:
    """A release on npm. `overrides` pins packages below it: name and version."""

    name: str
    version: str
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DebianPackage:
    """A program of the distribution: found on the path, or unpacked from its package.

    The version is the distribution's, so it is asked for where the results are written.
    """

    program: str
    """Its place in the package, such as `usr/sbin/nginx`."""
    packages: tuple[str, ...]
    """Names that it goes by, the first that there is is taken."""


Source = PythonPackage | NpmPackage | DebianPackage | None
"""None: it is here already (Triolet)."""


@dataclass(frozen=True)
class Place:
    """Where one gateway is to run and what it is to stand before."""

    home: Path
    """Where it is installed."""
    directory: Path
    """An empty directory for its files."""
    port: int
    metrics_port: int
    replicas: tuple[str, ...]
    """Base URLs, without `/v1`."""
    model: str


@dataclass(frozen=True)
class Setup:
    """All that is needed to start a gateway and to talk to it."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    """Contents of files that must be there before it starts."""
    headers: tuple[tuple[str, str], ...] = ()
    """What its clients send with every request."""
    session_header: str | None = None
    """The header in which this policy expects the session's id; None: it looks at none."""
    replica_path: str | None = None
    """What the policy asks of the replicas beside requests, and cannot work without; None: nothing.
    """


@dataclass(frozen=True)
class Gateway:
    """One kind of gateway."""

    name: str
    source: Source
    policies: tuple[str, ...]
    """Those that can be compared here, by its own names; its default first."""
    setup: Callable[[Place, str], Setup]
    """Takes a policy of `policies`."""
    workers: str
    """How many processes or threads do the work, in words; its default."""

    @property
    def version(self) -> str:
        """The pinned release; empty if it is not pinned here."""
        return getattr(self.source, "version", "")
