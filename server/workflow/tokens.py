"""How many tokens a text has, estimated. Pure.

Engines count exactly and afterwards; what must be known before is only how much of a conversation
fits. So text is weighed in a microsecond a page, and each model's own habit is learned from what
its engine reports.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from server.workflow.services import Message

__all__ = ["TokenRatios", "estimate_messages", "estimate_tokens"]

_WIDE: Final = re.compile(r"[⺀-鿿가-힯豈-﫿＀-￯𠀀-𲎯]+")
"""Runs of Chinese, Japanese and Korean, where a token is rarely more than one character."""

_WIDE_TOKENS: Final = 0.7
_CHARACTERS: Final = 4.0
"""Characters of other text in a token."""

_LOOKED_AT: Final = 16_384
"""Characters of one text that are looked at: 0.3 ms where every other one is wide."""
_SAMPLES: Final = 128

_MESSAGE_TOKENS: Final = 4
"""What a chat template puts around a message."""

_IMAGE_TOKENS: Final = 800
"""An image of a megapixel: from 85 (OpenAI, low) to 1,300 (Qwen2-VL) are usual."""


def estimate_tokens(text: str) -> int:
    """About as many as a tokenizer of a current model counts."""
    if text.isascii():
        return math.ceil(len(text) / _CHARACTERS)
    wide = _wide_in(text)
    return math.ceil((len(text) - wide) / _CHARACTERS + wide * _WIDE_TOKENS)


def _wide_in(text: str) -> float:
    """How many wide characters it has; of a long text by samples, as a book would take long."""
    if len(text) <= _LOOKED_AT:
        return sum(map(len, _WIDE.findall(text)))
    step = len(text) // _SAMPLES
    size = _LOOKED_AT // _SAMPLES
    sample = "".join(text[at : at + size] for at in range(0, step * _SAMPLES, step))
    return sum(map(len, _WIDE.findall(sample))) * len(text) / len(sample)


def estimate_messages(messages: Iterable[Message]) -> int:
    """The same for a chat. Images count as one of usual size, whatever their bytes."""
    return sum(map(_message_tokens, messages))


def _message_tokens(message: Message) -> int:
    content = message.get("content")
    tokens = _MESSAGE_TOKENS
    if isinstance(content, str):
        tokens += estimate_tokens(content)
    elif isinstance(content, list):
        tokens += sum(map(_part_tokens, content))
    for call in message.get("tool_calls") or ():
        tokens += estimate_tokens(str(call.get("function", "")))
    return tokens


def _part_tokens(part: object) -> int:
    text = part.get("text") if isinstance(part, dict) else None
    return estimate_tokens(text) if isinstance(text, str) else _IMAGE_TOKENS


class TokenRatios:
    """By model: how many tokens it counts where the estimate says one. Learned, bounded.

    An exponentially weighted mean: the last ten or so calls count.
    """

    _WEIGHT: Final = 0.2
    _LEAST_TOKENS: Final = 16
    """Of shorter prompts the chat template is most."""
    _LIMITS: Final = (0.25, 4.0)

    def __init__(self, most: int = 1_000) -> None:
        self._most = most
        self._ratios: OrderedDict[str, float] = OrderedDict()

    def of(self, model: str) -> float:
        """1 for a model of which nothing is known."""
        return self._ratios.get(model, 1.0)

    def learn(self, model: str, estimated: int, counted: int) -> None:
        """The engine counted so many where we had estimated so many."""
        if estimated < self._LEAST_TOKENS or counted <= 0:
            return
        low, high = self._LIMITS
        ratio = min(max(counted / estimated, low), high)
        known = self._ratios.get(model)
        self._ratios[model] = ratio if known is None else known + self._WEIGHT * (ratio - known)
        self._ratios.move_to_end(model)
        if len(self._ratios) > self._most:
            self._ratios.popitem(last=False)
