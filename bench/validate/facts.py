"""What a recorded run says of its engine: GPU, model, settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

__all__ = ["Facts", "FactsError", "read_facts"]

_Value = TypeVar("_Value")


class FactsError(ValueError):
    """`meta.json` cannot be read."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the engine; None where nothing says."""

    named: str
    """Path and name of the run: GPU and model are looked for in it if nothing else names them."""
    device: str | None = None
    model: str | None = None
    version: tuple[int, ...] | None = None
    """Of vLLM."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    block_tokens: int | None = None
    kv_blocks: int | None = None
    memory_share: float | None = None
    """vLLM's gpu_memory_utilization."""
    prefix_caching: bool = True
    async_scheduling: bool | None = None
    reserve_prompt: bool | None = None
    quantization: str | None = None
    cache_dtype: str | None = None
    dataset: str | None = None
    """Path of the workload, as the run's recorder knew it."""


def read_facts(meta: Path | bytes | None, *, named: str) -> Facts:
    """What `meta` (a file, its content, or nothing) says. Unknown fields do not matter.

    Raises FactsError if it is not a JSON object.
    """
    if meta is None:
        return Facts(named=named)
    try:
        content = meta.read_bytes() if isinstance(meta, Path) else meta
        found = msgspec.json.decode(content, type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise FactsError(f"{meta if isinstance(meta, Path) else named}: {error}") from error
    return _facts(_Meta(found), named)


class _Meta:
    """Looks up values by several paths: older and newer files have them in different places."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def find(self, kind: type[_Value], *paths: str) -> _Value | None:
        """The first value of that type; files write a short tag for what is no JSON value."""
        for path in paths:
            value: Any = self._content
            for part in path.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
                return value
        return None


def _facts(meta: _Meta, named: str) -> Facts:
    def setting(kind: type[_Value], section: str, name: str) -> _Value | None:
        return meta.find(kind, f"resolved_config.{section}.{name}", f"engine_kwargs.{name}", name)

    def size(name: str) -> int:
        return max(1, setting(int, "parallel_config", f"{name}_parallel_size") or 1)

    caching = setting(bool, "cache_config", "enable_prefix_caching")
    return Facts(
        named=named,
        device=meta.find(str, "hardware.device_name", "device", "gpu"),
        model=meta.find(str, "model", "engine_kwargs.model"),
        version=_version(meta.find(str, "vllm_version", "engine")),
        tensor_parallel=size("tensor"),
        pipeline_parallel=size("pipeline"),
        data_parallel=size("data"),
        expert_parallel=setting(bool, "parallel_config", "enable_expert_parallel") or False,
        max_num_seqs=setting(int, "scheduler_config", "max_num_seqs"),
        max_num_batched_tokens=setting(int, "scheduler_config", "max_num_batched_tokens"),
        max_model_len=setting(int, "model_config", "max_model_len"),
        block_tokens=meta.find(
            int, "kv_cache.block_size", "engine_kwargs.block_size", "block_size"
        ),
        kv_blocks=_kv_blocks(meta),
        memory_share=setting(float, "cache_config", "gpu_memory_utilization"),
        prefix_caching=caching is not False,
        async_scheduling=setting(bool, "scheduler_config", "async_scheduling"),
        reserve_prompt=setting(bool, "scheduler_config", "scheduler_reserve_full_isl"),
        quantization=setting(str, "model_config", "quantization"),
        cache_dtype=meta.find(
            str, "engine_kwargs.kv_cache_dtype", "resolved_config.cache_config.cache_dtype"
        ),
        dataset=meta.find(str, "dataset_path", "dataset"),
    )


def _kv_blocks(meta: _Meta) -> int | None:
    return meta.find(
        int,
        "kv_cache.num_gpu_blocks",
        "resolved_config.cache_config.num_gpu_blocks",
        "engine_kwargs.num_gpu_blocks_override",
        "num_gpu_blocks",
    )


def _version(text: str | None) -> tuple[int, ...] | None:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text or "")
    return tuple(int(part) for part in match.groups() if part) if match else None
