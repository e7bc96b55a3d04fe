"""The key of a prompt on a consistent-hash ring: its first tokens."""

from __future__ import annotations

from typing import Final

from balancer.policies import Ask

__all__ = ["prompt_key"]

_BLOCK_TOKENS: Final = 16


def prompt_key(ask: Ask, first_tokens: int) -> int | None:
    """A key of the first tokens of its prompt, in whole blocks of 16; None if it is shorter."""
    blocks = ask.blocks(_BLOCK_TOKENS)
    return blocks[min(len(blocks), first_tokens // _BLOCK_TOKENS) - 1] if blocks else None
