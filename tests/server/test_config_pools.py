"""The configuration of balancing: what a pool may hold, what is refused, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balancer.policies import DEFAULT_POLICY, POLICIES
from balancer.policies import PolicyName as BalancerPolicyName
from server.config import (
    BreakerConfig,
    Config,
    ConfigError,
    PoolConfig,
    ProbeConfig,
    ReplicaConfig,
    TierConfig,
    TimeoutConfig,
    check_replica,
    describe,
    load,
    load_replicas,
    parse_replica_url,
)
from server.config.model import (
    AdminConfig,
    HedgeConfig,
    KvEventsConfig,
    OutlierConfig,
    PolicyName,
    RetryBudgetConfig,
)

POOL = '[[pool]]\nmodel = "m"\nreplicas = ["http://h:1"]\n'


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a triolet.toml that lies about."""
    monkeypatch.chdir(tmp_path)


def loaded(toml: str, **environ: str) -> Config:
    Path("triolet.test.toml").write_text(toml, encoding="utf-8")
    return load("triolet.test.toml", environ=environ, flags={})


def refused(toml: str) -> dict[str, str]:
    """The message of each key."""
    with pytest.raises(ConfigError) as caught:
        loaded(toml)
    return {problem.key: problem.message for problem in caught.value.problems}


def test_the_policies_are_those_of_the_balancer() -> None:
    """The list is written twice, as that of the balancer takes Trio to import."""
    assert set(get_args(PolicyName)) == set(get_args(BalancerPolicyName)) == set(POLICIES)
    assert PoolConfig(model="m").policy == DEFAULT_POLICY


def test_gpus_by_index_and_by_name() -> None:
    """Both in one list, in the order given."""
    config = loaded(POOL.replace('"http://h:1"', '{ url = "http://h:1", gpus = [0, "GPU-8a", 3] }'))
    assert config.pool[0].replicas[0].gpus == (0, "GPU-8a", 3)


@pytest.mark.parametrize(
    ("gpus", "key", "message"),
    [
        ("0", "gpus", "expected a list"),
        ("[-1]", "gpus[0]", "found -1, expected"),
        ('[0, ""]', "gpus[1]", 'found "", expected'),
        ("[0, true]", "gpus[1]", "found true, expected"),
        ("[1.5]", "gpus[0]", "found 1.5, expected"),
    ],
)
def test_wrong_gpus(gpus: str, key: str, message: str) -> None:
    """Said with the place in the list."""
    toml = POOL.replace('"http://h:1"', f'{{ url = "http://h:1", gpus = {gpus} }}')
    assert message in refused(toml)[f"pool[0].replicas[0].{key}"]


def test_a_file_of_replicas_is_found_beside_the_configuration(tmp_path: Path) -> None:
    """An absolute path once loaded; a pool may have that alone."""
    (tmp_path / "more.toml").write_text("replicas = []\n")
    config = loaded('[[pool]]\nmodel = "m"\nreplicas_file = "more.toml"\n')
    assert config.pool[0].replicas_file == str(tmp_path / "more.toml")
    assert config.pool[0].replicas == ()


def test_a_file_of_replicas_that_is_not_there() -> None:
    """Refused at the start, where a person looks; later it is only logged."""
    problems = refused('[[pool]]\nmodel = "m"\nreplicas_file = "none.toml"\n')
    assert "there is none at" in problems["pool[0].replicas_file"]


@pytest.mark.parametrize(
    ("toml", "key", "message"),
    [
        (
            POOL + 'fallback = ["n"]',
            "pool[0].fallback[0]",
            'found "n", expected the model of a pool: "m"',
        ),
        (
            POOL + 'fallback = ["m"]',
            "pool[0].fallback[0]",
            'found "m", which is the pool\'s own model',
        ),
        (POOL + 'fallback = [""]', "pool[0].fallback[0]", "not empty"),
        (POOL + 'fallback_on = ["slow"]', "pool[0].fallback_on[0]", '"unavailable"'),
        (
            POOL + 'tiers = [{ name = "a" }, { name = "b" }, { name = "a" }]',
            "pool[0].tiers[2].name",
            'found "a", which is the name of tiers[0]',
        ),
        (POOL + "tiers = [{ slots = 1 }]", "pool[0].tiers[0].name", "is missing"),
        (
            POOL + 'tiers = [{ name = "a", slots = 0 }]',
            "pool[0].tiers[0].slots",
            "of at least 1",
        ),
        (
            POOL + 'tiers = [{ name = "a", max_kv_share = 80 }]',
            "pool[0].tiers[0].max_kv_share",
            "found 80, expected a number",
        ),
        (
            POOL + 'tiers = [{ name = "a", deadline_s = 1 }]',
            "pool[0].tiers[0].deadline_s",
            "did you mean deadline_ms",
        ),
        (POOL + "hedge = true", "pool[0].hedge", "expected a table"),
        (
            POOL + "hedge = { share = 0.6 }",
            "pool[0].hedge.share",
            "found 0.6, expected a number",
        ),
        (POOL + "panic = 1.5", "pool[0].panic", "found 1.5, expected a number"),
        (
            POOL + "outliers = { most = 50 }",
            "pool[0].outliers.most",
            "found 50, expected a number",
        ),
        (POOL + "[breaker]\ntrials = 0", "breaker.trials", "of at least 1"),
        ("[probes]\nengine_s = -1", "probes.engine_s", "of at least 0"),
        ("[probes]\ndns_s = 0", "probes.dns_s", "of at least 0.05"),
        ("[probes]\ndiscovery_s = 0.01", "probes.discovery_s", "of at least 0.05"),
        ("[probes]\nengine_s = 0.04", "probes.engine_s", "found 0.04, expected 0, or 0.05 or more"),
        ("[probes]\ngpu_s = 0.001", "probes.gpu_s", "found 0.001, expected 0, or 0.05 or more"),
        ("[health]\ninterval_s = 1e-6", "health.interval_s", "of at least 0.05"),
        (
            POOL + 'tiers = [{ name = "a", slots = 2, reserve = 3 }]',
            "pool[0].tiers[0].reserve",
            "found 3, expected at most its own slots, which are 2",
        ),
        (
            "[breaker]\nrest_max_s = 0.1",
            "breaker.rest_s",
            "found 0.5, expected at most rest_max_s, which is 0.1",
        ),
        (
            POOL + "outliers = { eject_s = 400 }",
            "pool[0].outliers.eject_s",
            "found 400, expected at most eject_max_s, which is 300",
        ),
        (
            '[[pool]]\nmodel = "m"\nreplicas = [{ url = "http://a", api_key = "***" }]',
            "pool[0].replicas[0].api_key",
            'expected the secret itself: "***" only stands for one',
        ),
        (
            '[[pool]]\nmodel = "m"\nreplicas = [{ url = "http://a", headers = { x = "***" } }]',
            "pool[0].replicas[0].headers.x",
            'expected the secret itself: "***" only stands for one',
        ),
        ('[admin]\nkey = "***"', "admin.key", "expected the secret itself"),
        *(
            (
                '[[pool]]\nmodel = "m"\n'
                f'replicas = [{{ url = "http://a", kv_events = {{ endpoint = "{endpoint}" }} }}]',
                "pool[0].replicas[0].kv_events.endpoint",
                "expected tcp://host:port",
            )
            for endpoint in (
                *("10.0.0.1:5557", "http://a:5557", "tcp://a", "tcp://*:5557", "tcp://a:5557/x"),
                *("tcp://a:0", "tcp://a:70000", "", "tcp://"),
            )
        ),
        *(
            (
                '[[pool]]\nmodel = "m"\n'
                f'replicas = [{{ url = "http://many:1", resolve = true, {beside} }}]',
                f"pool[0].replicas[0].{name}",
                "expected the host of url, as it has resolve",
            )
            for name, beside in (
                ("metrics", 'metrics = "http://other:2/metrics"'),
                ("gpu_exporter", 'gpu_exporter = "http://10.0.0.1:9400"'),
                ("kv_events.endpoint", 'kv_events = { endpoint = "tcp://other:1" }'),
                (
                    "kv_events.replay",
                    'kv_events = { endpoint = "tcp://many:1", replay = "tcp://other:1" }',
                ),
            )
        ),
        *(
            (
                f'[[pool]]\nmodel = "m"\nreplicas = ["http://b", {{ url = "http://a", {one} }}]\n'
                f'[[pool]]\nmodel = "n"\nreplicas = [{{ url = "http://a/v1"{other} }}]',
                "pool[1].replicas[0]",
                "has another api_key or headers than pool[0].replicas[1]",
            )
            for one, other in (
                ('api_key = "a"', ', api_key = "b"'),
                ('api_key = "a"', ""),
                ('headers = { x = "1" }', ', headers = { x = "2" }'),
            )
        ),
        ('[admin]\nkey = ""', "admin.key", "expected a string (an API key or env:NAME), not empty"),
        ('[admin]\nkey = "env:NOT_SET"', "admin.key", "NOT_SET to hold the key; it is not set"),
    ],
)
def test_wrong_values(toml: str, key: str, message: str) -> None:
    """By key, in words a person can act on."""
    problems = refused(toml)
    assert list(problems) == [key]
    assert message in problems[key]


def test_fallbacks_may_go_in_circles() -> None:
    """Two models that stand in for one another, listed in any order."""
    second = POOL.replace('"m"', '"n"')
    config = loaded(POOL + 'fallback = ["n"]\n' + second + 'fallback = ["m"]\n')
    assert [pool.fallback for pool in config.pool] == [("n",), ("m",)]


def test_the_admin_key_is_a_secret() -> None:
    """It is never printed, wherever it comes from."""
    config = loaded(POOL + '[admin]\nkey = "env:K"\n', K="s3cret")
    assert config.admin.key == "s3cret"
    assert "s3cret" not in describe(config) + repr(config)
    assert 'key = "***"' in describe(config)


# --- replicas from elsewhere


def test_listed_replicas(tmp_path: Path) -> None:
    """TOML and JSON say the same; keys may come from the environment."""
    toml, as_json = tmp_path / "r.toml", tmp_path / "r.json"
    toml.write_text('replicas = ["http://A:80/v1", { url = "http://b", api_key = "env:K" }]\n')
    listed = {"replicas": ["http://A:80/v1", {"url": "http://b", "api_key": "env:K"}]}
    as_json.write_text(json.dumps(listed))
    for file in (toml, as_json):
        assert load_replicas(str(file), environ={"K": "sk"}) == (
            ReplicaConfig(url="http://a"),
            ReplicaConfig(url="http://b", api_key="sk"),
        )


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["replicas: is missing; expected a list of "]),
        ("replicas = [1, {}]", ["replicas[0]: found 1", "replicas[1].url: is missing"]),
        ("replica = []", ["replica: is not a key; did you mean replicas?", "replicas: is missing"]),
        ("replicas = [", ["line 1, column 13: is not TOML"]),
        (
            'replicas = ["http://a", "http://a:80/v1"]',
            ['replicas[1].url: found "http://a", which is replicas[0] of this pool'],
        ),
        (
            'replicas = [{ url = "http://a", api_key = "k", headers = { Authorization = "x" } }]',
            ["replicas[0].headers.authorization: cannot stand beside api_key"],
        ),
    ],
)
def test_a_wrong_list(tmp_path: Path, text: str, problems: list[str]) -> None:
    """Every problem, each with the file's name."""
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_replicas(str(file), environ={})
    lines = str(caught.value).splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(sorted(lines), sorted(problems), strict=True):
        assert line.startswith(f"file {file}: {problem}"), line


def test_a_replica_over_the_wire() -> None:
    """Checked as in a file, but the environment is not read, and every problem is named."""
    assert check_replica({"url": "http://A/v1", "gpus": [0]}) == (
        ReplicaConfig(url="http://a", gpus=(0,)),
        [],
    )
    both = {"url": "http://a", "api_key": "k", "headers": {"authorization": "x"}}
    assert check_replica(both)[0] is None
    config, problems = check_replica({"url": "a", "api_key": "env:HOME", "speed": 1})
    assert config is None
    assert [problem.split()[0] for problem in problems] == ["speed", "url", "api_key"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda below: (
            st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from([*ReplicaConfig.__struct_fields__, "other"]),
)
def test_whatever_comes_over_the_wire(value: object, key: str) -> None:
    """It is a replica, or there is a problem; never something else."""
    config, problems = check_replica({"url": "http://a", key: value})
    assert (config is None) == bool(problems)


# --- there and back

SHARES = st.floats(min_value=0, max_value=1)
SOME = st.integers(min_value=1, max_value=10**9)
TIMES = st.floats(min_value=1e-3, max_value=1e6)
INTERVALS = st.floats(min_value=0.05, max_value=1e6)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


TIERS = st.builds(
    TierConfig,
    name=NAMES,
    slots=st.none() | SOME,
    reserve=st.just(0) | st.just(1),
    queue=st.integers(0, 100),
    queue_s=TIMES,
    handicap_s=TIMES | st.just(0.0),
    deadline_ms=st.none() | SOME,
    preempts=st.booleans(),
    yields_s=TIMES | st.just(0.0),
    max_unread_tokens=st.none() | SOME,
    max_kv_share=st.none() | st.floats(min_value=0.01, max_value=1),
    max_requests=st.none() | SOME,
)

KV_EVENTS = st.builds(
    KvEventsConfig,
    endpoint=st.just("tcp://h:5557"),
    replay=st.none() | st.just("tcp://h:5558"),
    topic=NAMES | st.just(""),
)

REPLICAS = st.builds(
    ReplicaConfig,
    url=st.integers(1, 65535).map(lambda port: parse_replica_url(f"http://h:{port}")),
    max_in_flight=st.none() | SOME,
    resolve=st.booleans(),
    gpus=st.lists(st.integers(0, 9) | NAMES, max_size=3).map(tuple),
    gpu_exporter=st.none() | st.just("http://h:9400"),
    metrics=st.none() | st.just("http://h:9401/metrics"),
    kv_events=st.none() | KV_EVENTS,
)

POOLS = st.builds(
    PoolConfig,
    model=NAMES,
    replicas=st.lists(REPLICAS, min_size=1, max_size=2, unique_by=lambda one: one.url).map(tuple),
    served_model=st.none() | NAMES,
    policy=st.sampled_from(sorted(POLICIES)),
    retries=st.integers(0, 10),
    retry_budget=st.builds(RetryBudgetConfig, share=SHARES, per_s=TIMES),
    queue=st.integers(0, 10**6),
    queue_s=TIMES,
    tiers=st.lists(TIERS, max_size=3, unique_by=lambda one: one.name).map(tuple),
    fallback_on=st.lists(
        st.sampled_from(["unavailable", "overloaded", "context"]), unique=True
    ).map(tuple),
    hold_s=TIMES | st.just(0.0),
    hedge=st.none()
    | st.builds(
        HedgeConfig,
        after_s=st.none() | TIMES,
        quantile=st.floats(min_value=0.5, max_value=0.999),
        share=st.floats(min_value=0.001, max_value=0.5),
    ),
    outliers=st.builds(
        OutlierConfig,
        failure_share=SHARES,
        times_others=st.floats(min_value=1, max_value=100),
        volume=st.integers(5, 1000),
        window_s=TIMES,
        eject_s=st.floats(min_value=0.1, max_value=10),
        eject_max_s=st.floats(min_value=10, max_value=1e6),
        most=SHARES,
    ),
    panic=SHARES,
    context_tokens=st.none() | SOME,
    vision=st.none() | st.booleans(),
    audio=st.none() | st.booleans(),
    documents=st.none() | st.booleans(),
    tools=st.none() | st.booleans(),
    json_schema=st.none() | st.booleans(),
    timeouts=st.builds(TimeoutConfig, connect_s=TIMES, total_s=TIMES),
)

CONFIGS = st.builds(
    Config,
    pool=st.lists(POOLS, min_size=1, max_size=2, unique_by=lambda one: one.model).map(tuple),
    probes=st.builds(ProbeConfig, engine_s=INTERVALS, gpu_s=st.just(0.0), dns_s=INTERVALS),
    breaker=st.builds(
        BreakerConfig,
        failures_in_a_row=SOME,
        failure_share=st.floats(min_value=0.01, max_value=1),
        rest_s=st.floats(min_value=1e-3, max_value=30),
        slow_start_s=st.just(0.0) | TIMES,
    ),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CONFIGS, st.data())
def test_what_is_described_loads_as_the_same(config: Config, data: st.DataObject) -> None:
    """With every key of balancing set, fallbacks to one another included."""
    models = {pool.model for pool in config.pool}
    pools = tuple(
        msgspec.structs.replace(
            pool, fallback=tuple(data.draw(st.permutations(sorted(models - {pool.model}))))
        )
        for pool in config.pool
    )
    config = msgspec.structs.replace(config, pool=pools)
    assert loaded(describe(config)) == config
    assert load(None, environ={}, flags=msgspec.to_builtins(config)) == config


def test_every_key_of_a_pool_is_drawn_above() -> None:
    """Or the round trip would prove less than it says."""
    elsewhere = {"replicas_file", "fallback", "api_key", "headers", "first_byte_s", "idle_s"}
    shown = Path(__file__).read_text(encoding="utf-8")
    kinds = (PoolConfig, TierConfig, ReplicaConfig, HedgeConfig, OutlierConfig, RetryBudgetConfig)
    for kind in kinds:
        for name in set(kind.__struct_fields__) - elsewhere:
            assert f"{name}=" in shown, f"{kind.__name__}.{name}"
    assert AdminConfig().key is None
