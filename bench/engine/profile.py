"""What one simulated engine is: the constants of its step time, its memory and its limits."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

__all__ = ["Profile", "ProfileError", "read_profile"]


class ProfileError(ValueError):
    """A profile that does not exist or cannot be; the message says which value and why."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One engine. Raises ProfileError for a value out of range.

    A step that computes `t` tokens (those of prefill chunks, and one for each of `n` decoding
    sequences) takes, in seconds,

        step_s + sequence_s * n + hypot(W(t), token_s * t)
          + attention_s * sum(c * p + c * c / 2) + context_s * sum(L) + C(t)

    where a chunk of `c` tokens follows `p` that are computed already, and a decoding sequence reads
    the keys and values of `L` tokens. The time to read the weights, of a mixture of experts those
    that `t` tokens touch, is

        W(t) = weights_s + expert_weights_s * (1 - (1 - expert_share)**t)

    `C(t) = link_s * t`, the exchange between the GPUs of one engine (0 for one GPU).

    Why `hypot`: reading weights and computing overlap, and measured times of linear layers follow
    the root of the squares between the two limits (kernel times profiled by Vidur, arXiv
    2405.05465, for an A100 with Llama-3-8B: 13.3, 19.6 and 34.9 ms at 128, 256 and 512 tokens).
    """

    name: str
    step_s: float
    """Scheduling, launch and sampling: what every step takes; 0 or more."""
    sequence_s: float
    """For each sequence of the batch: sampling, block tables, output; 0 or more."""
    weights_s: float
    """Reading the weights that every token uses; above 0."""
    token_s: float
    """Computing one token in the linear layers; above 0."""
    attention_s: float
    """For each pair of a prefilled token and a token before it; 0 or more."""
    context_s: float
    """Reading the keys and values of one token; 0 or more."""
    expert_weights_s: float = 0.0
    """Reading the weights of all experts; 0 for a dense model."""
    expert_share: float = 0.0
    """Share of the experts that one token uses, 0 to 1."""
    link_s: float = 0.0
    """Exchanging one token's activations between GPUs; 0 for one GPU."""
    request_s: float = 0.007
    """Before the engine sees a request: HTTP, validation, hand-over; 0 or more."""
    request_token_s: float = 2.5e-6
    """The same for each prompt token: tokenising; 0 or more."""
    kv_tokens: int
    """Room for keys and values, in tokens; at least one block."""
    block_tokens: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 131_072
    async_scheduling: bool = True
    """The next step is put together while this one runs (vLLM's default since 0.14): who arrives
    now is computed one step later."""
    reserve_prompt: bool = True
    """Admit a request only if the blocks of its whole prompt are free (vLLM 0.19 and later)."""
    source: str = ""
    """Where the numbers come from."""

    def __post_init__(self) -> None:
        for key in _NOT_NEGATIVE:
            value = getattr(self, key)
            if not 0 <= value < math.inf:
                raise ProfileError(f"profile {self.name}: {key} = {value!r} must be 0 or more")
        for key in _POSITIVE:
            value = getattr(self, key)
            if not 0 < value < math.inf:
                raise ProfileError(f"profile {self.name}: {key} = {value!r} must be above 0")
        if self.kv_tokens < self.block_tokens:
            raise ProfileError(
                f"profile {self.name}: kv_tokens = {self.kv_tokens} is less than one block of "
                f"{self.block_tokens}"
            )
        if not 0 <= self.expert_share <= 1:
            raise ProfileError(
                f"profile {self.name}: expert_share = {self.expert_share!r} must be 0 to 1"
            )

    @property
    def kv_blocks(self) -> int:
        """Whole blocks in memory."""
        return self.kv_tokens // self.block_tokens

    def step_time_s(
        self, tokens: int, sequences: int, context: float = 0.0, attended: float = 0.0
    ) -> float:
        """Seconds of one step: see the class for the formula.

        `tokens` computed in all, `sequences` in the batch, `context` = sum(L) over those that
        decode, `attended` = sum(c * p + c * c / 2) over the prefill chunks.
        """
        weights_s = self.weights_s
        if self.expert_weights_s:
            weights_s += self.expert_weights_s * (1 - (1 - self.expert_share) ** tokens)
        return (
            self.step_s
            + self.sequence_s * sequences
            + math.hypot(weights_s, self.token_s * tokens)
            + self.attention_s * attended
            + self.context_s * context
            + self.link_s * tokens
        )

    @property
    def prefill_tokens_per_s(self) -> float:
        """Rate at which one long cold prompt is read, a full step at a time."""
        chunk = self.max_num_batched_tokens
        return chunk / self.step_time_s(chunk, 1, attended=chunk * chunk / 2)


_NOT_NEGATIVE = (
    *("step_s", "sequence_s", "attention_s", "context_s", "expert_weights_s", "link_s"),
    *("request_s", "request_token_s"),
)
_POSITIVE = (
    *("weights_s", "token_s", "block_tokens", "max_num_seqs", "max_num_batched_tokens"),
    "max_model_len",
)


def read_profile(path: Path) -> Profile:
    """A profile from a JSON file, as `triolet bench calibrate` writes it.

    Raises ProfileError naming the file and the value at fault.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, ProfileError) as error:
        raise ProfileError(f"{path}: {error}") from error
