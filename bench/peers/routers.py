"""`vllm-router` and `sglang-router`: Rust routers for fleets of one model."""

from __future__ import annotations

from typing import Final

from bench.peers.gateway import Gateway, Place, PythonPackage, Setup

__all__ = ["SGLANG_ROUTER", "VLLM_ROUTER"]

_STREAMS_AT_ONCE: Final = 32_768
_VLLM_BY_SESSION: Final = frozenset({"consistent_hash", "sticky_least_loaded"})


def _vllm_setup(place: Place, policy: str) -> Setup:
    command = [
        str(place.home / "bin" / "vllm-router"),
        *_common_options(place, policy),
        *("--log-level", "warning"),
        # It refuses what is above a few hundred streams otherwise.
        *("--max-concurrent-requests", str(_STREAMS_AT_ONCE)),
        *("--worker-urls", *place.replicas),
    ]
    # Without it, these hash the request's own id, which no two requests share.
    header = "x-session-id" if policy in _VLLM_BY_SESSION else None
    # For each request it has a replica turn the prompt into tokens; without, it sees no prefixes.
    path = "/v1/chat/completions/render" if policy == "cache_aware" else None
    return Setup(command, session_header=header, replica_path=path)


def _sglang_setup(place: Place, policy: str) -> Setup:
    # max-concurrent-requests is unlimited there by default.
    command = [
        *(str(place.home / "bin" / "sglang-router"), "launch"),
        *_common_options(place, policy),
        *("--log-level", "warn"),
        *("--worker-urls", *place.replicas),
    ]
    return Setup(command, session_header="x-smg-routing-key" if policy == "manual" else None)


def _common_options(place: Place, policy: str) -> list[str]:
    return [
        *("--host", "127.0.0.1", "--port", str(place.port)),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(place.metrics_port)),
        *("--policy", policy),
    ]


# `kv_aware` is left out: it needs the engines' KV events over ZMQ.
VLLM_ROUTER: Final = Gateway(
    name="vllm-router",
    source=PythonPackage("vllm-router", "0.1.17"),
    policies=(
        "cache_aware",
        "round_robin",
        "random",
        "power_of_two",
        "consistent_hash",
        "sticky_least_loaded",
    ),
    setup=_vllm_setup,
    workers="one process, a thread for each core it may use",
)

SGLANG_ROUTER: Final = Gateway(
    name="sglang-router",
    source=PythonPackage("sglang-router", "0.3.2"),
    policies=("cache_aware", "round_robin", "random", "power_of_two", "manual"),
    setup=_sglang_setup,
    workers="one process, a thread for each core it may use",
)
