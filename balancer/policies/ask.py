"""What a policy may know of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

__all__ = ["BLOCK_TOKENS", "UNKNOWN", "Ask"]

BLOCK_TOKENS: Final = 64
"""Tokens in a block of the balancer's prefix index: about 256 bytes of text."""


class Ask(Protocol):
    """A request as policies see it. What is not known is 0, None or empty: never a guess."""

    matches: Mapping[str, int]
    """By replica name: how many tokens of the prompt it is believed to hold in its cache. Only
    those with some. Set by the pool just before each `pick`, for policies that read prompts."""

    @property
    def streams(self) -> bool:
        """Whether its first event tells that the prompt was read. An answer that comes whole tells
        of nothing but its end."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, counted or estimated; 0 if unknown."""

    @property
    def output_tokens(self) -> int | None:
        """The most it may generate (`max_tokens`); None if it does not say."""

    @property
    def session(self) -> str | None:
        """What its client names the conversation by, if it does."""

    @property
    def run(self) -> str | None:
        """The calls that it belongs to, if its headers or its caller say so: what `session` costs
        nothing to tell of."""

    def blocks(self, tokens: int) -> Sequence[int]:
        """One number for each whole block of `tokens` prompt tokens, from the beginning.

        Chained: two prompts agree in number k exactly if they agree in everything up to the end of
        block k. Empty if the prompt is unknown.
        """


class _Unknown:
    streams: Final = True
    prompt_tokens: Final = 0
    output_tokens: Final = None
    session: Final = None
    run: Final = None
    matches: Mapping[str, int] = MappingProxyType({})

    def blocks(self, tokens: int) -> Sequence[int]:
        return ()


UNKNOWN: Final[Ask] = _Unknown()
"""A request of which nothing is known."""
