"""Reading lines: compression, numbers, and what is wrong where."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.workload import lines
from bench.workload.lines import (
    BadLine,
    BadLineCount,
    WrongFile,
    numbered_lines,
    parsed_lines,
)

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def number(line: bytes) -> int | None:
    return None if line.startswith(b"#") else int(line)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_file_is_read_as_its_suffix_says(tmp_path: Path, suffix: str) -> None:
    """Plain, gz, xz and bz2 give the same lines; blank ones are counted but left out."""
    file = tmp_path / f"numbers{suffix}"
    file.write_bytes(COMPRESS[suffix](b"1\r\n\n3"))
    assert list(numbered_lines(file)) == [(1, b"1"), (3, b"3")]


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_damaged_data_is_an_error_with_its_place_even_when_skipping(
    tmp_path: Path, suffix: str
) -> None:
    """A file cut short is not a file with fewer lines."""
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(COMPRESS[suffix](b"1\n" * 5000)[:-20])
    with pytest.raises(BadLine, match=rf"cut\{suffix}:\d+: cannot be read"):
        list(parsed_lines(file, number, bad_lines="skip"))


def test_a_malformed_line_is_named_by_file_line_and_reason(tmp_path: Path) -> None:
    """By default it ends the reading."""
    file = tmp_path / "numbers.txt"
    file.write_text("# heading\n1\nx\n")
    with pytest.raises(BadLine, match=rf"^{file}:3: invalid literal") as caught:
        list(parsed_lines(file, number))
    assert caught.value.line == 3


def test_malformed_lines_are_skipped_and_counted_once_for_all_readings(tmp_path: Path) -> None:
    """A workload is read more than once; its faults are the same ones."""
    file = tmp_path / "numbers.txt"
    file.write_text("1\nx\n2\ny\nz\n3")
    skipped = BadLineCount(kept=2)
    for _ in range(2):
        read = parsed_lines(file, number, bad_lines="skip", on_bad_line=skipped)
        assert list(read) == [1, 2, 3]
    assert skipped.count == 3
    assert [message.split(":")[1] for message in skipped.messages] == ["2", "4"]


def test_a_wrong_file_is_fatal_even_when_skipping(tmp_path: Path) -> None:
    """A heading without the columns would otherwise skip everything in silence."""
    file = tmp_path / "numbers.txt"
    file.write_text("1")

    def parse(line: bytes) -> int:
        raise WrongFile("not numbers")

    with pytest.raises(BadLine, match="1: not numbers"):
        list(parsed_lines(file, parse, bad_lines="skip"))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the longest line allowed."""
    monkeypatch.setattr(lines, "LONGEST_LINE_BYTES", 10)
    file = tmp_path / "long.txt"
    file.write_text("123\n" + "1" * 30)
    with pytest.raises(BadLine, match="2: longer than 10 bytes"):
        list(numbered_lines(file))
