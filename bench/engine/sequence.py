"""One request inside a simulated engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bench.workload.model import Prompt, Segment, prompt_tokens

if TYPE_CHECKING:
    from bench.engine.kvcache import Held

__all__ = ["Sequence", "State"]

State = Literal["new", "waiting", "prefill", "decode", "finished", "aborted", "lost"]
"""`lost`: the engine crashed under it."""


class Sequence:
    """A prompt, an answer of known length, and when things happened to it.

    All times are seconds on the engine's clock; None until they have happened.
    """

    __slots__ = (
        "answer",
        "arrived_s",
        "begun_at",
        "born",
        "cached_tokens",
        "computed",
        "ends_at",
        "finished_s",
        "first_token_s",
        "generated",
        "goal",
        "held",
        "made_at",
        "output_tokens",
        "owner",
        "place",
        "preemptions",
        "prompt",
        "prompt_tokens",
        "scheduled_s",
        "state",
    )

    def __init__(
        self,
        prompt: Prompt,
        output_tokens: int,
        answer: int | Prompt,
        owner: Any = None,
        *,
        tokens: int | None = None,
    ) -> None:
        """`answer` is the key under which a later prompt may repeat the answer, or the segments it
        consists of. A text that is cut into blocks has one in which the prompt ends and the answer
        begins: it is the first of these segments, and `tokens` is the length of the prompt then.
        """
        self.prompt = prompt
        self.prompt_tokens = prompt_tokens(prompt) if tokens is None else tokens
        self.output_tokens = output_tokens
        self.answer = (Segment(answer, output_tokens),) if isinstance(answer, int) else answer
        self.owner = owner
        """Whatever the caller wants to find again."""
        self.state: State = "new"
        self.arrived_s = 0.0
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.finished_s: float | None = None
        self.cached_tokens = 0
        """Prompt tokens found in the prefix cache when it was first scheduled."""
        self.preemptions = 0
        self.generated = 0
        """Tokens sampled when it last left a batch; while it decodes see `Engine.tokens_made`."""
        # Below: the scheduler's own. `begun_at`, `ends_at`, `made_at`: number of the step that
        # completed the prompt, of the last token's, and of the last one's before a preemption.
        self.goal = self.prompt_tokens
        self.computed = 0
        self.held: Held | None = None
        self.place = 0
        self.born = 0
        self.begun_at = 0
        self.ends_at = 0
        self.made_at = -1

    @property
    def ttft_s(self) -> float | None:
        """From its arrival to its first token."""
        return None if self.first_token_s is None else self.first_token_s - self.arrived_s

    @property
    def itl_s(self) -> float | None:
        """Mean time between its tokens, if it has finished and has two or more."""
        if self.finished_s is None or self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.finished_s - self.first_token_s) / (self.output_tokens - 1)
