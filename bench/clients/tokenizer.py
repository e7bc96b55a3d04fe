"""A Hugging Face tokenizer that counts as the demo replica and our load client do, made offline.

Run by path it needs nothing but Python: `python bench/clients/tokenizer.py DIRECTORY [TEXT...]`.

Each match of one pattern is one token. A piece that is not in the vocabulary still is one token,
and is decoded as an ordinary word, so that whatever a tool encodes and decodes keeps its length.
So all clients agree on lengths, and what is left to compare is how they measure time.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["PATTERN", "HubTokenizer", "make_hub", "make_tokenizer", "tokenizer_document"]

PATTERN: Final = r"\s*(?:\w{1,8}|[^\w\s])|\s+"
"""The demo replica's rule (`bench.replica.tokens`); Python and Oniguruma read it alike."""

VOCABULARY_LIMIT: Final = 32_768
_UNKNOWN: Final = " and"
_END: Final = "<|end|>"
_SOME_TEXT: Final = "and any text, in which a word may be one of these: yes, no; one more?"
_CHAT_TEMPLATE: Final = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


_OWNER: Final = "triolet"
_NAME: Final = "pieces"
_REVISION: Final = "1" * 40


class HubTokenizer(NamedTuple):
    """A tokenizer that lies where the hub's cache would have it after a download."""

    hub: Path
    """What `HF_HOME` must name."""
    name: str
    """For tools that offline take only names of the hub."""
    path: Path
    """For the others."""


def make_hub(directory: Path, texts: Iterable[Path] = ()) -> HubTokenizer:
    """Make the tokenizer in a hub's cache of its own; see `make_tokenizer`."""
    repository = directory / "hub" / f"models--{_OWNER}--{_NAME}"
    path = make_tokenizer(repository / "snapshots" / _REVISION, texts)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(_REVISION)
    return HubTokenizer(directory, f"{_OWNER}/{_NAME}", path)


def make_tokenizer(directory: Path, texts: Iterable[Path] = ()) -> Path:
    """Write the tokenizer's files; the vocabulary is the commonest pieces of `texts`.

    Raises OSError if a text cannot be read or the files cannot be written.
    """
    counted: Counter[str] = Counter(re.findall(PATTERN, _SOME_TEXT))
    for text in texts:
        counted.update(re.findall(PATTERN, text.read_text(encoding="utf-8")))
    pieces = [piece for piece, _ in counted.most_common(VOCABULARY_LIMIT)]
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "tokenizer.json", tokenizer_document(pieces))
    _write(directory / "tokenizer_config.json", _config())
    # AutoTokenizer asks for a model's type; this one has none of its own.
    _write(directory / "config.json", {"model_type": "gpt2"})
    return directory


def tokenizer_document(pieces: Iterable[str]) -> dict[str, Any]:
    """The content of `tokenizer.json` for a vocabulary of `pieces`."""
    names = dict.fromkeys((_END, _UNKNOWN, *pieces))
    end = {"id": 0, "content": _END, "special": True}
    marks = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end | marks],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": PATTERN},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {piece: number for number, piece in enumerate(names)},
            "unk_token": _UNKNOWN,
        },
    }


def _config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _END,
        "eos_token": _END,
        "pad_token": _END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
        "chat_template": _CHAT_TEMPLATE,
    }


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    make_tokenizer(Path(sys.argv[1]), map(Path, sys.argv[2:]))
