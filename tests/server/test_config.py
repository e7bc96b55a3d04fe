"""The configuration: sources and their precedence, what is refused and in which words, secrets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.config import (
    Address,
    Config,
    ConfigError,
    PoolConfig,
    ReplicaConfig,
    TimeoutConfig,
    TlsConfig,
    describe,
    load,
    parse_listen,
    parse_replica_url,
)
from server.config import model as tables
from server.config.hints import quoted

ROOT = Path(__file__).parents[2]
POOL = '[[pool]]\nmodel = "m"\nreplicas = ["http://h:1"]\n'


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a triolet.toml that lies about."""
    monkeypatch.chdir(tmp_path)


def loaded(
    toml: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Config:
    """Load from a file with this content, these variables and these flags."""
    path = None
    if toml is not None:
        path = "triolet.test.toml"
        Path(path).write_text(toml, encoding="utf-8")
    return load(path, environ=environ or {}, flags=flags or {})


def refused(
    toml: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> dict[str, str]:
    """Load what must be refused; the message of each key."""
    with pytest.raises(ConfigError) as caught:
        loaded(toml, environ, flags)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(caught.value.problems)
    assert all(line.isprintable() for line in lines)
    return {problem.key: problem.message for problem in caught.value.problems}


# --- sources ---------------------------------------------------------------------------------


def test_no_source_gives_the_defaults() -> None:
    """Without file, variables and flags, `load` returns what `Config()` is."""
    assert load(None, environ={}, flags={}) == Config()


def test_the_file_of_the_issue_loads() -> None:
    """Strings and tables of replicas become ReplicaConfigs, whole numbers become seconds."""
    config = loaded(
        'listen = ["http://127.0.0.1:8746"]\n[[pool]]\nmodel = "qwen3-8b"\n'
        'replicas = ["http://127.0.0.1:8001", { url = "http://127.0.0.1:8002", '
        "max_in_flight = 64 }]\ntimeouts = { connect_s = 2, total_s = 60 }\n"
    )
    assert config.pool == (
        PoolConfig(
            model="qwen3-8b",
            replicas=(
                ReplicaConfig(url="http://127.0.0.1:8001"),
                ReplicaConfig(url="http://127.0.0.1:8002", max_in_flight=64),
            ),
            timeouts=TimeoutConfig(connect_s=2.0, total_s=60.0),
        ),
    )
    assert isinstance(config.pool[0].timeouts.connect_s, float)


def test_flags_win_over_environment_over_file_over_defaults() -> None:
    """Each key of one table comes from the strongest source that has it."""
    config = loaded(
        "[limits]\nbody_bytes = 1\nheader_bytes = 1\nheader_count = 1\n",
        {"TRIOLET_LIMITS__BODY_BYTES": "2", "TRIOLET_LIMITS__HEADER_BYTES": "2"},
        {"limits.body_bytes": 3},
    )
    limits = config.limits
    assert (limits.body_bytes, limits.header_bytes, limits.header_count) == (3, 2, 1)
    assert limits.head_s == 10.0


def test_lists_are_replaced_as_a_whole() -> None:
    """A pool in the environment is not mixed with the file's."""
    config = loaded(POOL, {"TRIOLET_POOL": '[{"model": "n", "replicas": ["http://i:1"]}]'})
    assert [pool.model for pool in config.pool] == ["n"]


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("TRIOLET_DRAIN_S", "5", "drain_s", 5.0),
        ("TRIOLET_DRAIN_S", "0", "drain_s", 0.0),
        ("TRIOLET_ACCESS_LOG", "no", "access_log", False),
        ("TRIOLET_ACCESS_LOG", "True", "access_log", True),
        ("TRIOLET_LOG_FORMAT", "json", "log_format", "json"),
        ("TRIOLET_LISTEN", "http://a:1, http://b:2", "listen", ("http://a:1", "http://b:2")),
        ("TRIOLET_LISTEN", '["http://a:1"]', "listen", ("http://a:1",)),
        ("TRIOLET_LISTEN", "", "listen", ("http://127.0.0.1:8746",)),
    ],
)
def test_text_of_a_variable_or_flag_takes_the_type_of_its_key(
    name: str, text: str, key: str, value: object
) -> None:
    """The same texts work as a variable and as a flag; an empty variable is not set."""
    assert getattr(load(None, environ={name: text}, flags={}), key) == value
    if text:
        assert getattr(load(None, environ={}, flags={key: text}), key) == value


def test_a_table_as_json_and_a_key_of_it_are_merged() -> None:
    """TRIOLET_LIMITS goes first, TRIOLET_LIMITS__BODY_BYTES after it."""
    environ = {
        "TRIOLET_LIMITS__BODY_BYTES": "7",
        "TRIOLET_LIMITS": '{"body_bytes": 5, "header_count": 6}',
    }
    limits = load(None, environ=environ, flags={}).limits
    assert (limits.body_bytes, limits.header_count) == (7, 6)


def test_flags_that_were_not_given_are_passed_over() -> None:
    """None and () are what click passes for an option that is absent."""
    assert load(None, environ={}, flags={"drain_s": None, "listen": ()}) == Config()
    assert load(None, environ={}, flags={"listen": ("http://a:1",)}).listen == ("http://a:1",)


def test_the_file_is_the_one_named_then_the_variables_then_the_usual_one() -> None:
    """path, then TRIOLET_CONFIG, then ./triolet.toml."""
    for name, seconds in (("triolet.toml", 1), ("a.toml", 2), ("b.toml", 3)):
        Path(name).write_text(f"drain_s = {seconds}\n")
    assert load(None, environ={}, flags={}).drain_s == 1
    assert load(None, environ={"TRIOLET_CONFIG": "a.toml"}, flags={}).drain_s == 2
    assert load("b.toml", environ={"TRIOLET_CONFIG": "a.toml"}, flags={}).drain_s == 3


def test_a_named_file_must_exist() -> None:
    """Whether the caller or TRIOLET_CONFIG names it; other sources are still checked."""
    with pytest.raises(ConfigError, match=r"file none\.toml: cannot be read: No such file"):
        load("none.toml", environ={}, flags={})
    with pytest.raises(ConfigError) as caught:
        load(None, environ={"TRIOLET_CONFIG": "none.toml", "TRIOLET_DRAIN_S": "x"}, flags={})
    first, second = str(caught.value).split("\n")
    assert "(named by TRIOLET_CONFIG)" in first
    assert second.startswith("environment variable TRIOLET_DRAIN_S: drain_s: ")


def test_a_file_that_cannot_be_read_is_reported_without_blame_on_the_rest() -> None:
    """An https address is not told to have no [tls] when the file could not be read."""
    assert set(refused("[", {"TRIOLET_LISTEN": "https://h:1"})) == {""}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"drain_s = 1\nx = = 2\n", "line 2, column 5: is not TOML: Invalid value"),
        (b"a = 1\nb = ", "line 2, column 5: is not TOML: "),
        (b"a = 1\n\xff = 2\n", "line 2: is not UTF-8"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"9" * 5_000, "is not TOML: Exceeds the limit"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_its_place(content: bytes, place: str) -> None:
    """File, line and column of a syntax error."""
    Path("x.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load("x.toml", environ={}, flags={})
    assert str(caught.value).startswith("file x.toml: ")
    assert place in str(caught.value)


def test_a_byte_order_mark_is_accepted() -> None:
    """What some editors put before the first key."""
    Path("x.toml").write_bytes(b"\xef\xbb\xbfdrain_s = 4\n")
    assert load("x.toml", environ={}, flags={}).drain_s == 4


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TRIOLET_LIMITS_BODY_BYTES", "TRIOLET_LIMITS__BODY_BYTES"),
        ("TRIOLET_DRAIN_MS", "TRIOLET_DRAIN_S"),
        ("TRIOLET_LISTN", "TRIOLET_LISTEN"),
        ("TRIOLET_drain_s", "TRIOLET_DRAIN_S"),
    ],
)
def test_an_unknown_variable_is_an_error_that_names_it(name: str, meant: str) -> None:
    """A misspelt variable is never ignored; others' variables are."""
    with pytest.raises(ConfigError, match=rf"^environment variable {name}: .*{meant}"):
        load(None, environ={name: "1", "PATH": "/bin"}, flags={})


def test_variables_of_a_kubernetes_service_are_passed_over() -> None:
    """A Service named triolet puts them into every pod; without one they are unknown."""
    links = {
        "TRIOLET_SERVICE_HOST": "10.0.0.1",
        "TRIOLET_SERVICE_PORT": "8746",
        "TRIOLET_SERVICE_PORT_HTTP": "8746",
        "TRIOLET_PORT": "tcp://10.0.0.1:8746",
        "TRIOLET_PORT_8746_TCP": "tcp://10.0.0.1:8746",
        "TRIOLET_PORT_8746_TCP_ADDR": "10.0.0.1",
    }
    assert load(None, environ=links, flags={}) == Config()
    with pytest.raises(ConfigError, match="TRIOLET_PORT"):
        load(None, environ={"TRIOLET_PORT": "8746"}, flags={})


def test_an_unknown_flag_is_an_error() -> None:
    """With the key it was perhaps meant to be."""
    assert "limits.body_bytes" in refused(flags={"limits.body_byte": 1})["limits.body_byte"]


def test_text_that_must_be_json_is_refused_without_quoting_it() -> None:
    """A broken TRIOLET_POOL names its place; the API key in it stays out of the message."""
    problems = refused(environ={"TRIOLET_POOL": '[{"api_key": "sk-secret", }'})
    assert problems["pool"].startswith("expected JSON: ")
    assert "sk-secret" not in str(problems)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "key", "message"),
    [
        ('drain_s = "2s"', "drain_s", 'found "2s", expected a number of seconds of at least 0: '),
        ('drain_s = "2s"', "drain_s", "write 2, without a unit or quotes"),
        ('drain_s = "500ms"', "drain_s", "write 0.5, without a unit or quotes"),
        ('drain_s = "30"', "drain_s", "write 30, without quotes"),
        ("drain_s = -1", "drain_s", "of at least 0"),
        ("drain_s = true", "drain_s", "found true, expected a number of seconds"),
        ("drain_s = nan", "drain_s", "found nan, expected a number of seconds"),
        ("drain_s = inf", "drain_s", "and finite"),
        ("drain_s = 1" + "0" * 400, "drain_s", "found a number out of range"),
        ("drain_s = 2024-01-01", "drain_s", "found a date or time"),
        ("[limits]\nhead_s = 0", "limits.head_s", "a number of seconds greater than 0"),
        ("[limits]\nconnections = true", "limits.connections", "found true, expected a whole"),
        ("[limits]\nconnections = 2.0", "limits.connections", "write 2"),
        ("[limits]\nconnections = 0", "limits.connections", "of at least 1"),
        ('[limits]\nbody_bytes = "32MiB"', "limits.body_bytes", "write 33554432, without a unit"),
        ('access_log = "true"', "access_log", "write true without quotes"),
        ("access_log = 1", "access_log", "found 1, expected true or false"),
        ('log_format = "jsn"', "log_format", 'did you mean "json"?'),
        ("limits = 5", "limits", "found 5, expected a table"),
        ('listen = "http://h:1"', "listen", 'write ["http://h:1"]'),
        ("listen = []", "listen", "found an empty list"),
        ("listen = [1]", "listen[0]", "expected a string (http://host:port"),
        ('[pool]\nmodel = "m"', "pool", "write [[pool]], with two brackets"),
        ("[[pool]]", "pool[0].model", "is missing; expected a string, not empty"),
        ("[[pool]]", "pool[0].replicas", "is missing; expected at least one, or a replicas_file"),
        ('[[pool]]\nmodel = ""\nreplicas = ["http://h"]', "pool[0].model", "not empty"),
        ('[[pool]]\nmodel = "a\\nb"\nreplicas = ["http://h"]', "pool[0].model", "line break"),
        ('[[pool]]\nmodel = "m"\nreplicas = []', "pool[0].replicas", "expected at least one"),
        ('[[pool]]\nmodel = "m"\nreplicas = [5]', "pool[0].replicas[0]", "a string or a table"),
        ('[[pool]]\nmodel = "m"\nreplicas = [{}]', "pool[0].replicas[0].url", "is missing"),
        (POOL + "retries = 11", "pool[0].retries", "from 0 to 10"),
        (POOL + "queue = -1", "pool[0].queue", "of at least 0"),
        (POOL + 'policy = "least"', "pool[0].policy", '"least_request"'),
        (POOL + "timeouts = { idle_s = '2s' }", "pool[0].timeouts.idle_s", "write 2"),
        ('[tls]\ncert = "none.pem"', "tls.cert", "there is none at"),
        ('[tls]\ncert = "none.pem"', "tls.key", "is missing"),
        ("[tls]", "tls.cert", "is missing"),
    ],
)
def test_a_wrong_value_says_what_was_found_and_expected(toml: str, key: str, message: str) -> None:
    """By key, in words a person can act on."""
    assert message in refused(toml)[key]


@pytest.mark.parametrize(
    ("toml", "key", "advice"),
    [
        ("drian_s = 1", "drian_s", "did you mean drain_s?"),
        ("drain_ms = 1", "drain_ms", "did you mean drain_s (seconds)?"),
        ("drain = 1", "drain", "did you mean drain_s (seconds)?"),
        ("body_bytes = 1", "body_bytes", "body_bytes belongs in limits"),
        ("[limits]\nbody_mb = 1", "limits.body_mb", "did you mean body_bytes (bytes)?"),
        ("[limits]\nbody_ms = 1", "limits.body_ms", "did you mean body_s (seconds)?"),
        ("[limits]\nqqq = 1", "limits.qqq", "the keys here are connections, header_bytes"),
        (POOL + "drain_s = 1", "pool[0].drain_s", "above the first [table]"),
        (
            POOL + "timeouts = { connect_ms = 1 }",
            "pool[0].timeouts.connect_ms",
            "is not a key; did you mean connect_s (seconds)?",
        ),
    ],
)
def test_an_unknown_key_comes_with_what_was_meant(toml: str, key: str, advice: str) -> None:
    """Near misses, wrong units, keys of another table."""
    assert advice in refused(toml)[key]


@pytest.mark.parametrize(
    ("toml", "key", "message"),
    [
        (POOL + POOL, "pool[1].model", "which is the model of pool[0]"),
        (
            '[[pool]]\nmodel = "m"\nreplicas = ["http://H:80/v1", "http://h/"]',
            "pool[0].replicas[1].url",
            "which is replicas[0] of this pool",
        ),
        ('listen = ["https://h:1"]', "listen[0]", "expected [tls] with cert and key"),
        ('listen = ["http://h:1", "http://H:1"]', "listen[1]", "listen[0] already has"),
        (
            '[[pool]]\nmodel = "m"\nreplicas = [{ url = "http://h", api_key = "k", '
            'headers = { Authorization = "x" } }]',
            "pool[0].replicas[0].headers.authorization",
            "cannot stand beside api_key",
        ),
    ],
)
def test_keys_that_disagree_are_refused(toml: str, key: str, message: str) -> None:
    """Rules over several keys."""
    assert message in refused(toml)[key]


def test_two_free_ports_and_one_replica_in_two_pools_are_fine() -> None:
    """What looks like a repetition and is none."""
    config = loaded('listen = ["http://h:0", "http://h:0"]\n' + POOL + POOL.replace('"m"', '"n"'))
    assert len(config.pool) == 2


def test_every_problem_is_reported_at_once() -> None:
    """Unknown keys, wrong types, bad URLs, broken rules, in all sources, in one error."""
    problems = refused(
        'drian_s = 1\naccess_log = 3\nlisten = ["https://h:1"]\n[limits]\nbody_s = "x"\n'
        + POOL
        + '[[pool]]\nmodel = "m"\nreplicas = ["ftp://h", { url = "http://g", max = 1 }]\n',
        {"TRIOLET_DRAIN_S": "x", "TRIOLET_X": "1"},
        {"health.timeout_s": 0},
    )
    assert set(problems) == {
        "",
        "drian_s",
        "access_log",
        "listen[0]",
        "limits.body_s",
        "drain_s",
        "health.timeout_s",
        "pool[1].model",
        "pool[1].replicas[0].url",
        "pool[1].replicas[1].max",
    }


def test_a_problem_names_the_source_the_value_came_from() -> None:
    """Also for rules that only hold once all sources are laid over one another."""
    environ = {"TRIOLET_LISTEN": "https://h:1"}
    with pytest.raises(ConfigError, match=r"^environment variable TRIOLET_LISTEN: listen\[0\]: "):
        loaded(POOL, environ)
    with pytest.raises(ConfigError, match=r"^flag: listen\[0\]: "):
        loaded(POOL, environ, {"listen": ["https://i:1"]})
    with pytest.raises(ConfigError, match=r"^file triolet\.test\.toml: pool\[1\]\.model: "):
        loaded(POOL + POOL, {"TRIOLET_DRAIN_S": "1"})


# --- tls files and secrets -------------------------------------------------------------------


def test_tls_files_may_come_from_two_sources_and_become_absolute() -> None:
    """A relative path starts at the file's directory, in a variable at the working directory."""
    Path("etc").mkdir()
    Path("etc/cert.pem").write_text("c")
    Path("key.pem").write_text("k")
    Path("etc/t.toml").write_text('listen = ["https://h:1"]\n[tls]\ncert = "cert.pem"\n')
    config = load("etc/t.toml", environ={"TRIOLET_TLS__KEY": "key.pem"}, flags={})
    here = os.getcwd()
    assert config.tls == TlsConfig(cert=f"{here}/etc/cert.pem", key=f"{here}/key.pem")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_file_that_may_not_be_read_is_refused() -> None:
    """Permission, not only existence."""
    Path("key.pem").write_text("k")
    Path("key.pem").chmod(0)
    assert "can be read" in refused('[tls]\ncert = "key.pem"\nkey = "key.pem"')["tls.key"]


def replica(fields: str) -> str:
    return f'[[pool]]\nmodel = "m"\nreplicas = [{{ url = "http://h", {fields} }}]\n'


def test_secrets_are_loaded_and_never_printed() -> None:
    """API keys and the values of headers, in repr, str and describe."""
    config = loaded(
        replica('api_key = "env:KEY", headers = { X-Secret = "sk-header" }'), {"KEY": "sk-environ"}
    )
    one = config.pool[0].replicas[0]
    assert (one.api_key, one.headers) == ("sk-environ", {"x-secret": "sk-header"})
    for text in (repr(config), f"{one}", str(one.__rich_repr__()), describe(config)):
        assert "sk-" not in text
        assert "***" in text


@pytest.mark.parametrize(
    ("fields", "environ", "message"),
    [
        ('api_key = "env:NO"', {}, "the environment variable NO to hold the key; it is not set"),
        ('api_key = "env:NO"', {"NO": ""}, "it is not set"),
        ('api_key = "env:KEY"', {"KEY": "sk-x\n"}, "in the environment variable KEY, without"),
        ('api_key = "env:sk-x"', {}, "the name of an environment variable after env:"),
        ('api_key = "sk-x y"', {}, "visible ASCII"),
        ('api_key = "sk-x\\r\\nx: y"', {}, "no line break"),
        ('api_key = ""', {}, "not empty"),
        ("api_key = 12345", {}, "found a number, expected a string"),
        ('headers = { x = "sk-x\\n" }', {}, "no line break"),
        ("headers = { x = 12345 }", {}, "found a number"),
        ('headers = { "a b" = "x" }', {}, "the name of a header"),
        ('headers = { Content-Length = "1" }', {}, "set for each request"),
        ('headers = { A = "1", a = "2" }', {}, "given twice"),
        ('headers = "sk-x"', {}, "found a string, expected a table"),
        ('url_ = "sk-x"', {}, "did you mean url"),
    ],
)
def test_bad_secrets_and_headers_are_refused_without_printing_them(
    fields: str, environ: dict[str, str], message: str
) -> None:
    """The message says what is wrong with the value and never holds it."""
    text = "\n".join(refused(replica(fields), environ).values())
    assert message in text
    assert "sk-x" not in text
    assert "12345" not in text


def test_a_password_in_a_url_is_not_printed() -> None:
    """Refused, with the user name and password masked."""
    message = refused('[[pool]]\nmodel = "m"\nreplicas = ["http://user:pw@h"]')
    assert "//***@h" in message["pool[0].replicas[0].url"]
    assert "pw" not in str(message)
    message = refused('[[pool]]\nmodel = "m"\nreplicas = ["http://h?key=pw"]')
    assert "http://h?***" in message["pool[0].replicas[0].url"]
    assert "pw" not in str(message)


# --- URLs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8746", ("http", "127.0.0.1", 8746)),
        ("http://[::1]:8746", ("http", "::1", 8746)),
        ("https://0.0.0.0:443", ("https", "0.0.0.0", 443)),
        ("HTTP://LocalHost:0", ("http", "localhost", 0)),
        ("http://h:1/", ("http", "h", 1)),
        ("http://[0:0::0]:1", ("http", "::", 1)),
    ],
)
def test_listen_addresses(url: str, address: tuple[str, str, int]) -> None:
    """Scheme, host without brackets, port; and back again."""
    parsed = parse_listen(url)
    assert parsed == Address(*address)
    assert parse_listen(parsed.url) == parsed


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8746", "expected http://host:port"),
        ("8746", "expected http://host:port"),
        ("ftp://h:1", "the scheme must be http or https"),
        ("http://h", "the port is missing"),
        ("http://h:", "the port must be a number"),
        ("http://h:x", "the port must be a number"),
        ("http://h:65536", "at most 65535"),
        ("http://h:\u0661", "the port must be a number"),
        ("http://:8746", "the host is missing"),
        ("http://*:8746", "neither a name nor an IP address"),
        ("http://::1:8746", "needs brackets"),
        ("http://[::g]:1", "not an IP address"),
        ("http://[fe80::1%eth0]:1", "not an IP address"),
        ("http://256.0.0.1:1", "not an IP address"),
        ("http://h:1/v1", "without a path"),
        ("http://h:1?a", "without a query"),
        ("http://h:1#a", "without a query"),
        ("http://u:p@h:1", "without a user name"),
        ("http://h h:1", "neither a name"),
        ("http://h\n:1", "neither a name"),
        ("http://a\\b:1", "expected http"),
        ("", "expected http"),
    ],
)
def test_what_is_no_listen_address(url: str, message: str) -> None:
    """Anything but scheme, host and port."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_listen(url)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        ("http://h:8000/v1", "http://h:8000"),
        ("http://h:8000/v1/", "http://h:8000"),
        ("http://h:8000/base/v1/", "http://h:8000/base"),
        ("http://h/api/v1/proxy", "http://h/api/v1/proxy"),
        ("HTTPS://H.Example:443", "https://h.example"),
        ("http://h:443", "http://h:443"),
        ("http://[0:0::1]:8000", "http://[::1]:8000"),
        ("http://my_host", "http://my_host"),
    ],
)
def test_replica_urls_have_one_form(url: str, canonical: str) -> None:
    """No /v1 at the end, lower case, no usual port; the form is stable."""
    assert parse_replica_url(url) == canonical
    assert parse_replica_url(canonical) == canonical


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("h:8000", "expected the URL of a replica"),
        ("unix:///run/x", "the scheme must be http or https"),
        ("http://", "the host is missing"),
        ("http://h:0", "port 0"),
        ("http://h?x=1", "without a query"),
        ("http://h/#x", "without a query"),
        ("http://u@h", "without a user name"),
        ("http://h/v1/chat/completions", "give the base URL"),
        ("http://h/a/../b", "not a plain one"),
        ("http://h//a", "not a plain one"),
        ("http://h/a b", "not a plain one"),
        ("http://h/\u00e9", "not a plain one"),
        ("http://\u00e9", "neither a name"),
    ],
)
def test_what_is_no_replica_url(url: str, message: str) -> None:
    """Anything that could not be called, or would be called wrongly."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_replica_url(url)


# --- properties ------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "tls": {},
    "limits": {},
    "health": {},
    "pool": [
        {"model": "a", "replicas": ["http://a", {"url": "http://b"}], "timeouts": {}},
        {"model": "b", "replicas": [{"url": "http://a"}, {"url": "http://b"}]},
    ],
}
TABLES = [
    (),
    ("tls",),
    ("limits",),
    ("health",),
    ("pool", 0),
    ("pool", 1),
    ("pool", 0, "timeouts"),
    ("pool", 0, "replicas", 1),
    ("pool", 1, "replicas", 0),
]
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "Top level": Config,
    "tls": TlsConfig,
    "limits": tables.LimitsConfig,
    "health": tables.HealthConfig,
    "probes": tables.ProbeConfig,
    "admin": tables.AdminConfig,
    "breaker": tables.BreakerConfig,
    "workflow": tables.WorkflowConfig,
    "workflow.tiers": tables.WorkflowTierConfig,
    "code": tables.CodeConfig,
    "apps": tables.AppsConfig,
    "web": tables.WebConfig,
    "files": tables.FilesConfig,
    "knowledge": tables.KnowledgeConfig,
    "pool": PoolConfig,
    "pool.tiers": tables.TierConfig,
    "pool.retry_budget": tables.RetryBudgetConfig,
    "pool.outliers": tables.OutlierConfig,
    "pool.hedge": tables.HedgeConfig,
    "pool.timeouts": TimeoutConfig,
    "pool.replicas": ReplicaConfig,
    "pool.replicas.kv_events": tables.KvEventsConfig,
}
"""Every table of the configuration, by its section in the reference, in the order there."""

KNOWN = {name for struct in SECTIONS.values() for name in struct.__struct_fields__}


def in_toml(value: object) -> str:
    """A value as TOML on one line."""
    match value:
        case dict():
            pairs = (f"{quoted(name)} = {in_toml(item)}" for name, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        case list():
            return "[" + ", ".join(map(in_toml, value)) + "]"
        case str():
            return quoted(value)
    return str(value).lower()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(TABLES),
    st.text(max_size=12).filter(lambda name: name not in KNOWN),
    st.one_of(st.integers(), st.text(max_size=3), st.just({}), st.booleans()),
)
def test_any_unknown_key_is_reported_by_its_exact_path(
    path: tuple[str | int, ...], name: str, value: object
) -> None:
    """In every table of the tree, whatever it is called: one problem with the dotted path."""
    tree = msgspec.json.decode(msgspec.json.encode(FULL))
    table: Any = tree
    for step in path:
        table = table[step]
    table[name] = value
    problems = refused("\n".join(f"{quoted(key)} = {in_toml(tree[key])}" for key in tree))
    around = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    own = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)
    assert tomllib.loads(f"{own} = 1") == {name: 1}
    assert problems[f"{around}.{own}".lstrip(".")].startswith("is not a key; ")


def _names() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=12).filter(str.isprintable)


SECONDS = st.floats(min_value=1e-3, max_value=1e6)
COUNTS = st.integers(min_value=1, max_value=10**12)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Valid configurations without secrets."""
    urls = st.integers(1, 65535).map(lambda port: parse_replica_url(f"http://h:{port}"))
    replicas = st.builds(ReplicaConfig, url=urls, max_in_flight=st.none() | COUNTS)
    pools = st.builds(
        PoolConfig,
        model=_names(),
        replicas=st.lists(replicas, min_size=1, max_size=3, unique_by=lambda one: one.url).map(
            tuple
        ),
        served_model=st.none() | _names(),
        policy=st.sampled_from(["least_request", "round_robin", "random"]),
        retries=st.integers(0, 10),
        queue=st.integers(0, 10**9),
        queue_s=SECONDS,
        timeouts=st.builds(TimeoutConfig, connect_s=SECONDS, total_s=SECONDS),
    )
    return Config(
        listen=tuple(draw(st.lists(st.just("http://h:0"), min_size=1, max_size=2))),
        pool=tuple(draw(st.lists(pools, max_size=3, unique_by=lambda one: one.model))),
        drain_s=draw(st.floats(min_value=0, max_value=1e6)),
        access_log=draw(st.booleans()),
        log_format=draw(st.sampled_from(["text", "json"])),
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(configs())
def test_what_is_described_loads_as_the_same_configuration(config: Config) -> None:
    """describe and load are each other's inverse, for a file as well as for flags."""
    assert loaded(describe(config)) == config
    assert load(None, environ={}, flags=msgspec.to_builtins(config)) == config


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda below: (
            st.lists(below, max_size=3)
            | st.dictionaries(st.sampled_from(sorted(KNOWN)), below, max_size=4)
        ),
        max_leaves=12,
    ),
    st.sampled_from(Config.__struct_fields__),
)
def test_no_value_makes_loading_fail_in_another_way(value: object, key: str) -> None:
    """Whatever the data, the outcome is a Config or a ConfigError."""
    with contextlib.suppress(ConfigError):
        load(None, environ={}, flags={key: value})


# --- the documents ---------------------------------------------------------------------------


def _documented() -> Iterator[tuple[str, str, str]]:
    """Section, key and default of each row in the tables of the reference."""
    section = ""
    for line in (ROOT / "docs/reference/config.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`[]")
        row = re.match(r"\| `(\w+)` \| .*? \| (.*?) \| ", line)
        if row:
            yield section, row[1], row[2].strip("`")


def _keys(struct: type[msgspec.Struct], section: str) -> Iterator[tuple[str, str, str]]:
    for field in msgspec.structs.fields(struct):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        yield section, field.name, _default_text(default)


def _default_text(default: object) -> str:
    match default:
        case None:
            return "not set"
        case bool():
            return str(default).lower()
        case str() | tuple():
            return json.dumps(default)
        case msgspec.Struct():
            return "its defaults"
    return "required" if default is msgspec.NODEFAULT else repr(default)


def test_the_reference_documents_every_key_with_its_default() -> None:
    """A key that is added, removed or given another default must be so on the page as well."""
    wanted = [key for section, struct in SECTIONS.items() for key in _keys(struct, section)]
    assert list(_documented()) == wanted


def test_the_reference_has_a_section_for_every_table() -> None:
    """A table that is added to the model is in the list that the test above goes by."""
    structs = {
        value
        for value in vars(tables).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }
    assert structs - {msgspec.Struct} == set(SECTIONS.values())


def test_the_example_loads_and_its_commented_lines_are_the_defaults() -> None:
    """Taking away every "#" changes nothing, and every key is shown."""
    example = (ROOT / "triolet.example.toml").read_text(encoding="utf-8")
    spelt_out = re.sub(r"^#(?=[a-z\[])", "", example, flags=re.MULTILINE)
    assert spelt_out != example
    assert loaded(spelt_out) == loaded(example)
    missing = [name for name in KNOWN if not re.search(rf"\b{name}\b", example)]
    assert missing == []


def test_the_page_shows_errors_as_they_are() -> None:
    """The lines under "Errors" are what `load` says."""
    page = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    shown = page.split("## Errors")[1].split("```")[1].strip()
    Path("triolet.toml").write_text(
        POOL + 'timeouts = { connect_ms = 1 }\n[limits]\nbody_bytes = "32MiB"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(
            None,
            environ={"TRIOLET_LIMITS_BODY_BYTES": "1"},
            flags={"health.timeout_s": 0},
        )
    assert sorted(str(caught.value).split("\n")) == sorted(shown.split("\n"))


def test_importing_the_configuration_does_not_import_trio() -> None:
    """`triolet check-config` and `--help` stay quick."""
    code = "import sys, server.config; sys.exit('trio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
