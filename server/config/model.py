"""The tables of the configuration, their keys and their defaults.

In names, `_s` is seconds and `_bytes` is bytes. `docs/reference/config.md` says what each key is
for and what it interacts with. The Structs hold values that were checked; `load` does the checking.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from server.config import values

MASK: Final = "***"
"""Stands for a secret wherever a configuration is printed."""

Seconds = Annotated[float, Meta(gt=0, extra={"unit": "seconds"})]
SecondsOrZero = Annotated[float, Meta(ge=0, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=1, extra={"unit": "bytes"})]
AtLeastOne = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]
FilePath = Annotated[
    str, Meta(min_length=1, extra={"read": values.read_file_path, "noun": "the path of a PEM file"})
]
ListenUrl = Annotated[
    str, Meta(extra={"read": values.read_listen, "noun": "http://host:port or https://host:port"})
]
ReplicaUrl = Annotated[
    str, Meta(extra={"read": values.read_replica_url, "noun": "the URL of a replica"})
]
ApiKey = Annotated[
    str,
    Meta(
        min_length=1,
        extra={"read": values.read_api_key, "secret": True, "noun": "an API key or env:NAME"},
    ),
]
HeaderName = Annotated[str, Meta(extra={"read": values.read_header_name})]
HeaderValue = Annotated[str, Meta(extra={"read": values.read_header_value, "secret": True})]

Headers = Annotated[dict[HeaderName, HeaderValue], Meta(extra={"secret": True})]


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

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"ReplicaConfig({shown})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [
            ("url", self.url),
            ("max_in_flight", self.max_in_flight),
            ("api_key", None if self.api_key is None else MASK),
            ("headers", dict.fromkeys(self.headers, MASK)),
        ]


Replicas = tuple[Annotated[ReplicaConfig, Meta(extra={"shorthand": "url"})], ...]


class TimeoutConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long one attempt at a replica may take; whichever ends first holds."""

    connect_s: Seconds = 2.0
    first_byte_s: Seconds = 120.0
    idle_s: Seconds = 30.0
    total_s: Seconds = 600.0


class PoolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The replicas that serve one model name."""

    model: Name
    replicas: Annotated[Replicas, Meta(min_length=1)]
    served_model: Name | None = None
    """The name the replicas know the model by; None is `model`."""
    policy: Literal["least_request", "round_robin", "random"] = "least_request"
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    queue: Annotated[int, Meta(ge=0)] = 1024
    """Requests that may wait for a free replica; 0 refuses at once."""
    queue_s: Seconds = 30.0
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


class TlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for https:// addresses; absolute paths once loaded."""

    cert: FilePath
    key: FilePath


class HealthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How replicas are probed."""

    interval_s: Seconds = 5.0
    timeout_s: Seconds = 2.0


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything `triolet serve` can be told."""

    listen: Annotated[tuple[ListenUrl, ...], Meta(min_length=1)] = ("http://127.0.0.1:8746",)
    """Addresses that `parse_listen` reads."""
    tls: TlsConfig | None = None
    pool: tuple[PoolConfig, ...] = ()
    limits: LimitsConfig = LimitsConfig()
    health: HealthConfig = HealthConfig()
    drain_s: SecondsOrZero = 30.0
    """How long streams may finish after SIGTERM; 0 ends them at once."""
    log_format: Literal["text", "json"] = "text"
    access_log: bool = True
