"""Segments as text: words that every usual vocabulary has as one token each; and counting tokens.

`render` is what the load client sends for a segment that has no text of its own. It needs no
tokenizer file: the words were chosen so that each is exactly one token, with and without a space
before it, in cl100k_base, o200k_base, p50k_base and the vocabularies of DeepSeek-V3 and Claude 2,
and one piece for the demo replica.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import shake_128
from importlib import import_module
from pathlib import Path
from typing import Protocol

from bench.workload.model import Segment

__all__ = [
    "BuiltinTokenizer",
    "Tokenizer",
    "WORDS",
    "count_tokens",
    "load_tokenizer",
    "render",
    "segment_text",
]

_WORD_LIST = """
able above add age air alone also amount answer arm ask bank beat bed begin below between
bird board body both box build burn buy camp car case catch center change child circle
clean clock cloud cold common complete control corn cost country cover current day degree
develop doctor dog double draw drive during ear easy edge eight element energy enter event
every express face fair far fast feel few fill find fire fish flat flow follow foot forest
found free from fruit game general gold good grass great group hair hand hat head heat
held high history hole horse house human join keep kind lake large law learn leg letter
light list local look low main make mark master mean middle miss money most mount much
must nature neck never night normal notice number offer often once only other out own
paper park pass path peace perhaps phone piece plan planet please port position present
pretty private process pull put quiet race ran rather ready reason red repeat report
return ride rise road room rose rule safe sand say school sea season see select send set
share she shine shop show sign simple single six skin sleep social some soon space spot
square start station step stone stop stream string study success support system take team
term than that then these thing third though three thus tiny top touch trade travel true
two under use value voice walk wash water wear week went wheel where who why will wind
with word would wrong yellow yet
"""
WORDS: tuple[str, ...] = tuple(_WORD_LIST.split())
"""256 words of at most 8 letters: one byte picks one."""

CACHED_CHARACTERS = 32 * 2**20
"""How much rendered text is kept: 32 MiB, some 950 segments of 6,000 tokens."""

# The demo replica's rule (bench/replica/tokens.py), so that both ends count the same.
_PIECE = re.compile(r"\s*+(?:\w{1,8}|[^\w\s])|\s+")
# Odd, so that multiplying by it modulo 2**64 maps no two keys to one (Knuth's golden ratio).
_SPREAD = 0x9E3779B97F4A7C15
_KEY_WORDS = 8


class Tokenizer(Protocol):
    """Counts the tokens of a text."""

    def count(self, text: str) -> int:
        """Tokens of `text`, without special tokens or a chat template."""
        ...


class BuiltinTokenizer:
    """Words and punctuation marks; a long word is one token for each 8 letters.

    Exact for what `render` makes. For English prose it comes within some 10 % of the usual
    vocabularies, for code and other scripts it does not.
    """

    def count(self, text: str) -> int:
        return count_tokens(text)


class _FileTokenizer:
    """A Hugging Face `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        try:
            # By name, since the package is optional and type checkers need not find it.
            package = import_module("tokenizers")
        except ImportError as error:
            raise ValueError(
                f"{path}: reading a tokenizer file needs the package 'tokenizers' "
                "(pip install tokenizers); without --tokenizer tokens are estimated"
            ) from error
        try:
            self._tokenizer = package.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises bare Exception, also for a missing file
            raise ValueError(f"{path}: not a readable tokenizer.json: {error}") from error

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer to count with: `builtin`, or the path of a `tokenizer.json`.

    Raises:
        ValueError: the file cannot be read, or the package `tokenizers` is missing.
    """
    return BuiltinTokenizer() if name == "builtin" else _FileTokenizer(Path(name))


def count_tokens(text: str) -> int:
    """How many tokens `text` has by the builtin rule; about 1 ms for 6,000 tokens."""
    return len(_PIECE.findall(text))


def render(key: int, tokens: int) -> str:
    """The text of the segment `key`: `tokens` words with single spaces between.

    The same for a key in every process. Two keys differ within the first 8 words, nearly always in
    the first one, so that segments share no cached prefix by accident.
    """
    return _cache.render(key, tokens)


def segment_text(segment: Segment, texts: Mapping[int, str]) -> str:
    """The text of `segment`: the recorded one in `texts` (`Session.texts`), or words."""
    text = texts.get(segment.key)
    return render(segment.key, segment.tokens) if text is None else text


def _words(key: int, tokens: int) -> str:
    spread = (key * _SPREAD) % 2**64
    seed = spread.to_bytes(_KEY_WORDS, "big")
    chosen = seed + shake_128(seed).digest(max(0, tokens - _KEY_WORDS))
    return " ".join(map(WORDS.__getitem__, chosen[:tokens]))


class RenderCache:
    """The texts used last, up to a number of characters."""

    def __init__(self, characters: int = CACHED_CHARACTERS) -> None:
        self._limit = characters
        self._held = 0
        self._texts: OrderedDict[tuple[int, int], str] = OrderedDict()

    @property
    def held_characters(self) -> int:
        """Length of all kept texts together; never above the limit."""
        return self._held

    def render(self, key: int, tokens: int) -> str:
        """What `render` returns, kept if it is not longer than all that may be kept."""
        place = (key, tokens)
        text = self._texts.get(place)
        if text is not None:
            self._texts.move_to_end(place)
            return text
        text = _words(key, tokens)
        if len(text) <= self._limit:
            self._texts[place] = text
            self._held += len(text)
            self._shrink()
        return text

    def _shrink(self) -> None:
        while self._held > self._limit:
            _, text = self._texts.popitem(last=False)
            self._held -= len(text)


_cache = RenderCache()
