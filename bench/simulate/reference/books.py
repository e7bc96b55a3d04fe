"""What a prefix-aware router knows by itself: who was sent which prompt, and what is in flight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from balancer.policies import Ask, Bookless, Loaded, Outcome
from balancer.prefix import PrefixIndex
from bench.simulate.reference.fleet import Fleet
from bench.simulate.reference.ledger import IDLE, Ledger, Load

__all__ = ["BLOCK_TOKENS", "OwnBooks"]

BLOCK_TOKENS: Final = 64
"""About 256 bytes of text; llm-d's smallest block."""


class OwnBooks(Bookless):
    """The books of a policy that matches prefixes. Subclasses add `pick`, and begin it with
    `survey`.

    The index is as large as each replica's KV cache. As in every router without the engines' own
    cache events it learns from requests alone: a prompt counts as held from the moment it is sent,
    even if it is abandoned before it was read, and what was generated is not in it.

    `keeps_kv`: count the KV blocks in flight too. `unknown_tokens`: what a request is charged of
    whose prompt nothing is known.
    """

    def __init__(self, fleet: Fleet, *, keeps_kv: bool = False, unknown_tokens: int = 1) -> None:
        self.fleet = fleet
        self.random = fleet.random()
        self.index = PrefixIndex(BLOCK_TOKENS, fleet.kv_tokens)
        self.ledger = Ledger()
        self._keeps_kv = keeps_kv
        self._unknown_tokens = unknown_tokens
        self._surveyed: Ask | None = None
        self.blocks: Sequence[int] = ()
        """Of the request surveyed last."""
        self.matches: Mapping[str, int] = {}
        """Tokens of its prompt that each replica holds; only those with some."""

    def survey(self, ask: Ask) -> Mapping[str, int]:
        """Look up its prompt. Returns `matches`."""
        self._surveyed = ask
        self.blocks = ask.blocks(BLOCK_TOKENS)
        self.matches = self.index.match(self.blocks)
        return self.matches

    def prompt_tokens(self, ask: Ask) -> int:
        """Of the prompt; 1 or more."""
        return ask.prompt_tokens or self._unknown_tokens

    def load(self, replica: Loaded) -> Load:
        """What it has in flight."""
        return self.ledger.loads.get(replica.name, IDLE)

    def kv_share(self, replica: Loaded, load: Load) -> float:
        """How much of its KV cache prompts in flight take: 0 or more, 1 is all of it."""
        return load.kv_blocks * BLOCK_TOKENS / self.fleet.kv_tokens(replica.name)

    def leased(self, replica: Loaded, ask: Ask) -> None:
        """Charge it, and count its prompt as held."""
        if self._surveyed is not ask:
            self.survey(ask)
        # Even of a prompt that is held completely the engine reads the last token again.
        uncached = max(1, self.prompt_tokens(ask) - self.matches.get(replica.name, 0))
        self.ledger.open(replica.name, ask, uncached, self.blocks if self._keeps_kv else ())
        self.index.insert(replica.name, self.blocks)
        self._surveyed = None  # the index has changed

    def answered(self, replica: Loaded, ask: Ask) -> None:
        """Its prompt is read."""
        self.ledger.answered(replica.name, ask)

    def released(self, replica: Loaded, ask: Ask, outcome: Outcome) -> None:
        """It is over."""
        self.ledger.released(replica.name, ask)

    def forget(self, replica: str) -> None:
        """That replica's cache is empty: it was started again, or is gone."""
        self.index.drop(replica)
