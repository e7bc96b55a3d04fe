"""Bytes to text, by their marks and by what they would read as. Pure."""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple

__all__ = ["decoded"]

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE: Final = 32 * 1024
_SURE: Final = 0.7


class _Guess(NamedTuple):
    """An encoding, and the first bytes of its everyday characters in a two-byte set: in most texts
    nearly all characters are of these."""

    encoding: str
    measure: str
    common: tuple[range, ...]


_GUESSES: Final = (
    _Guess("gb18030", "gb2312", (range(0xA1, 0xA4), range(0xB0, 0xD8))),
    _Guess("shift_jis", "euc_jp", (range(0xA1, 0xA2), range(0xA4, 0xA6), range(0xB0, 0xD0))),
    _Guess("big5", "big5", (range(0xA1, 0xA2), range(0xA4, 0xC7))),
    _Guess("euc_kr", "euc_kr", (range(0xA1, 0xA2), range(0xB0, 0xC9))),
)


def decoded(data: bytes) -> str:
    """Marked, or valid UTF-8, or UTF-16 by its zeros, or the likeliest of four East Asian
    encodings, or cp1252. What cannot be decoded is replaced."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    wide = _wide(data[:_SAMPLE])
    if wide:
        return data.decode(wide, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if _is_mostly_utf8(data[:_SAMPLE]):
            return data.decode("utf-8", "replace")
    return data.decode(_likeliest(data[:_SAMPLE]), "replace")


def _wide(data: bytes) -> str | None:
    """UTF-16 without a mark: Latin letters have a zero in every second byte."""
    half = len(data) // 2
    if half < 2:
        return None
    zeros = (data[0 : 2 * half : 2].count(0), data[1 : 2 * half : 2].count(0))
    if zeros[1] > 0.4 * half and not zeros[0]:
        return "utf-16-le"
    return "utf-16-be" if zeros[0] > 0.4 * half and not zeros[1] else None


def _is_mostly_utf8(data: bytes) -> bool:
    """A few broken bytes in a text that is UTF-8 otherwise."""
    broken = data.decode("utf-8", "replace")
    strange = broken.count("\ufffd")
    fine = sum(1 for letter in broken if letter > "\x7f") - strange
    return fine > 4 * strange


def _likeliest(data: bytes) -> str:
    if _looks_korean(data):
        return "euc_kr"
    scores = [(_share(data, guess), -rank) for rank, guess in enumerate(_GUESSES)]
    best, rank = max(scores)
    return _GUESSES[-rank].encoding if best >= _SURE else "cp1252"


def _looks_korean(data: bytes) -> bool:
    """Its syllables read as common Chinese characters too; but Korean has spaces between words, and
    none of Chinese's wide commas and stops."""
    letters = sum(1 for byte in data if byte > 0x7F) // 2
    if data.count(b" ") * 12 < letters or b"\xa3\xac" in data or b"\xa1\xa3" in data:
        return False
    return _share(data, _GUESSES[3]) > 0.97


def _share(data: bytes, guess: _Guess) -> float:
    """How much of the text, beside ASCII, would be of everyday characters."""
    try:
        text = codecs.getincrementaldecoder(guess.encoding)().decode(data)
    except UnicodeDecodeError:
        return 0.0
    letters = [letter for letter in text if letter > "\x7f"]
    common = sum(_is_common(letter, guess) for letter in letters)
    return common / len(letters) if letters else 0.0


def _is_common(letter: str, guess: _Guess) -> bool:
    try:
        first = letter.encode(guess.measure)
    except UnicodeEncodeError:
        return False
    return len(first) == 2 and any(first[0] in common for common in guess.common)
