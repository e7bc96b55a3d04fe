"""A text to the terms that it is found by: words in lower case, pairs of CJK characters. Pure.

Chinese and Japanese have no blanks between words. Pairs of neighbouring characters find words of
two characters and more without a dictionary; a character that stands alone is a term itself.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["terms"]

_CJK: Final = "\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN: Final = re.compile(rf"([{_CJK}]+)|([^\W{_CJK}]+)")
LONGEST: Final = 64
"""Characters of a word that count."""


def terms(text: str) -> list[str]:
    """In the order of the text, repeated as often as it repeats them."""
    found: list[str] = []
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        wide, word = run.groups()
        if word is not None:
            found.append(word[:LONGEST])
        elif len(wide) == 1:
            found.append(wide)
        else:
            found.extend(wide[place : place + 2] for place in range(len(wide) - 1))
    return found
