"""The answers as vLLM writes them: whole documents, and the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from bench.replica.engine import Sequence as Running

FINGERPRINT = "triolet-demo-simulation"
"""In `system_fingerprint` and `owned_by`: for programs, what the text says to people."""

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Identity(msgspec.Struct, frozen=True):
    """What every document about one request repeats."""

    id: str
    created: int
    model: str


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

    def last(self, index: int, text: str, running: Running, *, more: bool) -> bytes:
        """The text and end of choice `index`; `more` if a usage event follows."""
        close = b'"finish_reason":%b,"stop_reason":%b,"token_ids":null}]' % (
            _encode(running.finish_reason),
            _encode(running.stop_reason),
        )
        mark = b"" if more else b',"system_fingerprint":' + _encode(FINGERPRINT)
        return self._opens[index] + _encode(text) + self._after_text + close + mark + b"}\n\n"

    def usage(self, sequences: Sequence[Running]) -> bytes:
        """The event after the last text, for clients that asked for it."""
        usage = _encode(usage_of(sequences))
        mark = _encode(FINGERPRINT)
        return self._head + b',"choices":[],"system_fingerprint":%b,"usage":%b}\n\n' % (mark, usage)


def usage_of(sequences: Sequence[Running]) -> dict[str, int]:
    """Tokens of all `sequences` of one request together."""
    prompt = sum(running.prompt_tokens for running in sequences)
    completion = sum(running.tokens for running in sequences)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


def chat_document(identity: Identity, text: str, running: Running) -> bytes:
    """A whole chat answer."""
    choice = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        },
        **_ending(running),
    }
    return _document(identity, "chat.completion", [choice], [running])


def completion_document(
    identity: Identity, texts: Sequence[str], sequences: Sequence[Running]
) -> bytes:
    """A whole completion: one choice for each prompt."""
    choices = [
        {"index": index, "text": text, **_ending(running)}
        for index, (text, running) in enumerate(zip(texts, sequences, strict=True))
    ]
    return _document(identity, "text_completion", choices, sequences)


def embedding_document(
    identity: Identity, vectors: Sequence[list[float] | str], prompt_tokens: int
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
            "usage": {
                "prompt_tokens": prompt_tokens,
                "total_tokens": prompt_tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )


def _ending(running: Running) -> dict[str, Any]:
    return {
        "logprobs": None,
        "finish_reason": running.finish_reason,
        "stop_reason": running.stop_reason,
        "token_ids": None,
    }


def _document(
    identity: Identity, kind: str, choices: list[dict[str, Any]], sequences: Sequence[Running]
) -> bytes:
    return _encode(
        {
            "id": identity.id,
            "object": kind,
            "created": identity.created,
            "model": identity.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {**usage_of(sequences), "prompt_tokens_details": None},
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        }
    )
