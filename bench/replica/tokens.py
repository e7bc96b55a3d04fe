"""The replica's tokens: words and punctuation, cut so that joined they are the text again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

__all__ = ["PIECE", "count", "pieces", "split"]

# Leading white space belongs to the piece, as in byte-pair vocabularies. Eight characters at most,
# so that long words, and scripts that do not put spaces between words, are several tokens. White
# space is not given back (`*+`): megabytes of it would be tried again at each length.
PIECE: Final = r"\s*+(?:\w{1,8}|[^\w\s])|\s+"
"""One token, as a regular expression."""

_PIECE = re.compile(PIECE)


def split(text: str) -> list[str]:
    """The tokens of `text`, in order; joined they are `text` again."""
    return _PIECE.findall(text)


def pieces(text: str) -> Iterator[str]:
    """The same, one after the other."""
    return (match[0] for match in _PIECE.finditer(text))


def count(text: str, at_most: int) -> int:
    """How many tokens `text` has, or `at_most` if there are more.

    Counting stops there, so a body of megabytes does not hold the event loop.
    """
    return sum(1 for _ in islice(_PIECE.finditer(text), at_most))
