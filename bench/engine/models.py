"""Models by name: their sizes, from which a profile is computed."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["MODELS", "Model"]

_BF16_BYTES: Final = 2


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
