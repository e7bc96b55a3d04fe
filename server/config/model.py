"""The tables of the configuration, their keys and their defaults.

In names, `_s` is seconds and `_bytes` is bytes. `docs/reference/config.md` says what each key is
for and what it interacts with. The Structs hold values that were checked; `load` does the checking.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from server.config import values

MASK: Final = values.MASK
"""Stands for a secret wherever a configuration is printed; refused where one is read."""

Seconds = Annotated[float, Meta(gt=0, extra={"unit": "seconds"})]
Interval = Annotated[float, Meta(ge=0.05, extra={"unit": "seconds"})]
SecondsOrZero = Annotated[float, Meta(ge=0, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=1, extra={"unit": "bytes"})]
AtLeastOne = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]
FilePath = Annotated[
    str, Meta(min_length=1, extra={"read": values.read_file_path, "noun": "the path of a file"})
]
DirectoryPath = Annotated[
    str,
    Meta(min_length=1, extra={"read": values.read_directory, "noun": "the path of a directory"}),
]
ListenUrl = Annotated[
    str, Meta(extra={"read": values.read_listen, "noun": "http://host:port or https://host:port"})
]
ReplicaUrl = Annotated[
    str, Meta(extra={"read": values.read_replica_url, "noun": "the URL of a replica"})
]
KvEndpoint = Annotated[
    str, Meta(extra={"read": values.read_kv_endpoint, "noun": "an address such as tcp://host:5557"})
]
ApiKey = Annotated[
    str,
    Meta(
        min_length=1,
        extra={"read": values.read_api_key, "secret": True, "noun": "an API key or env:NAME"},
    ),
]
ProxyUrl = Annotated[str, Meta(extra={"read": values.read_proxy, "noun": "http://host:port"})]
Network = Annotated[
    str,
    Meta(extra={"read": values.read_network, "noun": "a host, *.domain, an address or a network"}),
]
ToolSetting = Annotated[
    str | int | float | bool, Meta(extra={"read": values.read_setting, "secret": True, "unit": "1"})
]
HeaderName = Annotated[str, Meta(extra={"read": values.read_header_name})]
HeaderValue = Annotated[str, Meta(extra={"read": values.read_header_value, "secret": True})]

PolicyName = Literal[
    "expected_cost",
    "least_request",
    "prefix_hash",
    "gpu_load",
    "least_tokens",
    "session",
    "power_of_two",
    "round_robin",
    "random",
]
"""As `balancer.policies.PolicyName`, which takes trio to import; a test compares them."""

Headers = Annotated[dict[HeaderName, HeaderValue], Meta(extra={"secret": True})]


class KvEventsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an engine publishes what happens in its KV cache. Needs triolet[kvevents]."""

    endpoint: KvEndpoint
    """Such as tcp://10.0.0.7:5557."""
    replay: KvEndpoint | None = None
    """Where it can be asked for what was missed."""
    topic: str = ""
    """Only events under topics that begin so."""


class ReplicaConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model server. Its repr and `describe` hide the API key and the headers' values."""

    url: ReplicaUrl
    """http or https, in the form `parse_replica_url` returns."""
    max_in_flight: AtLeastOne | None = None
    """Requests it works on at once; None is no limit."""
    api_key: ApiKey | None = None
    """Sent as `Authorization: Bearer` in place of the client's own."""
    headers: Headers = {}
    """Sent with each request; names are in lower case."""
    resolve: bool = False
    """Whether every address of the host's name is a replica of its own, asked again and again."""
    gpus: tuple[Annotated[int, Meta(ge=0)] | Name, ...] = ()
    """The GPUs behind it, by index or UUID, where Triolet runs beside it; empty: found."""
    gpu_exporter: ReplicaUrl | None = None
    """Where its GPUs are told of, if it runs elsewhere: DCGM's exporter or `triolet gpu-agent`."""

    metrics: ReplicaUrl | None = None
    """Where its engine's metrics are, if not at /metrics beside the API."""
    kv_events: KvEventsConfig | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"ReplicaConfig({shown})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [
            ("url", self.url),
            ("max_in_flight", self.max_in_flight),
            ("api_key", None if self.api_key is None else MASK),
            ("headers", dict.fromkeys(self.headers, MASK)),
            ("resolve", self.resolve),
            ("gpus", self.gpus),
            ("gpu_exporter", self.gpu_exporter),
            ("metrics", self.metrics),
            ("kv_events", self.kv_events),
        ]


Replicas = tuple[Annotated[ReplicaConfig, Meta(extra={"shorthand": "url"})], ...]


class TimeoutConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long one attempt at a replica may take; whichever ends first holds."""

    connect_s: Seconds = 2.0
    first_byte_s: Seconds = 120.0
    idle_s: Seconds = 30.0
    total_s: Seconds = 600.0


class TierConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One class of traffic in a pool; of several the one listed first comes first."""

    name: Name
    slots: AtLeastOne | None = None
    """Most requests of it in flight in the pool; None is no limit."""
    reserve: Annotated[int, Meta(ge=0)] = 0
    """Slots that the tiers after it leave free for it and those before it."""
    queue: Annotated[int, Meta(ge=0)] = 1024
    """Most requests of it that wait; 0 refuses at once."""
    queue_s: Seconds = 30.0
    """Longest wait for one place."""
    handicap_s: SecondsOrZero = 0.0
    """How long it stands back for the tiers before it; then it gets one place in eight."""
    deadline_ms: AtLeastOne | None = None
    """By when a request must have a replica, counted from its arrival, if it does not say."""
    preempts: bool = False
    """Whether it may take the place of a request of a later tier that yields."""
    yields_s: SecondsOrZero = 0.0
    """For so long after it got a replica one that has sent nothing may be put back in line."""
    max_unread_tokens: AtLeastOne | None = None
    """A replica that has so many prompt tokens yet to read gets none of it."""
    max_kv_share: Annotated[float, Meta(gt=0, le=1, extra={"unit": "1"})] | None = None
    """A replica whose KV cache is in use to this share gets none of it."""
    max_requests: AtLeastOne | None = None
    """A replica that has so many requests in flight, of any tier, gets none of it."""


Share = Annotated[float, Meta(ge=0, le=1, extra={"unit": "1"})]
Rate = Annotated[float, Meta(ge=0, extra={"unit": "1"})]


class RetryBudgetConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many further attempts a pool may make in all."""

    share: Share = 0.2
    """Of its requests of the last ten seconds ..."""
    per_s: Rate = 10.0
    """... and so many a second besides."""


class OutlierConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a replica is ejected because it fails more than the others of its pool."""

    failure_share: Share = 0.1
    """It surely fails more than this share of its requests ..."""
    times_others: Annotated[float, Meta(ge=1, extra={"unit": "1"})] = 3.0
    """... and more than so many times as many as the middle one of the others ..."""
    volume: Annotated[int, Meta(ge=5)] = 20
    """... which had at least so many requests each ..."""
    window_s: Seconds = 60.0
    """... in so many seconds."""
    eject_s: Seconds = 10.0
    eject_max_s: Seconds = 300.0
    most: Share = 0.5
    """At most this share of the replicas is ejected; 0 is none."""


class HedgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a request that has no first token yet is sent a second time, elsewhere."""

    after_s: Seconds | None = None
    """After so long; None: after the time within which `quantile` of them had theirs."""
    quantile: Annotated[float, Meta(ge=0.5, le=0.999, extra={"unit": "1"})] = 0.95
    share: Annotated[float, Meta(gt=0, le=0.5, extra={"unit": "1"})] = 0.05
    """The most that is hedged, of all requests of the last minute."""


class BreakerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a replica that fails is left alone, and how it comes back."""

    failures_in_a_row: AtLeastOne = 5
    failure_share: Annotated[float, Meta(gt=0, le=1, extra={"unit": "1"})] = 0.5
    volume: AtLeastOne = 10
    window_s: Seconds = 10.0
    rest_s: Seconds = 0.5
    rest_max_s: Seconds = 30.0
    trials: AtLeastOne = 1
    successes: AtLeastOne = 2
    slow_start_s: SecondsOrZero = 5.0
    """How often the in-flight cap of a replica that is new or came back is doubled; 0: no cap."""


class PoolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The replicas that serve one model name."""

    model: Name
    replicas: Replicas = ()
    replicas_file: FilePath | None = None
    """A TOML or JSON file with more of them under `replicas`, read again whenever it changes."""
    served_model: Name | None = None
    """The name the replicas know the model by; None is `model`."""
    policy: PolicyName = "expected_cost"
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    retry_budget: RetryBudgetConfig = RetryBudgetConfig()
    queue: Annotated[int, Meta(ge=0)] = 1024
    """Requests that may wait for a free replica; 0 refuses at once. Of the first tier, unless
    `tiers` says otherwise."""
    queue_s: Seconds = 30.0
    tiers: tuple[TierConfig, ...] = ()
    """The classes of traffic, the first one first; none: `interactive` and `batch`."""
    fallback: tuple[Name, ...] = ()
    """Models that are asked, in this order, when this one could not answer."""
    fallback_on: tuple[Literal["unavailable", "overloaded", "context"], ...] = (
        "unavailable",
        "overloaded",
        "context",
    )
    hold_s: SecondsOrZero = 1.0
    """How long a stream's head is held back for an event that carries something; 0: not at all."""
    hedge: HedgeConfig | None = None
    outliers: OutlierConfig = OutlierConfig()
    panic: Share = 0.25
    """If fewer than this share of the living replicas are fit, all that live are used."""
    context_tokens: AtLeastOne | None = None
    """What the model reads and writes at most, for workflows; None: as its engines say."""
    vision: bool | None = None
    """Whether it takes pictures and videos; None: taken for granted until it refuses one."""
    audio: bool | None = None
    """None is false."""
    documents: bool | None = None
    """Whether it takes whole files, such as a PDF; None is false."""
    tools: bool | None = None
    """None: taken for granted until it refuses them."""
    json_schema: bool | None = None
    """The same of answers by a schema."""
    timeouts: TimeoutConfig = TimeoutConfig()


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client, and all of them together, may take from the server."""

    connections: AtLeastOne = 10_000
    header_bytes: Bytes = 65_536
    header_count: AtLeastOne = 128
    body_bytes: Bytes = 33_554_432
    head_s: Seconds = 10.0
    body_s: Seconds = 60.0
    keep_alive_s: Seconds = 75.0
    write_s: Seconds = 30.0


class AdminConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may see and change what runs, under /admin/api/. Its repr hides the key."""

    key: ApiKey | None = None
    """To be sent as `Authorization: Bearer`. None: one is made, and kept in a file."""

    def __repr__(self) -> str:
        return f"AdminConfig(key={MASK if self.key else None!r})"


class ProbeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What engines and GPUs are asked besides their health, and how often."""

    engine_s: SecondsOrZero = 2.0
    """Between two readings of an engine's metrics, from 0.05; 0: none."""
    gpu_s: SecondsOrZero = 1.0
    """Between two readings of the GPUs, from 0.05; 0: none."""
    dns_s: Interval = 10.0
    """Between two look-ups of a name with `resolve`."""
    discovery_s: Interval = 30.0
    """Between two searches for engines on this machine, where no pool is configured."""


class TlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for https:// addresses; absolute paths once loaded."""

    cert: FilePath
    key: FilePath


class HealthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How replicas are probed."""

    interval_s: Interval = 5.0
    timeout_s: Seconds = 2.0


class WorkflowTierConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many node runs of one class of traffic go on at once, by what they wait for."""

    name: Name
    model: AtLeastOne = 256
    """Calls of models; the pools have limits of their own behind it."""
    io: AtLeastOne = 256
    """HTTP requests, tools, look-ups."""
    cpu: AtLeastOne | None = None
    """Code, templates and documents; None: as many as this machine has cores."""


class WorkflowConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs of apps may take."""

    steps: AtLeastOne = 500
    """Node runs of one run, those inside iterations and loops included."""
    time_s: Seconds = 1200.0
    """Then it is interrupted."""
    depth: AtLeastOne = 5
    """How many workflows may call one another."""
    value_items: AtLeastOne = 50_000
    """Items of all lists and objects in what one node gives out, or an input has."""
    app_share: Annotated[float, Meta(gt=0, le=1, extra={"unit": "1"})] = 0.5
    """Of a tier's slots, the most that the runs of one app hold; one at least."""
    tiers: tuple[WorkflowTierConfig, ...] = ()
    """None: `interactive` and `batch`, with a quarter of the slots."""


class CodeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Code nodes, and the locked-down processes in which they run. JavaScript: triolet[code]."""

    enabled: bool = False
    """Whether code of imported apps runs at all."""
    workers: AtLeastOne | None = None
    """At work at once; None: as many as this machine has cores, 2 at least."""
    time_s: Seconds = 10.0
    """For one node run."""
    memory_bytes: Bytes = 268_435_456
    """Of one worker."""
    network: bool = False
    """Whether code may open connections."""
    packages: tuple[Name, ...] = ()
    """Installed packages that code may import beside the standard library."""
    strict: bool = False
    """Whether nothing runs where the kernel cannot lock processes down."""


class AppsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where imported apps are kept."""

    dir: DirectoryPath | None = None
    """None: `apps` in the working directory."""


class WebConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What HTTP nodes and tools may ask. Addresses inside are refused unless they are allowed."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    """Before `allow`."""
    proxy: ProxyUrl | None = None
    connections: AtLeastOne = 256
    """Open at once."""
    connections_per_host: AtLeastOne = 32
    """Of them to one host."""


class FilesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files that runs are given and that they make."""

    file_bytes: Bytes = 104_857_600
    """The largest one."""
    total_bytes: Bytes = 2_147_483_648
    """All that are kept; then the one that was used longest ago goes."""
    memory_bytes: Bytes = 67_108_864
    """Of them in memory; the others are in a directory that goes when the process does."""
    keep_s: Seconds = 86_400.0
    """After the last use."""


class KnowledgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where knowledge bases are: each a folder of text files."""

    dir: DirectoryPath | None = None


ToolSettings = Annotated[dict[Name, ToolSetting], Meta(extra={"secret": True})]


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything `triolet serve` and `triolet run` can be told."""

    listen: Annotated[tuple[ListenUrl, ...], Meta(min_length=1)] = ("http://127.0.0.1:8746",)
    """Addresses that `parse_listen` reads."""
    tls: TlsConfig | None = None
    pool: tuple[PoolConfig, ...] = ()
    limits: LimitsConfig = LimitsConfig()
    health: HealthConfig = HealthConfig()
    probes: ProbeConfig = ProbeConfig()
    admin: AdminConfig = AdminConfig()
    breaker: BreakerConfig = BreakerConfig()
    models: dict[Name, Name] = {}
    """What models of imported apps are served by: "provider:name", with wildcards, to a pool."""
    workflow: WorkflowConfig = WorkflowConfig()
    code: CodeConfig = CodeConfig()
    apps: AppsConfig = AppsConfig()
    web: WebConfig = WebConfig()
    files: FilesConfig = FilesConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    tools: dict[Name, ToolSettings] = {}
    """By provider, or provider and tool: credentials, addresses. `describe` hides the texts."""
    drain_s: SecondsOrZero = 30.0
    """How long streams may finish after SIGTERM; 0 ends them at once."""
    log_format: Literal["text", "json"] = "text"
    access_log: bool = True

    def shown_tools(self) -> dict[str, dict[str, str | int | float | bool]]:
        """`tools` with each text hidden: any of them may be a credential."""
        return {
            key: {name: MASK if isinstance(one, str) else one for name, one in given.items()}
            for key, given in self.tools.items()
        }

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["tools"] = self.shown_tools()
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
