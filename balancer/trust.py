"""How far the prefix index is believed, from what answers say was really cached.

The index remembers what was sent; only the engine knows what it still has. Many engines say so with
each answer (`usage.prompt_tokens_details.cached_tokens`). Observed by expected is the confidence
that a replica's matches are weighed with, and where much was expected and nothing was there twice
in a row, its cache is empty: it was started again, or reset.

How a pool uses it, at a lease and at its end:

    matches = prefixes.match(blocks)
    ask.matches = trust.weigh(matches)
    ...                                                  # pick, lease
    expected = trust.expect(replica.name, matches.get(replica.name, 0), ask.prompt_tokens,
                            settled=waiting == 0)        # before this one: `load.waiting`
    ...
    if trust.observe(expected, outcome.prompt_tokens, outcome.cached_tokens):
        prefixes.clear(replica.name)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Expected", "Trust"]

_FADING: Final = 0.9
"""What is left of older evidence after each answer: the last ten count for two thirds."""
_FIRST_GUESS_TOKENS: Final = 4096.0
"""Evidence that full confidence begins with; it never fades, so a short prompt proves little."""
_MUCH_TOKENS: Final = 512
"""Expected at least, where a miss is a surprise: less may be a block or two that were cut off."""
_SURPRISES: Final = 2
_FULL: Final = 0.97
"""From here on it counts as 1: engines cache whole blocks, and add what their template adds."""


class Expected(NamedTuple):
    """What a lease expects of the cache, kept until its outcome is known. Nominal tokens."""

    replica: str
    purges: int
    """Of this replica until then: what was expected before one proves nothing after it."""
    cached_tokens: int
    prompt_tokens: int
    settled: bool


class _Record:
    """What was seen of one replica, in nominal tokens, fading."""

    __slots__ = ("confidence", "expected", "hits", "observed", "purges", "surprises")

    def __init__(self) -> None:
        self.purges = 0
        self.reset()

    def reset(self) -> None:
        self.expected = 0.0
        self.observed = 0.0
        self.confidence = 1.0
        self.surprises = 0
        """In a row."""
        self.hits = False
        """Whether anything was cached since the last purge."""

    def learn(self, expected: float, observed: float) -> None:
        self.expected = _FADING * self.expected + expected
        self.observed = _FADING * self.observed + observed
        confidence = (self.observed + _FIRST_GUESS_TOKENS) / (self.expected + _FIRST_GUESS_TOKENS)
        self.confidence = 1.0 if confidence >= _FULL else confidence


class Trust:
    """The confidence in the index for each replica: 0 to 1, and 1 where nothing is known.

    A replica that does not report what was cached is believed, and so is one never asked. One that
    reports 0 whatever it is sent has no prefix cache, and soon no confidence.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._doubted: dict[str, float] = {}  # those below 1: mostly none

    def confidence(self, replica: str) -> float:
        """What its matches are multiplied with, more than 0 and at most 1."""
        return self._doubted.get(replica, 1.0)

    def weigh(self, matches: Mapping[str, int]) -> Mapping[str, int]:
        """The matches, each by the confidence in it; the same object if there is no doubt."""
        doubted = [name for name in self._doubted if name in matches]
        if not doubted:
            return matches
        weighed = dict(matches)
        for name in doubted:
            weighed[name] = int(matches[name] * self._doubted[name])
        return weighed

    def expect(
        self, replica: str, cached_tokens: int, prompt_tokens: int, *, settled: bool
    ) -> Expected | None:
        """To be kept with the lease; None if nothing is expected.

        `cached_tokens` as the index matched them, not weighed. `settled`: no other request was
        waiting for its first event there. Otherwise what is expected may still be on its way into
        the cache, with a request before this one: then only a hit proves something.
        """
        if cached_tokens <= 0 or prompt_tokens <= 0:
            return None
        record = self._records.get(replica)
        purges = 0 if record is None else record.purges
        return Expected(replica, purges, min(cached_tokens, prompt_tokens), prompt_tokens, settled)

    def observe(
        self, expected: Expected | None, prompt_tokens: int | None, cached_tokens: int | None
    ) -> bool:
        """Learn from an answer, as the replica counts tokens; None is not reported.

        Returns whether its cache must be empty: the caller clears the index for that replica.
        """
        if expected is None or cached_tokens is None or not prompt_tokens:
            return False
        record = self._records.setdefault(expected.replica, _Record())
        if expected.purges != record.purges:
            return False
        cached_share = min(1.0, max(0.0, cached_tokens / prompt_tokens))
        observed = min(cached_share * expected.prompt_tokens, expected.cached_tokens)
        if not expected.settled and observed < expected.cached_tokens:
            return False
        record.learn(expected.cached_tokens, observed)
        if cached_tokens > 0:
            record.surprises, record.hits = 0, True
        elif expected.cached_tokens >= _MUCH_TOKENS:
            record.surprises += 1
        purge = record.surprises >= _SURPRISES
        if purge:
            self._purge(record)
        self._note(expected.replica, record)
        return purge

    def doubt(self, replica: str) -> None:
        """Something that would have been learned of its cache was missed: half as sure."""
        record = self._records.setdefault(replica, _Record())
        record.learn(record.expected + _FIRST_GUESS_TOKENS, 0.0)
        self._note(replica, record)

    def cleared(self, replica: str) -> None:
        """The index was cleared for it, for another reason: all begins anew."""
        record = self._records.get(replica)
        if record is not None:
            record.purges += 1
            record.reset()
            self._note(replica, record)

    def forget(self, replica: str) -> None:
        """It is gone."""
        self._records.pop(replica, None)
        self._doubted.pop(replica, None)

    def _purge(self, record: _Record) -> None:
        record.purges += 1
        if record.hits:  # an emptied cache explains the surprises: they say nothing of the next
            record.reset()
        record.surprises = 0

    def _note(self, replica: str, record: _Record) -> None:
        if record.confidence < 1.0:
            self._doubted[replica] = record.confidence
        else:
            self._doubted.pop(replica, None)
