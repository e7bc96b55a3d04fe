"""The placeholders of chat, agent-chat and completion apps, as those of graphs. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from server.workflow.app import InputSpec

__all__ = ["PromptWords"]

_PLACEHOLDER: Final = re.compile(r"\{\{([^\s{}#][^{}#]{0,99}|#(?:query|context|histories)#)\}\}")
_PLAIN_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,29}\Z")


class PromptWords:
    """Rewrites `{{name}}` of a prompt, for the names that the form declares; the rest stays."""

    def __init__(self, inputs: Sequence[InputSpec]) -> None:
        self._names = {each.name for each in inputs}
        self.odd: dict[str, str] = {}
        """Names that placeholders cannot have, and the node that gives each out."""

    def read(self, text: str) -> str:
        """The text as a graph has it."""
        return _PLACEHOLDER.sub(self._replaced, text)

    def _replaced(self, found: re.Match[str]) -> str:
        name = found[1]
        if name == "#query#":
            return "{{#sys.query#}}"
        if name not in self._names:
            return found[0]
        if _PLAIN_NAME.match(name):
            return f"{{{{#start.{name}#}}}}"
        node_id = self.odd.setdefault(name, f"input_{len(self.odd) + 1}")
        return f"{{{{#{node_id}.output#}}}}"
