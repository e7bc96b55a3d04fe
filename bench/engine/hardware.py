"""GPUs and models, from which a profile is computed."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["GPUS", "MODELS", "Gpu", "Model"]

_BF16_BYTES: Final = 2


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU: what its data sheet says, and how much of that an engine gets."""

    name: str
    flops: float
    """Dense bf16 operations per second, with 32-bit accumulation."""
    bytes_per_s: float
    """Memory bandwidth."""
    memory_bytes: float
    """As the driver reports it."""
    linear: float = 0.66
    """Share of `flops` that linear layers reach at large batches."""
    attention: float = 0.40
    """The same for the attention of a prefill."""
    weights: float = 0.80
    """Share of `bytes_per_s` when weights are read."""
    context: float = 0.70
    """The same when keys and values are read."""
    step_s: float = 0.9e-3
    """What every step takes beside the layers."""
    link_bytes_per_s: float
    """Towards another GPU of the same machine, for one direction, as collectives reach it."""
    link_latency_s: float
    """Of one collective between the GPUs of an engine."""
    source: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder with grouped-query attention, as its config.json describes it, in bf16."""

    name: str
    layers: int
    hidden: int
    heads: int
    head_dim: int
    kv_heads: int
    intermediate: int
    """Of the feed-forward layer; of one expert in a mixture of experts."""
    vocabulary: int
    tied: bool = False
    """Whether input and output embeddings are the same weights."""
    experts: int = 0
    """Per layer; 0 for a dense model."""
    experts_per_token: int = 0
    source: str

    @property
    def attention_parameters(self) -> int:
        """Query, key, value and output projections of all layers."""
        attended = self.heads * self.head_dim
        kv = self.kv_heads * self.head_dim
        return self.layers * self.hidden * (2 * attended + 2 * kv)

    @property
    def expert_parameters(self) -> int:
        """Of one expert (or the feed-forward layer) in all layers: gate, up and down."""
        return self.layers * 3 * self.hidden * self.intermediate

    @property
    def token_parameters(self) -> int:
        """Parameters that each token is multiplied with, the output layer excluded: it is
        computed for the last token of a sequence alone."""
        return self.attention_parameters + self.expert_parameters * (self.experts_per_token or 1)

    @property
    def common_bytes(self) -> int:
        """Weights that every step reads, whatever its tokens; the output layer included."""
        dense = 0 if self.experts else self.expert_parameters
        return _BF16_BYTES * (self.attention_parameters + dense + self.vocabulary * self.hidden)

    @property
    def expert_bytes(self) -> int:
        """Weights of all experts; 0 for a dense model."""
        return _BF16_BYTES * self.expert_parameters * self.experts

    @property
    def weight_bytes(self) -> int:
        """All weights in memory."""
        embedding = 0 if self.tied else _BF16_BYTES * self.vocabulary * self.hidden
        return self.common_bytes + self.expert_bytes + embedding

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers."""
        return _BF16_BYTES * 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def attention_flops_per_pair(self) -> int:
        """Operations for one query token and one earlier token: q·k and the weighted sum of v."""
        return 4 * self.layers * self.heads * self.head_dim


_NVLINK: Final = {"link_bytes_per_s": 200e9, "link_latency_s": 8e-6}
_PCIE: Final = {"link_bytes_per_s": 22e9, "link_latency_s": 20e-6}

GPUS: Final = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="h100",
            flops=989e12,
            bytes_per_s=3.35e12,
            memory_bytes=85.0e9,
            weights=0.81,
            source="NVIDIA H100 SXM5 data sheet; shares from Vidur's kernel times (arXiv "
            "2405.05465) and published single-stream rates (6.5 ms per token of an 8B model)",
            **_NVLINK,
        ),
        Gpu(
            name="h200",
            flops=989e12,
            bytes_per_s=4.8e12,
            memory_bytes=150.1e9,
            weights=0.81,
            source="NVIDIA H200 SXM data sheet; shares as measured for the H100",
            **_NVLINK,
        ),
        Gpu(
            name="a100",
            flops=312e12,
            bytes_per_s=2.04e12,
            memory_bytes=85.1e9,
            linear=0.67,
            weights=0.78,
            source="NVIDIA A100 80GB SXM data sheet; shares from Vidur's kernel times "
            "(arXiv 2405.05465)",
            **_NVLINK,
        ),
        Gpu(
            name="a100-40",
            flops=312e12,
            bytes_per_s=1.555e12,
            memory_bytes=42.4e9,
            linear=0.67,
            weights=0.78,
            source="NVIDIA A100 40GB data sheet; shares as for the A100 80GB",
            **_NVLINK,
        ),
        Gpu(
            name="l40s",
            flops=362e12,
            bytes_per_s=0.864e12,
            memory_bytes=47.7e9,
            source="NVIDIA L40S data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="rtx4090",
            flops=165e12,
            bytes_per_s=1.008e12,
            memory_bytes=25.25e9,
            linear=0.90,
            weights=0.90,
            step_s=0.3e-3,
            source="NVIDIA Ada whitepaper; shares from a vLLM 0.19 run (LLMServingSim, MIT)",
            **_PCIE,
        ),
        Gpu(
            name="rtxpro6000",
            flops=503e12,
            bytes_per_s=1.597e12,
            memory_bytes=101.9e9,
            linear=0.50,
            weights=0.80,
            context=0.95,
            step_s=0.3e-3,
            source="NVIDIA RTX PRO 6000 Blackwell data sheet; shares from a vLLM 0.19 run "
            "(LLMServingSim, MIT)",
            **_PCIE,
        ),
    )
}

MODELS: Final = {
    model.name: model
    for model in (
        Model(
            name="llama-8b",
            layers=32,
            hidden=4096,
            heads=32,
            head_dim=128,
            kv_heads=8,
            intermediate=14336,
            vocabulary=128256,
            source="meta-llama/Llama-3.1-8B config.json",
        ),
        Model(
            name="llama-70b",
            layers=80,
            hidden=8192,
            heads=64,
            head_dim=128,
            kv_heads=8,
            intermediate=28672,
            vocabulary=128256,
            source="meta-llama/Llama-3.1-70B config.json",
        ),
        Model(
            name="qwen3-8b",
            layers=36,
            hidden=4096,
            heads=32,
            head_dim=128,
            kv_heads=8,
            intermediate=12288,
            vocabulary=151936,
            source="Qwen/Qwen3-8B config.json",
        ),
        Model(
            name="qwen3-32b",
            layers=64,
            hidden=5120,
            heads=64,
            head_dim=128,
            kv_heads=8,
            intermediate=25600,
            vocabulary=151936,
            source="Qwen/Qwen3-32B config.json",
        ),
        Model(
            name="qwen3-30b-a3b",
            layers=48,
            hidden=2048,
            heads=32,
            head_dim=128,
            kv_heads=4,
            intermediate=768,
            vocabulary=151936,
            experts=128,
            experts_per_token=8,
            source="Qwen/Qwen3-30B-A3B config.json",
        ),
    )
}
