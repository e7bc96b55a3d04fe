"""Chat and completions: from a request to sequences, and from those to an answer."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
import trio

from bench.replica import replies
from bench.replica.answer import filled, opening
from bench.replica.asgi import Send, send_head, send_whole
from bench.replica.engine import Engine, Job
from bench.replica.engine import Sequence as Running
from bench.replica.requests import (
    MAX_PROMPTS,
    MESSAGE_TOKENS,
    ChatRequest,
    CompletionRequest,
    GenerateRequest,
    check_generate,
    check_max_tokens,
    count_prompt,
    prompts,
)
from bench.replica.settings import ReplicaSettings

COMPLETION_MAX_TOKENS = 16
"""What vLLM makes of a completion request that names no `max_tokens`."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A request that can be served, and all that serving it takes."""

    identity: replies.Identity
    jobs: list[Job]
    chat: bool
    stream: bool
    include_usage: bool
    tokens_per_chunk: int


def plan_chat(request: ChatRequest, settings: ReplicaSettings, identity: replies.Identity) -> Plan:
    """Raises RequestError (400) if the request cannot be served."""
    check_generate(request)
    given = request.max_completion_tokens
    param = "max_tokens" if given is None else "max_completion_tokens"
    max_tokens = request.max_tokens if given is None else given
    check_max_tokens(max_tokens, settings.max_model_len, param)
    texts = [message.text for message in request.messages]
    prompt_tokens = count_prompt(
        [*texts], MESSAGE_TOKENS * len(texts), max_tokens or 1, settings.max_model_len
    )
    said = (text for text, m in zip(texts, request.messages, strict=True) if m.role == "user")
    words = [*said][-1:]
    job = _job(request, settings, "".join(words), prompt_tokens, max_tokens)
    return _plan(request, settings, identity, [job], chat=True)


def plan_completion(
    request: CompletionRequest, settings: ReplicaSettings, identity: replies.Identity
) -> Plan:
    """Raises RequestError (400) if the request cannot be served."""
    check_generate(request)
    max_tokens = COMPLETION_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    check_max_tokens(max_tokens, settings.max_model_len, "max_tokens")
    jobs = []
    for prompt in prompts(request.prompt, MAX_PROMPTS, "prompt"):
        prompt_tokens = count_prompt([prompt], 0, max_tokens, settings.max_model_len)
        words = prompt if isinstance(prompt, str) else ""
        jobs.append(_job(request, settings, words, prompt_tokens, max_tokens))
    return _plan(request, settings, identity, jobs, chat=False)


def _plan(
    request: GenerateRequest,
    settings: ReplicaSettings,
    identity: replies.Identity,
    jobs: list[Job],
    *,
    chat: bool,
) -> Plan:
    return Plan(
        identity=identity,
        jobs=jobs,
        chat=chat,
        stream=bool(request.stream),
        include_usage=request.include_usage,
        tokens_per_chunk=settings.tokens_per_chunk,
    )


def _job(
    request: GenerateRequest,
    settings: ReplicaSettings,
    words: str,
    prompt_tokens: int,
    max_tokens: int | None,
) -> Job:
    room = settings.max_model_len - prompt_tokens
    beginning = opening(settings, words, prompt_tokens)
    limit, reason = max_tokens or room, "length"
    if max_tokens is None and not request.ignore_eos and len(beginning) <= room:
        limit, reason = len(beginning), "stop"
    return Job(
        prompt_tokens=prompt_tokens,
        pieces=filled(settings, beginning, request.seed or 0),
        limit=limit,
        limit_reason=reason,
        stops=request.stops,
        include_stop=request.include_stop_str_in_output,
    )


async def serve(plan: Plan, engine: Engine, send: Send) -> None:
    """Runs the plan and sends its answer; if it is cancelled, its sequences are aborted at once."""
    with ExitStack() as running:
        sequences = [running.enter_context(engine.sequence(job)) for job in plan.jobs]
        await (_stream if plan.stream else _whole)(plan, sequences, send)


class _StreamWriter:
    """Writes what sequences release as events, one `send` each."""

    def __init__(self, plan: Plan, send: Send) -> None:
        kind = "chat.completion.chunk" if plan.chat else "text_completion"
        self._frames = replies.ChunkFrames(plan.identity, kind, len(plan.jobs))
        self._role_due = plan.chat
        self._usage_follows = plan.include_usage
        self._send = send

    async def text(self, index: int, text: str, running: Running) -> None:
        # The role is known at once, but an engine says nothing before its first token is due.
        if self._role_due:
            self._role_due = False
            await self._write(self._frames.role())
        if running.finish_reason is None:
            await self._write(self._frames.text(index, text))
        else:
            last = self._frames.last(index, text, running, more=self._usage_follows)
            await self._write(last)

    async def end(self, sequences: list[Running]) -> None:
        if self._usage_follows:
            await self._write(self._frames.usage(sequences))
        await self._write(replies.DONE, more=False)

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def _stream(plan: Plan, sequences: list[Running], send: Send) -> None:
    writer = _StreamWriter(plan, send)
    await send_head(send, 200, b"text/event-stream; charset=utf-8")
    live = [*enumerate(sequences)]
    while live:
        for index, sequence in live:
            await writer.text(index, await sequence.next_chunk(plan.tokens_per_chunk), sequence)
        live = [(index, each) for index, each in live if each.finish_reason is None]
    await writer.end(sequences)


async def _whole(plan: Plan, sequences: list[Running], send: Send) -> None:
    texts: list[list[str]] = [[] for _ in sequences]
    async with trio.open_nursery() as nursery:
        for sequence, pieces in zip(sequences, texts, strict=True):
            nursery.start_soon(_collect, sequence, pieces)
    joined = ["".join(pieces) for pieces in texts]
    if plan.chat:
        body = replies.chat_document(plan.identity, joined[0], sequences[0])
    else:
        body = replies.completion_document(plan.identity, joined, sequences)
    await send_whole(send, body)


async def _collect(sequence: Running, pieces: list[str]) -> None:
    while sequence.finish_reason is None:
        pieces.append(await sequence.next_chunk(1))
