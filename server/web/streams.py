"""What tools need of the web beyond `services.Web`: answers as they come, and trusted servers."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from server.workflow.services import Web, WebRequest

__all__ = ["Incoming", "StreamingWeb"]


class Incoming(Protocol):
    """An answer whose body is still to come."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case, in the order in which they came."""

    @property
    def url(self) -> str:
        """The one that answered, after redirects."""

    async def read(self) -> bytes:
        """The next bytes of the body, unpacked; empty at its end. Raises `WebFailed`: out of time,
        cut off, larger than the request's `most_bytes`."""


class StreamingWeb(Web, Protocol):
    def stream(self, request: WebRequest) -> AbstractAsyncContextManager[Incoming]:
        """The head of the answer as soon as it is there. Leaving closes the connection. Raises
        `WebFailed`."""

    def trusting(self, *urls: str) -> StreamingWeb:
        """The same, and these origins may be inside: they are the operator's word, never that of a
        file or a model. Raises ValueError for what is no URL."""
