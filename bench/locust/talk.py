"""What a session says: a system prompt shared with other sessions, and words of its own."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from bench.locust.settings import Settings

__all__ = ["Talk"]

# Short words, so that each is one token for the demo replica and for most vocabularies.
_TEXT: Final = """
able air answer board bring build carry change child city clear close color common cover cross
deep door drive early earth enough even every face far feel field find first follow force friend
full game ground grow hand hard head hear hold hour house keep kind land large last lead learn
leave light line list long mark may money month morning mother move music near need next night
north note number often open order page paper part pass place plain plan plant play point power
press quick reach read real right river road rock room round rule school sea second seem serve
several shape short show side simple sing size sleep slow small sound space stand star state
stay still story street strong study summer sure table tail take talk teach thing think third
time town travel tree turn under unit usual voice walk wait warm watch water wheel white whole
wind winter wonder word work world write year young
"""
_WORDS: Final = tuple(_TEXT.split())


class Talk:
    """One session's messages. The same number says the same in every run."""

    def __init__(self, settings: Settings, number: int) -> None:
        self._settings = settings
        self._random = Random(f"session {number}")
        self._messages: list[dict[str, str]] = []
        if settings.prefix_tokens:
            prefix = Random(f"prefix {number % settings.prefixes}")
            self._say("system", _words(prefix, settings.prefix_tokens))

    def ask(self) -> dict[str, Any]:
        """The body of the next request: everything said so far, and something new."""
        self._say("user", _words(self._random, self._settings.input_tokens))
        return {
            "model": self._settings.model,
            "messages": list(self._messages),
            "max_tokens": self._settings.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def hear(self, answer: str) -> None:
        """The answer, which the next request repeats."""
        self._say("assistant", answer)

    def _say(self, role: str, content: str) -> None:
        self._messages.append({"role": role, "content": content})


def _words(random: Random, count: int) -> str:
    return " ".join(random.choices(_WORDS, k=count))
