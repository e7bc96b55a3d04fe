"""Lines of an input file, compressed or not; and what is wrong with one, by file and line."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import IO, Literal, Protocol, TypeVar, cast

import msgspec

__all__ = [
    "BadLine",
    "BadLineCount",
    "BadLines",
    "Source",
    "WrongFile",
    "numbered_lines",
    "parsed_lines",
]

BadLines = Literal["fail", "skip"]
"""What a malformed line does: end the reading with `BadLine`, or be passed over."""

LONGEST_LINE_BYTES = 64 * 2**20
"""A longer line is refused, so that a file without line ends cannot fill the memory."""

_Row = TypeVar("_Row")


class Source(Protocol):
    """A file to read: a `Path`, or data of the package (`bench.workload.data.bundled`)."""

    @property
    def name(self) -> str:
        """The file's name; its suffix says how it is compressed (.gz, .xz, .bz2)."""
        ...

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The file's bytes."""
        ...


class BadLine(ValueError):
    """A line that is not what the file should hold."""

    def __init__(self, source: Source, line: int, reason: str) -> None:
        where = source if isinstance(source, PurePath) else source.name
        super().__init__(f"{where}:{line}: {reason}")
        self.line = line
        """Counted from 1."""
        self.reason = reason


class WrongFile(ValueError):
    """Raised by a parser: not one line but the whole file is of another kind. Always fatal."""


class BadLineCount:
    """Counts malformed lines that were skipped, and keeps the first few messages.

    A workload may be read more than once: a line counts once.
    """

    def __init__(self, kept: int = 10) -> None:
        self.count = 0
        self.messages: list[str] = []
        self._kept = kept
        self._last_line = 0

    def __call__(self, bad: BadLine) -> None:
        if bad.line <= self._last_line:
            return
        self._last_line = bad.line
        self.count += 1
        if len(self.messages) < self._kept:
            self.messages.append(str(bad))


def numbered_lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, without their line end, each with its number from 1.

    Raises:
        OSError: the file cannot be opened.
        BadLine: a line is too long, or the compressed data is damaged.
    """
    number = 0
    with _opened(source) as file:
        while True:
            number += 1
            try:
                line = file.readline(LONGEST_LINE_BYTES)
            except (EOFError, OSError, lzma.LZMAError) as error:
                raise BadLine(source, number, f"cannot be read: {error}") from error
            if not line:
                return
            if len(line) == LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                raise BadLine(source, number, f"longer than {LONGEST_LINE_BYTES} bytes")
            if stripped := line.strip():
                yield number, stripped


def parsed_lines(
    source: Source,
    parse: Callable[[bytes], _Row | None],
    *,
    bad_lines: BadLines = "fail",
    on_bad_line: Callable[[BadLine], None] | None = None,
) -> Iterator[_Row]:
    """What `parse` makes of each line; None, as for a heading, is left out.

    `parse` says what is wrong with a line by a ValueError. A damaged file always fails.

    Raises:
        BadLine: a malformed line, if `bad_lines` is "fail"; a damaged file or a wrong one.
    """
    for number, line in numbered_lines(source):
        try:
            row = parse(line)
        except (ValueError, msgspec.MsgspecError) as error:
            bad = BadLine(source, number, str(error))
            if bad_lines == "fail" or isinstance(error, WrongFile):
                raise bad from error
            if on_bad_line is not None:
                on_bad_line(bad)
            continue
        if row is not None:
            yield row


def _opened(source: Source) -> IO[bytes]:
    # Opened by path or through the package's loader: the decompressors take the open file.
    suffix = PurePath(source.name).suffix
    file = source.open("rb")
    if suffix == ".gz":
        return cast(IO[bytes], _Closing(gzip.GzipFile(fileobj=file), file))
    if suffix == ".xz":
        return cast(IO[bytes], _Closing(lzma.LZMAFile(file), file))
    if suffix == ".bz2":
        return cast(IO[bytes], _Closing(bz2.BZ2File(file), file))
    return file


class _Closing:
    """A decompressor that closes the file below it too, which none of them does by itself."""

    def __init__(
        self, reader: gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File, file: IO[bytes]
    ) -> None:
        self._reader = reader
        self._file = file
        self.readline = reader.readline

    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._file.close()
