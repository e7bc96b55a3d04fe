"""What a policy may know of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["UNKNOWN", "Ask"]


class Ask(Protocol):
    """A request as policies see it. What is not known is 0, None or empty: never a guess."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, counted or estimated; 0 if unknown."""

    @property
    def output_tokens(self) -> int | None:
        """The most it may generate (`max_tokens`); None if it does not say."""

    @property
    def session(self) -> str | None:
        """What its client names the conversation by, if it does."""

    def blocks(self, tokens: int) -> Sequence[int]:
        """One number for each whole block of `tokens` prompt tokens, from the beginning.

        Chained: two prompts agree in number k exactly if they agree in everything up to the end of
        block k. Empty if the prompt is unknown.
        """


class _Unknown:
    prompt_tokens: Final = 0
    output_tokens: Final = None
    session: Final = None

    def blocks(self, tokens: int) -> Sequence[int]:
        return ()


UNKNOWN: Final[Ask] = _Unknown()
"""A request of which nothing is known."""
