"""The LiteLLM proxy, as its documentation says to run it before vLLM, without a database."""

from __future__ import annotations

import json
from typing import Any, Final

from bench.peers.gateway import Gateway, Place, PythonPackage, Setup

__all__ = ["LITELLM"]

_KEY: Final = "sk-bench"
_BY_SESSION: Final = "session_affinity"


def _setup(place: Place, policy: str) -> Setup:
    config = place.directory / "litellm.yaml"
    command = [
        *(str(place.home / "bin" / "litellm"), "--config", str(config)),
        *("--host", "127.0.0.1", "--port", str(place.port)),
    ]
    environment = {
        # It does not start without a key.
        "LITELLM_MASTER_KEY": _KEY,
        # Its documentation's advice for production; the access log goes with the level.
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # The price list is fetched from the internet at start otherwise.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    return Setup(
        command,
        environment=environment,
        # Any JSON document is YAML.
        files={config: json.dumps(_config(place, policy), indent=1)},
        headers=(("authorization", f"Bearer {_KEY}"),),
        session_header="x-litellm-session-id" if policy == _BY_SESSION else None,
    )


def _config(place: Place, policy: str) -> dict[str, Any]:
    router: dict[str, Any] = {"routing_strategy": policy}
    if policy == _BY_SESSION:
        # A check before the strategy: the session's replica, if it has one.
        router = {
            "routing_strategy": "simple-shuffle",
            "optional_pre_call_checks": [_BY_SESSION],
        }
    return {
        "model_list": [
            {
                "model_name": place.model,
                "litellm_params": {
                    "model": f"hosted_vllm/{place.model}",
                    "api_base": f"{replica}/v1",
                    "api_key": "none",
                },
            }
            for replica in place.replicas
        ],
        "router_settings": router,
        "litellm_settings": {"request_timeout": 600, "set_verbose": False},
    }


# `cost-based-routing` is left out: replicas of one model cost the same.
LITELLM: Final = Gateway(
    name="litellm",
    source=PythonPackage("litellm", "1.106.2", "proxy"),
    policies=(
        "simple-shuffle",
        "least-busy",
        "latency-based-routing",
        "usage-based-routing-v2",
        _BY_SESSION,
    ),
    setup=_setup,
    workers="one worker process",
)
