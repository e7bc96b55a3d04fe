"""The recorded data that comes with the package. `bench/data/README.md` says where it is from."""

from __future__ import annotations

from importlib.resources import files
from typing import cast

from bench.workload.lines import Source

__all__ = ["BUNDLED", "bundled"]

BUNDLED = {
    "conversation": "mooncake_conversation.jsonl.xz",
    "azure-conv": "azure_conversation.csv.xz",
    "coding-agent": "weka_coding_agent.jsonl.xz",
    "skewed-tenants": "servegen_m_small.csv.xz",
    "sharegpt300": "vllm_groundtruth/sharegpt300_workload.jsonl.xz",
    "rtx4090-requests": "vllm_groundtruth/rtx4090_llama_3_1_8b_requests.jsonl.xz",
    "rtx4090-timeseries": "vllm_groundtruth/rtx4090_llama_3_1_8b_timeseries.csv.xz",
    "rtxpro6000-requests": "vllm_groundtruth/rtxpro6000_llama_3_1_8b_requests.jsonl.xz",
    "rtxpro6000-timeseries": "vllm_groundtruth/rtxpro6000_llama_3_1_8b_timeseries.csv.xz",
    "sharegpt300-qwen3": "vllm_groundtruth/sharegpt300_qwen3_workload.jsonl.xz",
    "rtxpro6000-qwen3-32b-requests": "vllm_groundtruth/rtxpro6000_qwen3_32b_requests.jsonl.xz",
    "rtxpro6000-qwen3-30b-a3b-requests": (
        "vllm_groundtruth/rtxpro6000_qwen3_30b_a3b_requests.jsonl.xz"
    ),
    "vidur-linear-step": "vllm_groundtruth/vidur_linear_step_ms.csv.xz",
    "runs": "vllm_groundtruth/runs.json",
}
"""File below `bench/data` by name; the traces have the names of the workloads made from them."""


def bundled(name: str) -> Source:
    """The data called `name`, ready for a reader of traces.

    Raises:
        ValueError: there is no such data.
    """
    if name not in BUNDLED:
        raise ValueError(f"no data is called {name!r}; there are {', '.join(BUNDLED)}")
    return cast(Source, files("bench").joinpath("data", *BUNDLED[name].split("/")))
