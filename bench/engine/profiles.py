"""Profiles by name: a GPU (or several), a model, and the engine's usual limits for the two."""

from __future__ import annotations

import difflib
import re
from typing import Any, Final

from bench.engine.gpus import GPUS, Gpu
from bench.engine.models import MODELS, Model
from bench.engine.profile import Profile, ProfileError

__all__ = ["PROFILES", "find_profile", "make_profile"]

_UTILISATION: Final = 0.9
"""vLLM's `gpu_memory_utilization`."""

_TWO_GPU_SHARE: Final = 0.85
"""Of its rates one GPU keeps when it works with others: smaller matrices, uneven halves."""

_NAME: Final = re.compile(r"(?:(?P<count>[1-8])x)?(?P<rest>.+)")


def find_profile(name: str, **changes: Any) -> Profile:
    """The profile `gpu-model` or `2xgpu-model`, with `changes` to its fields.

    `GPUS` and `MODELS` name the parts. Raises ProfileError, with what comes near, for a name that
    is none of theirs, or for a model that does not fit into that memory.
    """
    match = _NAME.fullmatch(name)
    rest = match["rest"] if match else name
    for gpu in sorted(GPUS, key=len, reverse=True):
        model = MODELS.get(rest.removeprefix(f"{gpu}-"))
        if rest.startswith(f"{gpu}-") and model is not None:
            gpus = int(match["count"] or 1) if match else 1
            return make_profile(GPUS[gpu], model, gpus=gpus, name=name, **changes)
    near = difflib.get_close_matches(name, PROFILES, n=3) or sorted(PROFILES)
    raise ProfileError(
        f"no profile {name!r}; like it: {', '.join(near)}. A profile is gpu-model or 2xgpu-model "
        f"with a GPU of {', '.join(GPUS)} and a model of {', '.join(MODELS)}"
    )


def make_profile(
    gpu: Gpu,
    model: Model,
    *,
    gpus: int = 1,
    ranks: int = 1,
    name: str | None = None,
    **changes: Any,
) -> Profile:
    """One engine on `gpus` GPUs with tensor parallelism; `changes` replace fields of the result.

    `ranks` (for a mixture of experts): so many of those work in step, each with sequences of its
    own, and share out the experts. The profile is that of all of them as if they were one engine.
    What decodes is taken as evenly spread. A prompt is one rank's, and the others wait for it.

    Raises ProfileError if the model does not fit.
    """
    count = f"{gpus * ranks}x" if gpus * ranks > 1 else ""
    name = name or f"{count}{gpu.name}-{model.name}"
    share = gpus * (_TWO_GPU_SHARE if gpus > 1 else 1.0)
    bandwidth = share * gpu.bytes_per_s
    experts = model.experts_per_token * model.expert_parameters
    shared_out = model.token_parameters - experts * (1 - 1 / ranks)
    latency_s = _collective_latency_s(gpu, model, gpus) + _collective_latency_s(gpu, model, ranks)
    fields: dict[str, Any] = {
        "name": name,
        "step_s": gpu.step_s + latency_s,
        "sequence_s": 8e-6 / ranks,
        "weights_s": model.common_bytes / (bandwidth * gpu.weights),
        "expert_weights_s": model.expert_bytes / ranks / (bandwidth * gpu.weights),
        "expert_share": model.experts_per_token / model.experts if model.experts else 0.0,
        "token_s": 2 * shared_out / (share * gpu.flops * gpu.linear),
        "attention_s": model.attention_flops_per_pair / (share * gpu.flops * gpu.attention),
        "context_s": model.kv_bytes_per_token / (ranks * bandwidth * gpu.context),
        "link_s": _link_s(gpu, model, gpus) + _experts_link_s(gpu, model, ranks),
        "kv_tokens": _kv_tokens(gpu, model, gpus, ranks, name),
        "max_num_seqs": ranks * (1024 if gpu.large else 256),
        "max_num_batched_tokens": ranks * (8192 if gpu.large else 2048),
        "source": f"{gpu.source}; {model.source}",
    }
    return Profile(**{**fields, **changes})


def _collective_latency_s(gpu: Gpu, model: Model, gpus: int) -> float:
    # Two all-reduces in each layer: after attention and after the feed-forward part.
    return 2 * model.layers * gpu.link_latency_s if gpus > 1 else 0.0


def _link_s(gpu: Gpu, model: Model, gpus: int) -> float:
    """Two all-reduces per layer of one token's activations; a ring moves 2(n-1)/n of the bytes."""
    if gpus == 1:
        return 0.0
    moved = 2 * model.layers * model.hidden * 2 * 2 * (gpus - 1) / gpus
    return moved / gpu.link_bytes_per_s


def _experts_link_s(gpu: Gpu, model: Model, ranks: int) -> float:
    """Before the experts of a layer one token's activations go to the other ranks, and after them
    back. Every rank waits for the one with the most tokens: as if that one had them all."""
    moved = 2 * model.layers * model.hidden * 2 * (ranks - 1)
    return moved / gpu.link_bytes_per_s


def _kv_tokens(gpu: Gpu, model: Model, gpus: int, ranks: int, name: str) -> int:
    """What is left for keys and values.

    Beside the weights an engine needs room for activations and captured graphs. What it takes was
    fitted to what vLLM reported: 1.24 GB on a 25 GB GPU, and about a tenth of all memory above
    that.
    """
    spare = 1.24e9 + 0.1 * max(0.0, gpu.memory_bytes - 25.25e9)
    weight_bytes = model.weight_bytes - model.expert_bytes * (1 - 1 / ranks)
    left = gpus * (gpu.memory_bytes * _UTILISATION - spare) - weight_bytes
    tokens = ranks * int(left // model.kv_bytes_per_token)
    if tokens < 1024:
        raise ProfileError(
            f"profile {name}: {model.name} ({weight_bytes / 1e9:.0f} GB) leaves no room for "
            f"keys and values on {gpus} x {gpu.name} ({gpu.memory_bytes / 1e9:.0f} GB each)"
        )
    return tokens // 16 * 16


def _usual() -> dict[str, Profile]:
    names = (
        *("h100-llama-8b", "h200-llama-8b", "a100-llama-8b", "a100-40-llama-8b"),
        *("l40s-llama-8b", "rtx4090-llama-8b", "rtxpro6000-llama-8b"),
        *("h100-qwen3-8b", "h100-qwen3-30b-a3b", "2xh100-qwen3-32b", "4xh100-llama-70b"),
        *("2xrtxpro6000-qwen3-32b",),
    )
    return {name: find_profile(name) for name in names}


PROFILES: Final[dict[str, Profile]] = {}
"""The usual ones; `find_profile` makes any other pair of `GPUS` and `MODELS`."""
PROFILES.update(_usual())
