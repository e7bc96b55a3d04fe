"""Each gateway at each policy: its command line, its configuration, what its clients must send."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from bench.peers.gateway import Gateway, Place, Setup
from bench.peers.registry import PEERS
from bench.peers.triolet import triolet

PLACE = Place(
    home=Path("/home"),
    directory=Path("/files"),
    port=7,
    metrics_port=8,
    replicas=("http://127.0.0.1:101", "http://127.0.0.1:102"),
    model="m",
)
EVERY = {"triolet": triolet(), **PEERS}
CASES = [(gateway, policy) for gateway in EVERY.values() for policy in gateway.policies]


def setup(name: str, policy: str) -> Setup:
    return EVERY[name].setup(PLACE, policy)


def only_file(made: Setup) -> str:
    [content] = made.files.values()
    return content


@pytest.mark.parametrize(("gateway", "policy"), CASES, ids=lambda value: str(value)[:40])
def test_every_setup_listens_on_loopback_before_all_replicas(gateway: Gateway, policy: str) -> None:
    """Wherever it is said: on the command line, in a file, in a header."""
    made = gateway.setup(PLACE, policy)
    said = " ".join((*made.command, *made.files.values(), *(value for _, value in made.headers)))
    assert "7" in said
    for replica in PLACE.replicas:
        assert replica.removeprefix("http://") in said
    assert "0.0.0.0" not in said
    assert all(file.parent == PLACE.directory for file in made.files)


@pytest.mark.parametrize("name", ["vllm-router", "sglang-router"])
def test_routers_take_their_policy_from_the_command_line(name: str) -> None:
    """Quiet, and with every replica."""
    for policy in PEERS[name].policies:
        text = " ".join(setup(name, policy).command)
        assert f"--policy {policy} " in text
        assert "--log-level warn" in text
        assert text.endswith("--worker-urls http://127.0.0.1:101 http://127.0.0.1:102")


def test_policies_that_go_by_session_get_the_header_they_look_at() -> None:
    """And no others get one: it would be an advantage that nobody measured."""
    wanted = {
        ("vllm-router", "consistent_hash"): "x-session-id",
        ("vllm-router", "sticky_least_loaded"): "x-session-id",
        ("sglang-router", "manual"): "x-smg-routing-key",
        ("litellm", "session_affinity"): "x-litellm-session-id",
        ("nginx", "session_hash"): "x-session-id",
    }
    found = {
        (gateway.name, policy): gateway.setup(PLACE, policy).session_header
        for gateway, policy in CASES
    }
    assert {place: header for place, header in found.items() if header} == wanted


def test_a_policy_that_asks_the_replicas_says_what_it_asks() -> None:
    """So that it is told when they do not have it; the others work with any replica."""
    found = {
        (gateway.name, policy): path
        for gateway, policy in CASES
        if (path := gateway.setup(PLACE, policy).replica_path)
    }
    assert found == {("vllm-router", "cache_aware"): "/v1/chat/completions/render"}


def test_litellm_has_each_replica_under_one_model_name() -> None:
    """That is how it balances; it takes a key and no database."""
    made = setup("litellm", "least-busy")
    config = json.loads(only_file(made))
    assert config["router_settings"] == {"routing_strategy": "least-busy"}
    assert [one["model_name"] for one in config["model_list"]] == ["m", "m"]
    params = [one["litellm_params"] for one in config["model_list"]]
    assert [one["api_base"] for one in params] == [f"{url}/v1" for url in PLACE.replicas]
    assert {one["model"] for one in params} == {"hosted_vllm/m"}
    key = made.environment["LITELLM_MASTER_KEY"]
    assert made.headers == (("authorization", f"Bearer {key}"),)
    assert made.environment["LITELLM_LOG"] == "ERROR"


def test_litellm_keeps_sessions_by_a_check_before_its_strategy() -> None:
    """There is no strategy of that name."""
    router = json.loads(only_file(setup("litellm", "session_affinity")))["router_settings"]
    assert router["routing_strategy"] == "simple-shuffle"
    assert router["optional_pre_call_checks"] == ["session_affinity"]


def test_portkey_is_told_by_its_clients() -> None:
    """The whole configuration is one header."""
    made = setup("portkey", "loadbalance")
    [(name, value)] = made.headers
    config = json.loads(value)
    assert name == "x-portkey-config"
    assert config["strategy"] == {"mode": "loadbalance"}
    assert [one["custom_host"] for one in config["targets"]] == [
        f"{url}/v1" for url in PLACE.replicas
    ]
    assert made.command[-2:] == ["--port=7", "--headless"]


@pytest.mark.parametrize(
    ("policy", "directive"),
    [
        ("least_conn", "least_conn;"),
        ("random", "random;"),
        ("random_two", "random two least_conn;"),
        ("session_hash", "hash $http_x_session_id consistent;"),
    ],
)
def test_nginx_balances_as_told(policy: str, directive: str) -> None:
    """And passes chunks on as they come, over connections that are kept."""
    config = only_file(setup("nginx", policy))
    assert directive in config
    assert "proxy_buffering off;" in config
    assert "access_log off;" in config
    assert "keepalive 256;" in config
    assert "server 127.0.0.1:101;" in config
    assert config.count("{") == config.count("}")


def test_nginx_in_turn_needs_no_directive() -> None:
    """Round robin is what it does by itself."""
    config = only_file(setup("nginx", "round_robin"))
    assert "least_conn" not in config
    assert "random" not in config


def test_triolet_has_one_pool_and_no_log() -> None:
    """A configuration that `triolet serve` reads; logs are off as they are for its peers."""
    config = tomllib.loads(only_file(setup("triolet", "round_robin")))
    assert config["access_log"] is False
    assert config["pool"] == [
        {"model": "m", "policy": "round_robin", "replicas": list(PLACE.replicas)}
    ]
    assert triolet().policies[0] == "expected_cost"
    assert triolet("python -m x --y").setup(PLACE, "random").command[:4] == [
        "python",
        "-m",
        "x",
        "--y",
    ]


def test_nginx_keeps_the_longest_request_in_memory() -> None:
    """Started by root, its workers could not write it to a file: a long prompt got status 500."""
    config = only_file(setup("nginx", "round_robin"))
    sizes = dict(re.findall(r"(client_max_body_size|client_body_buffer_size) (\w+);", config))
    assert sizes["client_body_buffer_size"] == sizes["client_max_body_size"]
