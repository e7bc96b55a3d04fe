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

    @property
    def large(self) -> bool:
        """Whether vLLM's larger limits of a step are its default: 70 GiB or more, but no A100."""
        return self.memory_bytes >= 70 * 2**30 and not self.name.startswith("a100")


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
            name="a10",
            flops=125e12,
            bytes_per_s=0.600e12,
            memory_bytes=23.7e9,
            source="NVIDIA A10 data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="h100-pcie",
            flops=756e12,
            bytes_per_s=2.0e12,
            memory_bytes=85.0e9,
            source="NVIDIA H100 PCIe data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="h100-nvl",
            flops=835e12,
            bytes_per_s=3.9e12,
            memory_bytes=100.5e9,
            source="NVIDIA H100 NVL data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="gh200",
            flops=989e12,
            bytes_per_s=4.0e12,
            memory_bytes=102.0e9,
            weights=0.81,
            source="NVIDIA GH200 (96 GB HBM3) data sheet; shares as for the H100",
            **_NVLINK,
        ),
        Gpu(
            name="h20",
            flops=148e12,
            bytes_per_s=4.0e12,
            memory_bytes=102.5e9,
            source="NVIDIA H20 data sheet; shares assumed, not measured",
            **_NVLINK,
        ),
        Gpu(
            name="b200",
            flops=2250e12,
            bytes_per_s=8.0e12,
            memory_bytes=192.0e9,
            source="NVIDIA DGX B200 data sheet, an eighth of it; shares assumed, not measured",
            **_NVLINK,
        ),
        Gpu(
            name="l40",
            flops=181e12,
            bytes_per_s=0.864e12,
            memory_bytes=48.3e9,
            source="NVIDIA L40 data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="l4",
            flops=121e12,
            bytes_per_s=0.300e12,
            memory_bytes=24.1e9,
            source="NVIDIA L4 data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="a10g",
            flops=70e12,
            bytes_per_s=0.600e12,
            memory_bytes=24.1e9,
            source="NVIDIA A10G, as in AWS G5; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="a40",
            flops=150e12,
            bytes_per_s=0.696e12,
            memory_bytes=48.3e9,
            source="NVIDIA A40 data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="a6000",
            flops=155e12,
            bytes_per_s=0.768e12,
            memory_bytes=51.5e9,
            source="NVIDIA RTX A6000 data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="rtx6000ada",
            flops=364e12,
            bytes_per_s=0.960e12,
            memory_bytes=51.5e9,
            source="NVIDIA RTX 6000 Ada data sheet; shares assumed, not measured",
            **_PCIE,
        ),
        Gpu(
            name="rtx3090",
            flops=71e12,
            bytes_per_s=0.936e12,
            memory_bytes=25.4e9,
            linear=0.90,
            weights=0.90,
            step_s=0.3e-3,
            source="NVIDIA Ampere whitepaper; shares as for the RTX 4090, not measured",
            **_PCIE,
        ),
        Gpu(
            name="rtx5090",
            flops=209.5e12,
            bytes_per_s=1.792e12,
            memory_bytes=34.2e9,
            linear=0.90,
            weights=0.90,
            step_s=0.3e-3,
            source="NVIDIA RTX Blackwell whitepaper; shares as for the RTX 4090, not measured",
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
        Model(
            name="llama-1b",
            layers=16,
            hidden=2048,
            heads=32,
            head_dim=64,
            kv_heads=8,
            intermediate=8192,
            vocabulary=128256,
            tied=True,
            source="meta-llama/Llama-3.2-1B config.json",
        ),
        Model(
            name="llama-3b",
            layers=28,
            hidden=3072,
            heads=24,
            head_dim=128,
            kv_heads=8,
            intermediate=8192,
            vocabulary=128256,
            tied=True,
            source="meta-llama/Llama-3.2-3B config.json",
        ),
        Model(
            name="llama-2-7b",
            layers=32,
            hidden=4096,
            heads=32,
            head_dim=128,
            kv_heads=32,
            intermediate=11008,
            vocabulary=32000,
            source="meta-llama/Llama-2-7b-hf config.json",
        ),
        Model(
            name="llama-2-13b",
            layers=40,
            hidden=5120,
            heads=40,
            head_dim=128,
            kv_heads=40,
            intermediate=13824,
            vocabulary=32000,
            source="meta-llama/Llama-2-13b-hf config.json",
        ),
        Model(
            name="llama-2-70b",
            layers=80,
            hidden=8192,
            heads=64,
            head_dim=128,
            kv_heads=8,
            intermediate=28672,
            vocabulary=32000,
            source="meta-llama/Llama-2-70b-hf config.json",
        ),
        Model(
            name="mistral-7b",
            layers=32,
            hidden=4096,
            heads=32,
            head_dim=128,
            kv_heads=8,
            intermediate=14336,
            vocabulary=32768,
            source="mistralai/Mistral-7B-Instruct-v0.3 config.json",
        ),
        Model(
            name="mistral-nemo",
            layers=40,
            hidden=5120,
            heads=32,
            head_dim=128,
            kv_heads=8,
            intermediate=14336,
            vocabulary=131072,
            source="mistralai/Mistral-Nemo-Instruct-2407 config.json",
        ),
        Model(
            name="mistral-small",
            layers=40,
            hidden=5120,
            heads=32,
            head_dim=128,
            kv_heads=8,
            intermediate=32768,
            vocabulary=131072,
            source="mistralai/Mistral-Small-24B-Instruct-2501 config.json",
        ),
        Model(
            name="mixtral-8x7b",
            layers=32,
            hidden=4096,
            heads=32,
            head_dim=128,
            kv_heads=8,
            intermediate=14336,
            vocabulary=32000,
            experts=8,
            experts_per_token=2,
            source="mistralai/Mixtral-8x7B-Instruct-v0.1 config.json",
        ),
        Model(
            name="phi-4",
            layers=40,
            hidden=5120,
            heads=40,
            head_dim=128,
            kv_heads=10,
            intermediate=17920,
            vocabulary=100352,
            source="microsoft/phi-4 config.json",
        ),
        Model(
            name="qwen2.5-0.5b",
            layers=24,
            hidden=896,
            heads=14,
            head_dim=64,
            kv_heads=2,
            intermediate=4864,
            vocabulary=151936,
            tied=True,
            source="Qwen/Qwen2.5-0.5B config.json",
        ),
        Model(
            name="qwen2.5-1.5b",
            layers=28,
            hidden=1536,
            heads=12,
            head_dim=128,
            kv_heads=2,
            intermediate=8960,
            vocabulary=151936,
            tied=True,
            source="Qwen/Qwen2.5-1.5B config.json",
        ),
        Model(
            name="qwen2.5-3b",
            layers=36,
            hidden=2048,
            heads=16,
            head_dim=128,
            kv_heads=2,
            intermediate=11008,
            vocabulary=151936,
            tied=True,
            source="Qwen/Qwen2.5-3B config.json",
        ),
        Model(
            name="qwen2.5-7b",
            layers=28,
            hidden=3584,
            heads=28,
            head_dim=128,
            kv_heads=4,
            intermediate=18944,
            vocabulary=152064,
            source="Qwen/Qwen2.5-7B config.json",
        ),
        Model(
            name="qwen2.5-14b",
            layers=48,
            hidden=5120,
            heads=40,
            head_dim=128,
            kv_heads=8,
            intermediate=13824,
            vocabulary=152064,
            source="Qwen/Qwen2.5-14B config.json",
        ),
        Model(
            name="qwen2.5-32b",
            layers=64,
            hidden=5120,
            heads=40,
            head_dim=128,
            kv_heads=8,
            intermediate=27648,
            vocabulary=152064,
            source="Qwen/Qwen2.5-32B config.json",
        ),
        Model(
            name="qwen2.5-72b",
            layers=80,
            hidden=8192,
            heads=64,
            head_dim=128,
            kv_heads=8,
            intermediate=29568,
            vocabulary=152064,
            source="Qwen/Qwen2.5-72B config.json",
        ),
        Model(
            name="qwen3-0.6b",
            layers=28,
            hidden=1024,
            heads=16,
            head_dim=128,
            kv_heads=8,
            intermediate=3072,
            vocabulary=151936,
            tied=True,
            source="Qwen/Qwen3-0.6B config.json",
        ),
        Model(
            name="qwen3-1.7b",
            layers=28,
            hidden=2048,
            heads=16,
            head_dim=128,
            kv_heads=8,
            intermediate=6144,
            vocabulary=151936,
            tied=True,
            source="Qwen/Qwen3-1.7B config.json",
        ),
        Model(
            name="qwen3-4b",
            layers=36,
            hidden=2560,
            heads=32,
            head_dim=128,
            kv_heads=8,
            intermediate=9728,
            vocabulary=151936,
            tied=True,
            source="Qwen/Qwen3-4B config.json",
        ),
        Model(
            name="qwen3-14b",
            layers=40,
            hidden=5120,
            heads=40,
            head_dim=128,
            kv_heads=8,
            intermediate=17408,
            vocabulary=151936,
            source="Qwen/Qwen3-14B config.json",
        ),
        Model(
            name="qwen3-235b-a22b",
            layers=94,
            hidden=4096,
            heads=64,
            head_dim=128,
            kv_heads=4,
            intermediate=1536,
            vocabulary=151936,
            experts=128,
            experts_per_token=8,
            source="Qwen/Qwen3-235B-A22B config.json",
        ),
    )
}
