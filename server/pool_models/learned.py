"""What pools were found not to take, by their refusals; believed for a while. Takes `now`. Pure.

Nothing tells beforehand whether an engine was started with tools, with a grammar or with eyes: it
says so when it is asked.
"""

from __future__ import annotations

import re
from typing import Final

from balancer.errors import ReplicaRefused
from balancer.faults import Fault, fault_of
from server.workflow.services import ChatCall, ModelFacts

__all__ = ["Refusals"]

_BELIEVED_S: Final = 600.0
"""Then it is asked again: it may have been started anew."""

_SCHEMA: Final = re.compile(
    rb"response_format|json_schema|guided|grammar|structured|xgrammar", re.I
)
_TOOLS: Final = re.compile(rb"tool", re.I)
_VISION: Final = re.compile(rb"image|multi-?modal|vision", re.I)
_BODY_BYTES: Final = 16_384


class Refusals:
    """By pool and feature."""

    def __init__(self, believed_s: float = _BELIEVED_S) -> None:
        self._believed_s = believed_s
        self._until: dict[tuple[str, str], float] = {}

    def learn(self, model: str, call: ChatCall, failure: BaseException, now: float) -> None:
        """The pool of `model` refused `call`: perhaps for something that it cannot do."""
        if not isinstance(failure, ReplicaRefused) or failure.status not in (400, 422, 500, 501):
            return
        if fault_of(failure) is Fault.CONTEXT:
            return
        body = failure.body[:_BODY_BYTES]
        if call.response_format is not None and _SCHEMA.search(body):
            self._note(model, "json_schema", now)
        elif call.tools and _TOOLS.search(body):
            self._note(model, "tools", now)
        elif _VISION.search(body) and _has_media(call):
            self._note(model, "vision", now)

    def _note(self, model: str, feature: str, now: float) -> None:
        self._until = {key: until for key, until in self._until.items() if until > now}
        self._until[model, feature] = now + self._believed_s

    def takes(self, model: str, feature: str, now: float) -> bool:
        return self._until.get((model, feature), now) <= now

    def apply(self, facts: ModelFacts, model: str, now: float) -> dict[str, bool]:
        """The features of `facts`, without those that were refused."""
        return {
            feature: getattr(facts, feature) and self.takes(model, feature, now)
            for feature in ("vision", "tools", "json_schema")
        }


def _has_media(call: ChatCall) -> bool:
    contents = (message.get("content") for message in call.messages)
    return any(
        isinstance(part, dict) and part.get("type") != "text"
        for content in contents
        if isinstance(content, list)
        for part in content
    )
