"""What can be chosen about a demo replica."""

from __future__ import annotations

import math

import msgspec

from bench.engine import Profile
from bench.replica.faults import Faults


class ReplicaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One replica's names, pace and limits. Raises ValueError for a value out of range.

    With a `profile` it runs on the simulated engine: then `ttft_s`, `tokens_per_s`, `max_model_len`
    and `kv_cache_tokens` do not count. Without one there are no `faults`.
    """

    model: str = "demo"
    """The model name it serves; a request for another one is answered with 404."""
    name: str = "demo-0"
    """What the replica calls itself in its answers, so that two of them can be told apart."""
    ttft_s: float = 0.15
    """Seconds from a request to its first token; 0 or more."""
    tokens_per_s: float = 40.0
    """Tokens per second after the first one; above 0, `inf` for as fast as possible."""
    tokens_per_chunk: int = 1
    """Tokens in one streamed chunk, 1 or more; the first token always travels alone."""
    seed: int = 0
    """Chooses where the repeating part of an answer begins, and which requests fail by
    `faults.error_rate`; same seed, same text and failures."""
    profile: Profile | None = None
    """What engine is simulated; None: the steady pace."""
    faults: Faults = Faults()
    """What goes wrong from the start."""
    old_metric_names: bool = False
    """Whether `/metrics` has the names of vLLM before 0.9.2 and 0.11 instead of today's."""
    max_model_len: int = 8192
    """Prompt and answer together, in tokens; 16 or more."""
    kv_cache_tokens: int = 131_072
    """Size of the pretended KV cache, in tokens; only `vllm:kv_cache_usage_perc` depends on it."""
    embedding_dimensions: int = 384
    """Length of an embedding, and the most that `dimensions` may ask for; 1 to 4096."""
    max_body_bytes: int = 8 * 1024 * 1024
    """The longest request body that is read; a longer one is answered with 413."""

    def __post_init__(self) -> None:
        for key, good, expected in (
            ("model", bool(self.model), "a name"),
            ("name", bool(self.name), "a name"),
            ("ttft_s", 0 <= self.ttft_s < math.inf, "seconds, 0 or more"),
            ("tokens_per_s", self.tokens_per_s > 0, "a rate above 0 (inf for no pause)"),
            ("tokens_per_chunk", self.tokens_per_chunk >= 1, "1 or more"),
            ("max_model_len", self.max_model_len >= 16, "16 tokens or more"),
            ("kv_cache_tokens", self.kv_cache_tokens >= 16, "16 tokens or more"),
            (
                "faults",
                self.profile is not None or self.faults == Faults(),
                "none without a profile",
            ),
            ("embedding_dimensions", 1 <= self.embedding_dimensions <= 4096, "1 to 4096"),
            ("max_body_bytes", self.max_body_bytes >= 1, "1 byte or more"),
        ):
            if not good:
                raise ValueError(f"replica {key} = {getattr(self, key)!r}: expected {expected}")

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together, in tokens: the profile's, else `max_model_len`."""
        return self.max_model_len if self.profile is None else self.profile.max_model_len
