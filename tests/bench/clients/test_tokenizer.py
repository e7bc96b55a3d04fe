"""The tokenizer's files; that the tools read them is shown by running the tools."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bench.clients.tokenizer import PATTERN, make_hub, make_tokenizer, tokenizer_document
from bench.replica.tokens import count
from bench.workload.text import count_tokens


@given(st.text())
def test_pattern_counts_as_replica_and_client(text: str) -> None:
    """Tools, load client and replica agree on the length of any text."""
    pieces = re.findall(PATTERN, text)
    assert len(pieces) == count_tokens(text) == count(text, 10**6)
    assert "".join(pieces) == text


def test_unknown_pieces_are_ordinary_words() -> None:
    """What is not in the vocabulary is one token too, and not a mark that decoding drops."""
    document = tokenizer_document(["a", "b", "a"])
    model = document["model"]
    special = {token["content"] for token in document["added_tokens"]}
    assert model["unk_token"] in model["vocab"]
    assert model["unk_token"] not in special
    assert re.fullmatch(PATTERN, model["unk_token"])
    assert sorted(model["vocab"].values()) == list(range(len(model["vocab"])))


def test_vocabulary_comes_from_the_texts(tmp_path: Path) -> None:
    """Pieces of the given texts keep their own tokens."""
    text = tmp_path / "text"
    text.write_text("Shall I compare thee?")
    place = make_tokenizer(tmp_path / "made", [text])
    vocabulary = json.loads((place / "tokenizer.json").read_text())["model"]["vocab"]
    assert {"Shall", " I", " compare", " thee", "?"} <= set(vocabulary)


def test_hub_cache_leads_to_the_tokenizer(tmp_path: Path) -> None:
    """The name's `main` points to the directory that holds the files, as after a download."""
    made = make_hub(tmp_path)
    repository = tmp_path / "hub" / ("models--" + made.name.replace("/", "--"))
    revision = (repository / "refs" / "main").read_text()
    assert repository / "snapshots" / revision == made.path
    assert (made.path / "tokenizer.json").exists()
    assert made.hub == tmp_path
