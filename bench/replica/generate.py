"""Chat and completions: from a request to jobs, and from those to an answer."""

from __future__ import annotations

import msgspec
import trio

from bench.replica import replies
from bench.replica.answer import Answer, Limits, write
from bench.replica.asgi import Send, send_head, send_whole
from bench.replica.blocks import Blocks
from bench.replica.core import Core, Job, Run, running, wait_for_all
from bench.replica.requests import (
    MAX_PROMPTS,
    ChatRequest,
    CompletionRequest,
    GenerateRequest,
    chat_blocks,
    check_generate,
    check_max_tokens,
    prompt_blocks,
    prompts,
)
from bench.replica.settings import ReplicaSettings

__all__ = ["Plan", "plan_chat", "plan_completion", "serve"]

COMPLETION_MAX_TOKENS = 16
"""What vLLM makes of a completion request that names no `max_tokens`."""


class Planned(msgspec.Struct, frozen=True):
    """One answer to give: its text, and the job that takes the time."""

    answer: Answer
    job: Job


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A request that can be served, and all that serving it takes."""

    identity: replies.Identity
    answers: list[Planned]
    chat: bool
    stream: bool
    include_usage: bool
    tokens_per_chunk: int

    @property
    def jobs(self) -> list[Job]:
        """One for each answer."""
        return [planned.job for planned in self.answers]


async def plan_chat(
    request: ChatRequest, settings: ReplicaSettings, identity: replies.Identity
) -> Plan:
    """Raises RequestError (400) if the request cannot be served."""
    check_generate(request)
    given = request.max_completion_tokens
    param = "max_tokens" if given is None else "max_completion_tokens"
    max_tokens = request.max_tokens if given is None else given
    context = settings.context_tokens
    check_max_tokens(max_tokens, context, param)
    blocks = await chat_blocks(request.messages, max_tokens or 1, context)
    said = [message for message in request.messages if message.role == "user"]
    words = said[-1].text if said else ""
    answers = [await _planned(request, settings, blocks, words, max_tokens)]
    return _plan(request, settings, identity, answers, chat=True)


async def plan_completion(
    request: CompletionRequest, settings: ReplicaSettings, identity: replies.Identity
) -> Plan:
    """Raises RequestError (400) if the request cannot be served."""
    check_generate(request)
    max_tokens = COMPLETION_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    check_max_tokens(max_tokens, settings.context_tokens, "max_tokens")
    answers = []
    for prompt in prompts(request.prompt, MAX_PROMPTS, "prompt"):
        blocks = await prompt_blocks(prompt, max_tokens, settings.context_tokens)
        words = prompt if isinstance(prompt, str) else ""
        answers.append(await _planned(request, settings, blocks, words, max_tokens))
    return _plan(request, settings, identity, answers, chat=False)


def _plan(
    request: GenerateRequest,
    settings: ReplicaSettings,
    identity: replies.Identity,
    answers: list[Planned],
    *,
    chat: bool,
) -> Plan:
    return Plan(
        identity=identity,
        answers=answers,
        chat=chat,
        stream=bool(request.stream),
        include_usage=request.include_usage,
        tokens_per_chunk=settings.tokens_per_chunk,
    )


async def _planned(
    request: GenerateRequest,
    settings: ReplicaSettings,
    blocks: Blocks,
    words: str,
    max_tokens: int | None,
) -> Planned:
    prompt_tokens, prompt = max(1, blocks.tokens), blocks.whole()
    limits = Limits(
        max_tokens=max_tokens,
        room=settings.context_tokens - prompt_tokens,
        ignore_eos=request.ignore_eos,
        stops=request.stops,
        include_stop=request.include_stop_str_in_output,
    )
    answer = await write(settings, words, prompt_tokens, request.seed or 0, limits)
    await blocks.add_pieces(answer.pieces)
    job = Job(
        prompt_tokens=prompt_tokens,
        tokens=len(answer.pieces),
        reason=answer.reason,
        prompt=prompt,
        answer=blocks.whole()[len(prompt) :],
    )
    return Planned(answer, job)


async def serve(plan: Plan, core: Core, send: Send) -> None:
    """Runs the plan and sends its answer; if it is cancelled, its jobs are aborted at once.

    Raises EngineDiedError.
    """
    with running(core, plan.jobs) as runs:
        await (_stream if plan.stream else _whole)(plan, runs, send)


class _StreamWriter:
    """Writes what answers release as events, one `send` each."""

    def __init__(self, plan: Plan, send: Send) -> None:
        kind = "chat.completion.chunk" if plan.chat else "text_completion"
        self._plan = plan
        self._frames = replies.ChunkFrames(plan.identity, kind, len(plan.answers))
        self._role_due = plan.chat
        self._send = send
        # With several answers, one event is not to be begun within another.
        self._turn = trio.Lock() if len(plan.answers) > 1 else None

    async def answer(self, index: int, run: Run) -> None:
        """All of one answer, chunk by chunk."""
        answer = self._plan.answers[index].answer
        released, sent = answer.released, 0
        while True:
            wanted = sent + self._plan.tokens_per_chunk if sent else 1
            made = await run.wait(min(wanted, len(released)))
            text = released[sent] if made == sent + 1 else "".join(released[sent:made])
            sent = made
            if self._role_due:
                # Known at once, but an engine says nothing before its first token is due.
                self._role_due = False
                await self._write(self._frames.role())
            if sent == len(released):
                break
            await self._write(self._frames.text(index, text))
        more = self._plan.include_usage
        await self._write(self._frames.last(index, text, answer, more=more))

    async def end(self, usage: replies.Usage) -> None:
        if self._plan.include_usage:
            await self._write(self._frames.usage(usage))
        await self._write(replies.DONE, more=False)

    async def _write(self, body: bytes, *, more: bool = True) -> None:
        event = {"type": "http.response.body", "body": body, "more_body": more}
        if self._turn is None:
            await self._send(event)
            return
        async with self._turn:
            await self._send(event)


async def _stream(plan: Plan, runs: list[Run], send: Send) -> None:
    writer = _StreamWriter(plan, send)
    await send_head(send, 200, b"text/event-stream; charset=utf-8")
    if len(runs) == 1:
        await writer.answer(0, runs[0])
    else:
        async with trio.open_nursery() as nursery:
            for index, run in enumerate(runs):
                nursery.start_soon(writer.answer, index, run)
    await writer.end(_usage(plan, runs))


async def _whole(plan: Plan, runs: list[Run], send: Send) -> None:
    await wait_for_all(runs, plan.jobs)
    answers = [planned.answer for planned in plan.answers]
    document = replies.chat_document if plan.chat else replies.completion_document
    await send_whole(send, document(plan.identity, answers, _usage(plan, runs)))


def _usage(plan: Plan, runs: list[Run]) -> replies.Usage:
    cached = [run.cached_tokens for run in runs]
    return replies.Usage(
        prompt_tokens=sum(planned.job.prompt_tokens for planned in plan.answers),
        completion_tokens=sum(run.made for run in runs),
        cached_tokens=None if None in cached else sum(each or 0 for each in cached),
    )
