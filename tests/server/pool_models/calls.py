"""What the tests of model calls share: streams of a replica, and calls over scripted replicas."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from balancer.catalog import Catalog
from server.pool_models import PoolModels
from server.workflow.app import Bindings, ModelRef
from server.workflow.model_names import ModelNames
from server.workflow.node import Run
from server.workflow.services import ChatCall, Completion, ModelFacts
from tests.balancer.relays import Relay
from tests.balancer.scripted import answer, stream
from tests.server.workflow.fakes import FakeRun, app, services

GPT = ModelRef("langgenius/openai/openai", "gpt-4o")
HELLO = ({"role": "user", "content": "Hello?"},)
DONE = b"data: [DONE]\n\n"


def delta(**fields: Any) -> bytes:
    """One event of a chat stream."""
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


def stop(reason: str = "stop") -> bytes:
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def usage(prompt: int = 7, output: int = 2, cached: int = 0) -> bytes:
    details = {"cached_tokens": cached}
    tokens = {"prompt_tokens": prompt, "completion_tokens": output}
    return event({"choices": [], "usage": {**tokens, "prompt_tokens_details": details}})


def event(fields: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(fields)


GOOD = stream(delta(content="Good "), delta(content="day"), stop(), usage(), DONE)


def whole(message: Mapping[str, Any], **more: Any) -> bytes:
    """A whole answer that is no stream."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    counted = {"prompt_tokens": 5, "completion_tokens": 3}
    return answer(msgspec.json.encode({"choices": [choice], "usage": counted, **more}))


class Heard:
    """A receiver that notes what it is told, in order."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, str]] = []
        self.drained = 0

    def text(self, piece: str) -> None:
        self.pieces.append(("text", piece))

    def reasoning(self, piece: str) -> None:
        self.pieces.append(("reasoning", piece))

    async def drain(self) -> None:
        self.drained += 1


def models_of(
    r: Relay,
    names: Mapping[str, str] | None = None,
    facts: Mapping[str, ModelFacts] | None = None,
    **given: Any,
) -> PoolModels:
    table = {"*": "m"} if names is None else names
    return PoolModels(Catalog(r.pools), ModelNames(table), facts=facts, **given)


def run_of(bindings: Bindings = Bindings(), **fields: Any) -> FakeRun:  # noqa: B008 - immutable
    given: dict[str, Any] = {"app": app(bindings=bindings), "services": services()}
    return FakeRun(run=Run(id="run-1", **given | fields))


def call_of(**fields: Any) -> ChatCall:
    given: dict[str, Any] = {"model": GPT, "messages": HELLO}
    return ChatCall(**given | fields)


async def ask(r: Relay, heard: Heard | None = None, **fields: Any) -> Completion:
    return await models_of(r).chat(call_of(**fields), run_of(), heard)


def sent(request: bytes) -> dict[str, Any]:
    """The body of a request as a replica got it."""
    body: dict[str, Any] = msgspec.json.decode(request.partition(b"\r\n\r\n")[2])
    return body


def header(request: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"\r\n%b: ([^\r]*)\r\n" % name, request, re.IGNORECASE)
    return None if found is None else found.group(1)


def refused(status: int, message: str, **fields: Any) -> Sequence[bytes]:
    error = {"message": message, "type": "invalid_request_error", **fields}
    return [answer(msgspec.json.encode({"error": error}), status=status)]
