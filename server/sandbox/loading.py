"""What Python loads only at a first use, loaded ahead: a locked worker may be unable to."""

from __future__ import annotations

import contextlib
from typing import Final

__all__ = ["load_encodings"]

_ENCODINGS: Final = """
    ascii latin_1 utf_8 utf_8_sig utf_7 utf_16 utf_16_le utf_16_be utf_32 utf_32_le utf_32_be
    gbk gb2312 gb18030 hz big5 big5hkscs cp950 shift_jis cp932 euc_jp iso2022_jp euc_kr cp949
    iso8859_1 iso8859_2 iso8859_5 iso8859_7 iso8859_9 iso8859_15 cp1250 cp1251 cp1252 cp1253
    cp1254 cp437 cp850 koi8_r koi8_u mac_roman idna punycode raw_unicode_escape unicode_escape
"""
_BYTES: Final = ("base64", "hex", "quopri", "zlib", "bz2", "rot13")


def load_encodings() -> None:
    """Those that texts of this world are in."""
    for name in _ENCODINGS.split():
        with contextlib.suppress(LookupError, UnicodeError):
            "a".encode(name).decode(name)
    import codecs

    for name in _BYTES:
        with contextlib.suppress(LookupError):
            codecs.lookup(name)
