"""Traces whose prompts are lists of block hashes: Mooncake's, Bailian's, and others like them.

Mooncake (github.com/kvcache-ai/Mooncake, FAST'25): `timestamp` in ms, blocks of 512 tokens.
Bailian (github.com/alibaba-edu/qwen-bailian-usagetraces-anon): the same fields and `chat_id`,
`timestamp` in seconds, blocks of 16 tokens. The list that the validation runs were fed (see
`bench/data`): `t` in seconds and `blocks` of 16 tokens, those of the answer included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bench.workload.lines import Source
from bench.workload.model import Prompt, Segment, Workload, segment_key
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.timed import Timed, timed_sessions

__all__ = ["BlockKeys", "MOONCAKE_BLOCK_TOKENS", "block_prompt", "mooncake"]

MOONCAKE_BLOCK_TOKENS = 512
BAILIAN_BLOCK_TOKENS = 16

_PLAIN_KEYS = 2**40


class _Line(msgspec.Struct):
    input_length: int
    output_length: int
    timestamp: float | None = None
    t: float | None = None
    hash_ids: list[int | str] | None = None
    blocks: list[int | str] | None = None
    chat_id: int | str | None = None


class BlockKeys:
    """Segment keys for the block ids of one trace."""

    def __init__(self, *namespace: object) -> None:
        self._namespace = segment_key("blocks", *namespace)
        # Whole blocks are counted up from here: some hundred of them per prompt, so that hashing
        # each id would cost more than everything else in the reader.
        self._base = self._namespace // _PLAIN_KEYS * _PLAIN_KEYS

    def key(self, block_id: int | str, tokens: int, block_tokens: int) -> int:
        """The key of a block of which the prompt has `tokens`.

        An id cut short is not the text of the whole block: it has a key of its own.
        """
        if tokens == block_tokens and isinstance(block_id, int) and 0 <= block_id < _PLAIN_KEYS:
            return self._base + block_id
        return segment_key(self._namespace, block_id, tokens)


def block_prompt(
    ids: Sequence[int | str], input_tokens: int, block_tokens: int, keys: BlockKeys, row: object
) -> Prompt:
    """A prompt of whole blocks, the last one shorter; what has no id belongs to `row` alone.

    Raises:
        ValueError: there are more blocks than tokens for them.
    """
    whole, rest = divmod(input_tokens, block_tokens)
    if len(ids) > whole + (rest > 0):
        raise ValueError(
            f"{len(ids)} blocks of {block_tokens} tokens are more than {input_tokens} tokens"
        )
    key = keys.key
    prompt = [Segment(key(each, block_tokens, block_tokens), block_tokens) for each in ids[:whole]]
    if len(ids) > whole:
        prompt.append(Segment(key(ids[-1], rest, block_tokens), rest))
    elif unnamed := input_tokens - len(ids) * block_tokens:
        prompt.append(Segment(segment_key(keys.key("", 0, 0), row), unnamed))
    return tuple(prompt)


def mooncake(source: Source, options: TraceOptions | None = None) -> Workload:
    """The requests of a block trace, each a session of its own, due when the trace says."""
    chosen = options or TraceOptions()
    return Workload(
        name="mooncake",
        sessions=timed_sessions(source, lambda: _parser(chosen), chosen),
        about=f"Requests of {source.name} with their shared blocks, at the trace's times.",
    )


def _parser(options: TraceOptions) -> Callable[[bytes], Timed]:
    decode = msgspec.json.Decoder(_Line).decode
    keys = BlockKeys(options.namespace)
    row = 0

    def parse(line: bytes) -> Timed:
        nonlocal row
        row += 1
        read = decode(line)
        if read.input_length < 1 or read.output_length < 1:
            raise ValueError(
                f"input_length {read.input_length} and output_length {read.output_length} "
                "must be 1 or more"
            )
        block_tokens = options.block_tokens or _block_tokens(read)
        ids = _prompt_blocks(read, block_tokens)
        prompt = block_prompt(ids, read.input_length, block_tokens, keys, row)
        return Timed(_at_s(read), prompt, read.output_length)

    return parse


def _prompt_blocks(line: _Line, block_tokens: int) -> list[int | str]:
    if line.blocks is None:
        return line.hash_ids or []
    # `blocks` goes on over the answer; what it shares with later prompts is not asked here.
    return line.blocks[: -(-line.input_length // block_tokens)]


def _block_tokens(line: _Line) -> int:
    if line.chat_id is not None or line.blocks is not None:
        return BAILIAN_BLOCK_TOKENS
    return MOONCAKE_BLOCK_TOKENS


def _at_s(line: _Line) -> float:
    if line.t is not None:
        return line.t
    if line.timestamp is None:
        raise ValueError("there is no `timestamp`")
    return line.timestamp if line.chat_id is not None else line.timestamp / 1000
