"""Landlock: which files a locked process may read, and that it opens no TCP connections.

Follows the kernel's Documentation/userspace-api/landlock.rst; the structures are those of
include/uapi/linux/landlock.h. Newer kernels guard more; each is asked for what it can do.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Final

__all__ = ["abi", "make_ruleset", "restrict"]

_CREATE: Final = 444  # the same numbers on every architecture
_ADD: Final = 445
_RESTRICT: Final = 446
_VERSION: Final = 1

_EXECUTE: Final = 1 << 0
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_FS_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_BIND_TCP: Final = 1 << 0
_CONNECT_TCP: Final = 1 << 1
_SCOPE_ALL: Final = 0b11
"""No signals to the outside, no abstract Unix sockets of others."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The version that the kernel offers; 0 if none."""
    try:
        return max(0, int(_libc().syscall(_CREATE, None, 0, _VERSION)))
    except (OSError, AttributeError):
        return 0


def make_ruleset(
    readable: Iterable[str], *, network: bool, runnable: Iterable[str] = ()
) -> int | None:
    """A ruleset as a file descriptor; None if the kernel has no Landlock.

    What is not there is left out of `readable`, and of `runnable`, which may be read as well.
    Raises `OSError` if the kernel refuses it.
    """
    version = abi()
    if version == 0:
        return None
    attributes = _attributes(version, network)
    ruleset: int = _libc().syscall(_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path in readable:
        _allow(ruleset, path)
    for path in runnable:
        _allow(ruleset, path, _EXECUTE)
    return ruleset


def _attributes(version: int, network: bool) -> bytes:
    files = max(rights for since, rights in _FS_RIGHTS.items() if since <= version)
    ports = _BIND_TCP if network else _BIND_TCP | _CONNECT_TCP
    size = 8 if version < 4 else 16 if version < 6 else 24
    return struct.pack("<QQQ", files, ports, _SCOPE_ALL)[:size]


def _allow(ruleset: int, path: str, more: int = 0) -> None:
    try:
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        is_folder = os.path.isdir(path)
        rights = _READ_FILE | _READ_DIR if is_folder else _READ_FILE
        rule = struct.pack("<Qi", rights | more, where)
        if _libc().syscall(_ADD, ruleset, 1, rule, 0) < 0:
            raise OSError(ctypes.get_errno(), "landlock_add_rule", path)
    finally:
        os.close(where)


def restrict(ruleset: int) -> None:
    """Put this process under it, for ever. Needs no_new_privs. Raises `OSError`."""
    if _libc().syscall(_RESTRICT, ruleset, 0) < 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
