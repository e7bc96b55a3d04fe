"""The outside as native tools see it: a web that answers as a test says, a store for files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from server.tools.native import NATIVE
from server.tools.native.operator_settings import OperatorSettings
from server.workflow.services import Tool, ToolOutput, WebRequest, WebResponse
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun


class FakeWeb:
    """Answers in turn; `requests` are what was asked, `trusted` the origins that may be inside."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.requests: list[WebRequest] = []
        self.trusted: list[str] = []

    async def send(self, request: WebRequest) -> WebResponse:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, WebResponse):
            return answer
        if not isinstance(answer, bytes):
            answer = json.dumps(answer).encode()
        return answered(answer, url=request.url)

    def trusting(self, *urls: str) -> FakeWeb:
        self.trusted += urls
        return self

    @property
    def sent(self) -> Any:
        """The JSON of the latest request."""
        return json.loads(self.requests[-1].content or b"null")


def answered(
    content: bytes,
    kind: str = "application/json",
    status: int = 200,
    url: str = "https://x.example/",
) -> WebResponse:
    headers = [("content-type", kind)]
    return WebResponse(status=status, headers=headers, content=content, url=url)


class FakeFiles:
    """Keeps contents by name."""

    def __init__(self, **contents: bytes) -> None:
        self.kept = dict(contents)

    async def read(self, file: File, most_bytes: int) -> bytes:
        return self.kept[file.name or ""]

    def keep(self, content: bytes, *, name: str, mime_type: str) -> File:
        self.kept[name] = content
        kind = mime_type.split("/")[0]
        type: Any = kind if kind in ("image", "audio", "video") else "document"
        return File(
            type=type, transfer_method="tool_file", name=name, mime_type=mime_type, related_id=name
        )


def native(provider: str, name: str) -> Tool:
    """A tool as the registry has it."""
    module, _, function = NATIVE[provider].partition(":")
    made: list[Tool] = getattr(importlib.import_module(f"server.tools.native.{module}"), function)()
    return next(tool for tool in made if tool.name == name)


async def call(
    provider: str,
    name: str,
    arguments: Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    bound: Mapping[str, Any] | None = None,
    **given: Any,
) -> ToolOutput:
    """Call it; `settings` are the graph's, `bound` the operator's."""
    told = OperatorSettings(settings or {}, bound or {})
    return await native(provider, name).call(dict(arguments), told, FakeRun(**given))
