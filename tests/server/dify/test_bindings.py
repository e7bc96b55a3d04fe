"""Bindings from a command line and from files."""

from __future__ import annotations

import pytest

from server.dify.bindings import BindingError, bound, merged, read_bindings
from server.workflow.app import Bindings


def test_options() -> None:
    """Keys are those of the report, whatever signs are in them."""
    found = bound(
        [
            "model:langgenius/openai/*:*=qwen3-8b",
            "model:ollama:qwen2.5:7b=qwen",
            "knowledge:OSeL/xJYF+w==v=handbook",
            "tool:langgenius/tavily/tavily.tavily_api_key=a=b",
            "tool:an.odd.id.base_url=http://h",
            "env:KEY=a=b=c",
            "env:EMPTY=",
        ]
    )
    assert found.models == {"langgenius/openai/*:*": "qwen3-8b", "ollama:qwen2.5:7b": "qwen"}
    assert found.knowledge == {"OSeL/xJYF+w==v": "handbook"}
    assert found.tools == {
        "langgenius/tavily/tavily": {"tavily_api_key": "a=b"},
        "an.odd.id": {"base_url": "http://h"},
    }
    assert found.environment == {"KEY": "a=b=c", "EMPTY": ""}


def test_values_from_files() -> None:
    """@ names a file, for tools and the environment only."""
    found = bound(["env:A=@secret", "knowledge:id=@name"], read=lambda name: f"<{name}>")
    assert found.environment == {"A": "<secret>"}
    assert found.knowledge == {"id": "@name"}


@pytest.mark.parametrize(
    "option",
    ["", "x", "mood:a=b", "model:a", "model:=b", "model:a=", "tool:a=b", "tool:.b=c", "env:=x"],
)
def test_options_that_are_none(option: str) -> None:
    """They are refused in words."""
    with pytest.raises(BindingError):
        bound([option])


TOML = b"""
[models]
"openai:*" = "q"
[tools."langgenius/tavily/tavily"]
api_key = "k"
[environment]
N = 3
"""


def test_files() -> None:
    """TOML and JSON have the same tables."""
    found = read_bindings(TOML, "b.toml")
    assert found.models == {"openai:*": "q"}
    assert found.tools == {"langgenius/tavily/tavily": {"api_key": "k"}}
    assert found.environment == {"N": 3}
    assert read_bindings(b'{"models": {"a": "b"}}', "b.json").models == {"a": "b"}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"[model]", "b.toml"),
        (b"a = ", "b.toml"),
        (b"\xff", "b.toml"),
        (b"[1]", "b.json"),
        (b'{"models": 3}', "b.json"),
    ],
)
def test_files_that_are_none(data: bytes, name: str) -> None:
    """A wrong table, wrong TOML, wrong JSON: refused, never half read."""
    with pytest.raises(BindingError):
        read_bindings(data, name)


def test_merging() -> None:
    """Later ones go over earlier ones, setting by setting."""
    one = Bindings(models={"a": "1"}, tools={"t": {"x": 1, "y": 1}})
    two = Bindings(models={"a": "2"}, tools={"t": {"y": 2}}, environment={"e": 1})
    assert merged(one, two) == Bindings(
        models={"a": "2"}, tools={"t": {"x": 1, "y": 2}}, environment={"e": 1}
    )
