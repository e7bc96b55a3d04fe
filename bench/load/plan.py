"""What is to be run: targets, load, limits. Checked when made; no I/O."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from balancer.wire.connect import Origin

__all__ = ["Arrival", "Closed", "EndpointType", "Limits", "Loop", "Plan", "Rated", "Scheduled"]

EndpointType = Literal["chat", "completions"]
Arrival = Literal["constant", "poisson", "gamma"]

_PATHS: dict[EndpointType, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
}
_SECRET = frozenset({"authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"})


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag="concurrency"):
    """So many sessions at once; each begins the next when it ends."""

    concurrency: int
    """1 or more. Sessions of one group count as one: they are one user's fan-out."""
    ramp_s: float = 0.0
    """Over how long the sessions of the beginning are spread, 0 or more."""


class Rated(msgspec.Struct, frozen=True, kw_only=True, tag="request_rate"):
    """Requests come at a rate, whatever happens to those before them.

    An arrival sends the turn that has been ready longest, or begins a session if none is ready;
    a think time before a session's first turn does not count then.
    """

    rate: float
    """Requests per second, above 0."""
    arrival: Arrival = "poisson"
    smoothness: float = 1.0
    """Shape of the gamma distribution: below 1 bursty, 1 as Poisson, above 1 smoother."""
    ramp_s: float = 0.0
    """The rate grows linearly from near 0 over so many seconds."""


class Scheduled(msgspec.Struct, frozen=True, kw_only=True, tag="schedule"):
    """Turns are sent when they are due (`Turn.due_s`), those without a time after think time."""

    speedup: float = 1.0
    """Due times are divided by this; above 0. Think times are not touched."""


Loop = Closed | Rated | Scheduled


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When a phase stops sending; whichever comes first. None: no such limit."""

    requests: int | None = None
    sessions: int | None = None
    duration_s: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is any limit at all."""
        return (self.requests, self.sessions, self.duration_s) != (None, None, None)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One load point. Raises ValueError naming the value that is out of range."""

    urls: tuple[str, ...]
    """`http(s)://host[:port][/base]`, one or more."""
    model: str
    loop: Loop
    endpoint_type: EndpointType = "chat"
    endpoint: str | None = None
    """Path instead of the endpoint type's own."""
    url_strategy: Literal["round_robin", "session"] = "round_robin"
    """With several URLs: a request goes to the next one, or a session stays at one."""
    streaming: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request; an API key among them."""
    extra_inputs: dict[str, Any] = {}
    """More fields of the request body; they win over ours."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    session_header: str | None = None
    """One more header that carries the session's id, beside `x-correlation-id` and
    `x-session-affinity`."""
    replica_header: str | None = None
    """The header in which this target names the replica it chose; None: the usual ones."""

    limits: Limits = Limits()
    """Of the measured phase. Without any: the workload once through."""
    grace_s: float = 30.0
    """How long answers may take once a duration is over, before they count as unfinished."""
    warmup: Limits = Limits()
    """Of the phase before, whose records are tagged; without any there is none."""
    warmup_concurrency: int | None = None
    """Warm up in a closed loop; None: the loop of the plan (a schedule: 4 at once)."""

    request_timeout_s: float = 600.0
    """For one whole request, from sending to its end."""
    connect_timeout_s: float = 10.0
    keep_connections: bool = True
    """Whether a connection serves more than one request."""
    max_in_flight: int = 8192
    """Requests at once in an open loop: more wait, and that is reported."""
    cancellation_rate: float = 0.0
    """Share of the requests that are cancelled on purpose, 0 to 1."""
    cancellation_delay_s: float = 0.0
    """When after their sending."""
    delay_ratio: float = 1.0
    """Think times are multiplied by this, 0 or more."""

    probe_rate: float | None = None
    """Probes per second beside the load; None: none."""
    probe_path: str = "/healthz"
    """A path of the first URL, or a whole URL. Asked for with GET."""
    probe_idle_s: float = 2.0
    """How long is probed before the load begins, for comparison."""

    metrics_urls: tuple[str, ...] = ()
    """Metrics pages to read before and after the measured phase; their samples are added up."""

    seed: int = 0
    """Of arrivals and cancellations."""
    goodput: dict[str, float] = {}
    """Objectives by metric name, in ms. Not used for the run; carried to the report."""

    def __post_init__(self) -> None:
        _check(self)
        for url in self.urls:
            Origin.parse(url)

    @property
    def path(self) -> str:
        """Where requests go, behind a URL's base."""
        return self.endpoint or _PATHS[self.endpoint_type]

    @property
    def load(self) -> float | None:
        """The one number of the loop: concurrency or rate."""
        if isinstance(self.loop, Closed):
            return self.loop.concurrency
        return self.loop.rate if isinstance(self.loop, Rated) else None

    def shown(self) -> Plan:
        """The same without secrets, for reports."""
        headers = tuple(
            (name, "***" if name.lower() in _SECRET else value) for name, value in self.headers
        )
        return msgspec.structs.replace(self, headers=headers)


def _check(plan: Plan) -> None:
    loop = plan.loop
    checks: list[tuple[str, float, bool, str]] = [
        ("grace_s", plan.grace_s, plan.grace_s >= 0, "seconds, 0 or more"),
        *_positive(plan, "request_timeout_s", "connect_timeout_s", "max_in_flight"),
        *_positive(plan.limits, "requests", "sessions", "duration_s"),
        *_positive(plan.warmup, "requests", "sessions", "duration_s"),
        *_positive(plan, "probe_rate", "warmup_concurrency"),
        ("cancellation_rate", plan.cancellation_rate, 0 <= plan.cancellation_rate <= 1, "0 to 1"),
        (
            "cancellation_delay_s",
            plan.cancellation_delay_s,
            plan.cancellation_delay_s >= 0,
            "seconds, 0 or more",
        ),
        ("delay_ratio", plan.delay_ratio, plan.delay_ratio >= 0, "0 or more"),
    ]
    if isinstance(loop, Closed):
        checks += _positive(loop, "concurrency")
    elif isinstance(loop, Rated):
        checks += _positive(loop, "rate", "smoothness")
    else:
        checks += _positive(loop, "speedup")
    if not isinstance(loop, Scheduled):
        checks.append(("ramp_s", loop.ramp_s, loop.ramp_s >= 0, "seconds, 0 or more"))
    for name, value, good, expected in checks:
        if not good:
            raise ValueError(f"{name} = {value!r}: expected {expected}")
    for name, text in plan.headers:
        if not name.strip() or any(sign in name + text for sign in "\r\n\0"):
            raise ValueError(f"header {name!r}: not a name and a value on one line")
    if not plan.urls:
        raise ValueError("urls is empty: expected at least one URL")


def _positive(owner: object, *names: str) -> list[tuple[str, float, bool, str]]:
    values = ((name, getattr(owner, name)) for name in names)
    return [
        (name, value, 0 < value < math.inf, "a number above 0")
        for name, value in values
        if value is not None
    ]
