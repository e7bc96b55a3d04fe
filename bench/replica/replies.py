"""The answers as vLLM writes them: whole documents, and the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bench.replica.answer import Answer

FINGERPRINT = "triolet-demo-simulation"
"""In `system_fingerprint` and `owned_by`: for programs, what the text says to people."""

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Identity(msgspec.Struct, frozen=True):
    """What every document about one request repeats."""

    id: str
    created: int
    model: str


class Usage(NamedTuple):
    """Tokens of one request, all its answers together."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    """Of the prompt, found in the prefix cache; None where there is none."""

    def document(self, *, whole: bool) -> dict[str, Any]:
        """What stands under `usage`; a `whole` answer has a null where a stream has nothing."""
        document: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.cached_tokens is not None:
            document["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        elif whole:
            document["prompt_tokens_details"] = None
        return document


class ChunkFrames:
    """The events of one stream; all that stays the same is encoded once, before the first token."""

    def __init__(self, identity: Identity, kind: str, choices: int) -> None:
        """`kind` is "chat.completion.chunk" or "text_completion", `choices` their number."""
        head = _encode(
            {
                "id": identity.id,
                "object": kind,
                "created": identity.created,
                "model": identity.model,
            }
        )
        self._head = b"data: " + head[:-1]
        chat = kind == "chat.completion.chunk"
        field = b'"delta":{"content":' if chat else b'"text":'
        self._opens = [
            self._head + b',"choices":[{"index":%d,' % index + field for index in range(choices)
        ]
        self._after_text = b'},"logprobs":null,' if chat else b',"logprobs":null,'
        tail = b'"finish_reason":null,"token_ids":null}]}\n\n'
        self._close = self._after_text + tail

    def role(self) -> bytes:
        """The first event of a chat stream."""
        return (
            self._head + b',"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
            b'"logprobs":null,"finish_reason":null}]}\n\n'
        )

    def text(self, index: int, text: str) -> bytes:
        """The text of one chunk of choice `index`."""
        return self._opens[index] + _encode(text) + self._close

    def last(self, index: int, text: str, answer: Answer, *, more: bool) -> bytes:
        """The text and end of choice `index`; `more` if a usage event follows."""
        close = b'"finish_reason":%b,"stop_reason":%b,"token_ids":null}]' % (
            _encode(answer.reason),
            _encode(answer.stop_reason),
        )
        mark = b"" if more else b',"system_fingerprint":' + _encode(FINGERPRINT)
        return self._opens[index] + _encode(text) + self._after_text + close + mark + b"}\n\n"

    def usage(self, usage: Usage) -> bytes:
        """The event after the last text, for clients that asked for it."""
        document, mark = _encode(usage.document(whole=False)), _encode(FINGERPRINT)
        ending = b',"choices":[],"system_fingerprint":%b,"usage":%b}\n\n' % (mark, document)
        return self._head + ending


def chat_document(identity: Identity, answers: Sequence[Answer], usage: Usage) -> bytes:
    """A whole chat answer."""
    choices = [
        {
            "index": index,
            "message": {
                "role": "assistant",
                "content": "".join(answer.released),
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": None,
            },
            **_ending(answer),
        }
        for index, answer in enumerate(answers)
    ]
    return _document(identity, "chat.completion", choices, usage)


def completion_document(identity: Identity, answers: Sequence[Answer], usage: Usage) -> bytes:
    """A whole completion: one choice for each prompt."""
    choices = [
        {"index": index, "text": "".join(answer.released), **_ending(answer)}
        for index, answer in enumerate(answers)
    ]
    return _document(identity, "text_completion", choices, usage)


def embedding_document(
    identity: Identity, vectors: Sequence[list[float] | str], usage: Usage
) -> bytes:
    """Embeddings, as lists of numbers or as base64 of little-endian 32-bit floats."""
    return _encode(
        {
            "id": identity.id,
            "object": "list",
            "created": identity.created,
            "model": identity.model,
            "data": [
                {"index": index, "object": "embedding", "embedding": vector}
                for index, vector in enumerate(vectors)
            ],
            "usage": usage.document(whole=True),
        }
    )


def _ending(answer: Answer) -> dict[str, Any]:
    return {
        "logprobs": None,
        "finish_reason": answer.reason,
        "stop_reason": answer.stop_reason,
        "token_ids": None,
    }


def _document(identity: Identity, kind: str, choices: list[dict[str, Any]], usage: Usage) -> bytes:
    return _encode(
        {
            "id": identity.id,
            "object": kind,
            "created": identity.created,
            "model": identity.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage.document(whole=True),
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        }
    )
