"""What a scalar of YAML stands for, as JSON can carry it. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

__all__ = ["Scalars"]

_STR: Final = "tag:yaml.org,2002:str"
_INT: Final = "tag:yaml.org,2002:int"
_FLOAT: Final = "tag:yaml.org,2002:float"
_PLAIN_TAGS: Final = frozenset(
    {_STR, _INT, _FLOAT, "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"}
)


_LONGEST_NUMBER: Final = 400
"""Characters; what is longer is a text without being looked at."""


class Scalars:
    """What a scalar stands for, by the rules that Dify reads with (YAML 1.1, as PyYAML has it)."""

    def __init__(self) -> None:
        import yaml

        resolver: Any = yaml.resolver.Resolver()
        self._resolve = resolver.resolve
        self._constructor = yaml.constructor.SafeConstructor()
        self._node = yaml.ScalarNode
        self._known: dict[str, Any] = {}

    def value(self, event: Any) -> Any:
        """Raises `ValueError`: a tag that is not read, or a text that does not fit its tag."""
        text: str = event.value
        if event.tag not in (None, "!"):
            return self._tagged(event.tag, text)
        if not event.implicit[0] or len(text) > _LONGEST_NUMBER:
            return text
        if text not in self._known:
            tag = self._resolve(self._node, text, (True, False))
            self._known[text] = self._constructed(tag, text) if tag in _PLAIN_TAGS else text
        return self._known[text]

    def _tagged(self, tag: str, text: str) -> Any:
        if tag not in _PLAIN_TAGS:
            raise ValueError(f"the tag {tag!r} is not read"[:200])
        found = self._resolve(self._node, text, (True, False))
        if tag not in (_STR, found) and (tag, found) != (_FLOAT, _INT):
            raise ValueError(f"{text[:40]!r} does not fit its tag")
        return self._constructed(tag, text)

    def _constructed(self, tag: str, text: str) -> Any:
        if tag == _STR:
            return text
        kind = tag.rpartition(":")[2]
        node = self._node(tag, text)
        try:
            value = getattr(self._constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, OverflowError, KeyError):
            return text
        return value if _fits_json(value) else text


def _fits_json(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63
