"""Which model stands for one that an export names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.app import Bindings, ModelRef
from server.workflow.model_names import Choice, ModelNames, _matches

OPENAI = "langgenius/openai/openai"
GPT = ModelRef(OPENAI, "gpt-4o")


@pytest.mark.parametrize("provider", [OPENAI, "openai"])
@pytest.mark.parametrize(
    "key",
    [
        f"{OPENAI}:gpt-4o",
        "openai:gpt-4o",
        "openai:*",
        f"{OPENAI}:gpt-*",
        "*:gpt-4o",
        "langgenius/*:gpt*o",
        "open*:gpt-4o",
        "gpt-4o",
        "gpt-*",
        "*",
        "*:*",
    ],
)
def test_keys_that_fit(provider: str, key: str) -> None:
    """Short and long names of a provider are the same one, in the file and in the table."""
    assert ModelNames({key: "small"}).find(ModelRef(provider, "gpt-4o")) == "small"


@pytest.mark.parametrize(
    "key", ["openai:gpt-4", "azure_openai:gpt-4o", "acme/openai/openai:gpt-4o", "gpt-4", "?pt-4o"]
)
def test_keys_that_do_not(key: str) -> None:
    """Another provider, another organisation's provider, another model."""
    assert ModelNames({key: "small"}).find(GPT) is None


def test_the_most_specific_wins() -> None:
    """Exact, then fewest wildcards, then most characters; whatever the order of the table."""
    keys = ["*", "*:gpt-*", "openai:*", "openai:gpt-*", "openai:gpt-4o"]
    for count in range(len(keys), 0, -1):
        table = {key: key for key in keys[:count]}
        assert ModelNames(table).find(GPT) == keys[count - 1]
        assert ModelNames(dict(reversed(table.items()))).find(GPT) == keys[count - 1]


def test_names_with_colons() -> None:
    """The first colon ends the provider."""
    names = ModelNames({"ollama:qwen2.5:7b": "small"})
    assert names.find(ModelRef("langgenius/ollama/ollama", "qwen2.5:7b")) == "small"
    assert names.find(ModelRef("langgenius/ollama/ollama", "qwen2.5")) is None


def test_google() -> None:
    """The one whose plugin has another name."""
    names = ModelNames({"google:gemini-pro": "small"})
    assert names.find(ModelRef("langgenius/gemini/google", "gemini-pro")) == "small"
    assert names.find(ModelRef("google", "gemini-pro")) == "small"


def test_bindings_come_first() -> None:
    """What an app says of itself counts over what is configured for all, however exact."""
    names = ModelNames({f"{OPENAI}:gpt-4o": "small"})
    assert names.choose(GPT, Bindings(models={"*": "mine"})) == Choice("mine", "binding", "*")
    assert names.find(GPT, Bindings(models={"other": "mine"})) == "small"


def test_what_is_served() -> None:
    """A model's own name, then the only model; but never where the table says anything."""
    ref = ModelRef("vllm", "qwen3-8b")
    served = ("qwen3-8b", "other")
    assert ModelNames().choose(ref, served=served) == Choice("qwen3-8b", "same name")
    assert ModelNames().choose(GPT, served=("one",)) == Choice("one", "only model")
    assert ModelNames().choose(GPT, served=served) is None
    assert ModelNames({"x": "y"}).choose(GPT, served=("one",)) is None
    assert ModelNames({"qwen3-8b": "other"}).find(ref, served=served) == "other"
    assert ModelNames().choose(GPT) is None


def test_what_is_served_may_change() -> None:
    """Nothing of it is remembered."""
    names = ModelNames()
    assert names.find(GPT, served=("one",)) == "one"
    assert names.find(GPT, served=("two",)) == "two"


TEXT = st.text("ab*", max_size=12)


@given(TEXT, st.text("ab", max_size=12))
def test_wildcards_as_by_definition(pattern: str, text: str) -> None:
    """The same as by trying all ways in which `*` can stand for something."""
    reach = {0}
    for char in pattern:
        if char == "*":
            reach = set(range(min(reach), len(text) + 1)) if reach else set()
        else:
            reach = {at + 1 for at in reach if at < len(text) and text[at] == char}
    assert _matches(pattern, text) == (len(text) in reach)
