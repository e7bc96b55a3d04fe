"""A turn of a workload, as a policy sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bench.workload.model import Prompt, prompt_tokens

__all__ = ["TurnAsk"]


class TurnAsk:
    """One request. A policy is told what a router could know: never how long the answer will be,
    only the most it may be.
    """

    __slots__ = ("_blocks", "_prompt", "matches", "output_tokens", "prompt_tokens", "session")
    streams: Final = True
    run: Final = None

    def __init__(self, prompt: Prompt, output_tokens: int | None, session: str | None) -> None:
        self._prompt = prompt
        self._blocks: dict[int, Sequence[int]] = {}
        self.matches: Mapping[str, int] = {}
        self.prompt_tokens = prompt_tokens(prompt)
        self.output_tokens = output_tokens
        self.session = session

    def blocks(self, tokens: int) -> Sequence[int]:
        """One number for each whole block of `tokens` tokens; worked out once."""
        found = self._blocks.get(tokens)
        if found is None:
            found = self._blocks[tokens] = _chained(self._prompt, tokens)
        return found


def _chained(prompt: Prompt, size: int) -> Sequence[int]:
    # A block is known by the segments up to the one in which it ends, and its place.
    numbers: list[int] = []
    chain = end = 0
    for segment in prompt:
        chain = hash((chain, segment.key))
        first, end = end // size, end + segment.tokens
        numbers += [hash((chain, place)) for place in range(first, end // size)]
    return numbers
