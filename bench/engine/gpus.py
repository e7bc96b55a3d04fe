"""GPUs by name: what a profile needs to know of them."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["GPUS", "Gpu"]


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
