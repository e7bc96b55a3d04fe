"""A request as policies see it, read from its body only when one asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from balancer.wire.prompts import SESSION_CHARACTERS, TOKEN_BYTES, Facts, read_prompt

__all__ = ["SESSION_HEADERS", "Prompt"]

SESSION_HEADERS: Final = (
    b"x-session-affinity",
    b"x-correlation-id",
    b"x-session-id",
    b"x-claude-code-session-id",
    b"session-id",
    b"session_id",
)
"""What clients name a conversation by, the first that is there counts: OpenCode sends the first and
the third, AIPerf the second, Claude Code and Codex the others. `x-request-id` must never be one: it
is another in every request."""

_NO_MATCHES: Final[Mapping[str, int]] = MappingProxyType({})


class Prompt:
    """`balancer.policies.Ask` for a relayed request.

    Nothing is read before it is asked for, so a policy that needs nothing costs nothing.
    """

    __slots__ = (
        "_blocks",
        "_body",
        "_facts",
        "_headers",
        "_session_headers",
        "_text",
        "matches",
        "streams",
    )

    def __init__(
        self,
        body: bytes,
        headers: Sequence[tuple[bytes, bytes]] = (),
        session_headers: Sequence[bytes] = SESSION_HEADERS,
        *,
        streams: bool = True,
    ) -> None:
        """`body` is JSON; of anything else nothing is known. Names of headers are in lower case."""
        self.streams = streams
        self.matches = _NO_MATCHES
        self._body = body
        self._headers = headers
        self._session_headers = session_headers
        self._facts: Facts | None = None
        self._text: bytes | None = None
        self._blocks: dict[int, Sequence[int]] = {}

    @property
    def prompt_tokens(self) -> int:
        """Nominal: rendered bytes / 4; 0 if unknown. Of several prompts in one request all."""
        return self._read().prompt_tokens

    @property
    def output_tokens(self) -> int | None:
        """The least of the limits that the body gives; None if it gives none."""
        return self._read().output_tokens

    @property
    def session(self) -> str | None:
        """What the client names the conversation by: a header, or else a field of the body."""
        return self.run or self._read().session

    @property
    def run(self) -> str | None:
        """The same, of the headers alone: the body is not read for it."""
        given = dict(self._headers)
        for name in self._session_headers:
            value = given.get(name)
            if value and len(value) <= SESSION_CHARACTERS:
                return value.decode("latin-1")
        return None

    def blocks(self, tokens: int) -> Sequence[int]:
        """One number for each whole block of `tokens` nominal tokens: `tokens` * 4 bytes.

        Chained: two prompts agree in number k exactly if they agree in everything up to the end of
        block k, but for collisions (61 bits). Not the same in another process.
        """
        found = self._blocks.get(tokens)
        if found is None:
            seed = self._read().seed
            text = read_prompt(self._body).text if self._text is None else self._text
            found = self._blocks[tokens] = _chained(text, tokens * TOKEN_BYTES, seed)
            # As long as the body, and rarely wanted again.
            self._text = None
        return found

    def _read(self) -> Facts:
        facts = self._facts
        if facts is None:
            self._text, facts = read_prompt(self._body)
            self._facts = facts
        return facts


def _chained(text: bytes, size: int, seed: int) -> list[int]:
    """Python's own hash of bytes is SipHash, keyed anew in each process: a client cannot aim for
    collisions. 256 bytes take 0.2 µs."""
    numbers: list[int] = []
    for start in range(0, len(text) - size + 1, size):
        seed = hash((seed, text[start : start + size]))
        numbers.append(seed)
    return numbers
