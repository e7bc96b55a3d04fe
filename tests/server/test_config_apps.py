"""The tables for imported apps: models, tools with their secrets, web, workflow tiers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.config import Config, ConfigError, describe, load

FULL = """
[models]
"langgenius/openai/openai:gpt-4o" = "qwen3-32b"
"*" = "qwen3-8b"
[tools."langgenius/tavily/tavily"]
tavily_api_key = "env:TAVILY"
limit = 5
deep = true
ratio = 0.5
[workflow]
steps = 50
tiers = [{ name = "interactive", cpu = 2 }, { name = "batch", model = 8 }]
[web]
allow = ["10.1.2.3/16", "Search.Internal", "*.corp", "::1", "sandbox:8194"]
proxy = "http://Proxy:3128/"
[apps]
dir = "kept/apps"
"""


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(toml: str, **environ: str) -> Config:
    Path("triolet.toml").write_text(toml, encoding="utf-8")
    return load(None, environ=environ, flags={})


def refused(toml: str, **environ: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        loaded(toml, **environ)
    return {problem.key: problem.message for problem in caught.value.problems}


def test_free_tables_take_any_key_and_values_get_their_form() -> None:
    """Keys with slashes, colons and wildcards; networks and paths in canonical form."""
    config = loaded(FULL, TAVILY="tvly-secret")
    assert config.models == {"langgenius/openai/openai:gpt-4o": "qwen3-32b", "*": "qwen3-8b"}
    assert config.tools == {
        "langgenius/tavily/tavily": {
            "tavily_api_key": "tvly-secret",
            "limit": 5,
            "deep": True,
            "ratio": 0.5,
        }
    }
    assert config.web.allow == ("10.1.0.0/16", "search.internal", "*.corp", "::1", "sandbox:8194")
    assert config.web.proxy == "http://proxy:3128"
    assert config.apps.dir == os.path.abspath("kept/apps")
    assert [tier.cpu for tier in config.workflow.tiers] == [2, None]


def test_texts_of_tools_are_never_shown() -> None:
    """In repr and in what check-config prints; the rest of the table is."""
    config = loaded(FULL, TAVILY="tvly-secret")
    for text in (repr(config), f"{config}", describe(config)):
        assert "tvly-secret" not in text
        assert "***" in text
    assert "limit = 5" in describe(config)


def test_what_is_described_loads_again() -> None:
    """Without secrets describe and load are each other's inverse, free tables included."""
    config = loaded(FULL.replace('tavily_api_key = "env:TAVILY"\n', ""))
    assert loaded(describe(config)) == config


def test_a_printed_secret_is_refused_where_it_is_read() -> None:
    """`***` is no credential."""
    problems = refused('[tools.t]\nkey = "***"\n')
    assert "only stands for one" in problems["tools.t.key"]


@pytest.mark.parametrize(
    ("toml", "key", "message"),
    [
        ("[models]\na = 5\n", "models.a", "found 5, expected a string"),
        ('[models]\n"a:b" = ""\n', 'models."a:b"', "not empty"),
        ('[tools]\nt = "x"\n', "tools.t", "expected a table"),
        ("[tools.t]\nkey = []\n", "tools.t.key", "found an empty list"),
        ('[tools.t]\nkey = "env:NO"\n', "tools.t.key", "it is not set"),
        ('[web]\nallow = ["10.0.0.0/99"]\n', "web.allow[0]", "expected a host such as"),
        ('[web]\nallow = ["a b"]\n', "web.allow[0]", "expected a host such as"),
        ('[web]\nproxy = "socks5://h:1"\n', "web.proxy", "http://host:port"),
        ("[workflow]\napp_share = 7\n", "workflow.app_share", "greater than 0 and at most 1"),
        ("[workflow]\ntiers = [{}]\n", "workflow.tiers[0].name", "is missing"),
        (
            '[workflow]\ntiers = [{ name = "a" }, { name = "a" }]\n',
            "workflow.tiers[1].name",
            "which is the name of tiers[0]",
        ),
        ('[apps]\ndir = "triolet.toml"\n', "apps.dir", "expected the path of a directory"),
        ("[code]\nmemory_mb = 5\n", "code.memory_mb", "did you mean memory_bytes"),
    ],
)
def test_a_wrong_value_says_what_was_expected(toml: str, key: str, message: str) -> None:
    """By key, as everywhere in the configuration."""
    assert message in refused(toml)[key]


def test_a_variable_may_hold_a_free_table_as_json() -> None:
    """It is laid over the file's key by key."""
    Path("triolet.toml").write_text('[models]\na = "one"\nb = "one"\n', encoding="utf-8")
    config = load(None, environ={"TRIOLET_MODELS": '{"b": "two"}'}, flags={})
    assert config.models == {"a": "one", "b": "two"}
