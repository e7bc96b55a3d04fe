"""The key of the admin API where none is configured: made at the start, kept in a file.

Whoever runs as the user that started Triolet can read it, and nobody else: neither other users of
the machine, nor a proxy or a web page that reaches Triolet's port from here.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["key_file", "key_in_files", "read_key_file"]

_KEY_BYTES: Final = 32
_MOST_BYTES: Final = 1_024


def key_file(port: int, environ: Mapping[str, str]) -> str:
    """Where the key of the Triolet on that port is: below $XDG_RUNTIME_DIR, else ~/.cache."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    base = runtime if os.path.isabs(runtime) else os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "triolet", f"admin-{port}.key")


@contextmanager
def key_in_files(ports: Sequence[int], environ: Mapping[str, str]) -> Iterator[str]:
    """A new key, in the file of each port meanwhile. Raises OSError if one cannot be written."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    written: list[str] = []
    try:
        for path in dict.fromkeys(key_file(port, environ) for port in ports):
            _write(path, key)
            written.append(path)
        yield key
    finally:
        for path in written:
            with suppress(OSError):
                if read_key_file(path) == key:  # not that of a Triolet that came after
                    os.unlink(path)


def read_key_file(path: str) -> str | None:
    """The key in it; None if there is none to be read."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(_MOST_BYTES).strip() or None
    except (OSError, ValueError):
        return None


def _write(path: str, key: str) -> None:
    directory = os.path.dirname(path)
    if not os.path.isabs(directory):
        raise OSError("there is neither XDG_RUNTIME_DIR nor a home directory")
    os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{directory} is no directory")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to another user")
    if found.st_mode & 0o077:
        os.chmod(directory, 0o700)
    with suppress(FileNotFoundError):  # of one that was killed
        os.unlink(path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(file, "w", encoding="ascii") as opened:
        opened.write(f"{key}\n")
