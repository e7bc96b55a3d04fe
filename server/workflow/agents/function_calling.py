"""An agent whose model asks for tools by the API's own means."""

from __future__ import annotations

from typing import Any

import msgspec

from server.workflow.agents.prompts import instructed
from server.workflow.agents.rounds import answered, carried_out, count, make_room
from server.workflow.agents.work import Findings, Hush, Voice, Work, ask
from server.workflow.node import NodeRun
from server.workflow.reasoning import split_reasoning
from server.workflow.services import ChatCall, Completion, Message, ToolCall

__all__ = ["call_functions"]


async def call_functions(work: Work) -> Findings:
    """Round by round, until the model answers without a call. Text is streamed as it comes.
    Raises `ModelFailed`."""
    findings = Findings()
    messages = _opening(work)
    definitions = work.tools.definitions()
    number = 0
    while True:
        number += 1
        last = number > work.rounds or not definitions
        calls = await _round(work, findings, messages, [] if last else definitions, number)
        if not calls:
            return findings


async def _round(
    work: Work,
    findings: Findings,
    messages: list[Message],
    definitions: list[dict[str, Any]],
    number: int,
) -> bool:
    """One round; whether there is another. It adds what was said to `messages`."""
    step = work.steps.round(number)
    work.voice.begin_round()
    told = [place for place, message in enumerate(messages) if message["role"] == "tool"]
    make_room(work, messages, told)
    receiver = _Aloud(work.run, work.voice)
    call = ChatCall(
        model=work.model, messages=list(messages), parameters=work.parameters, tools=definitions
    )
    completion, thought = await ask(work, call, receiver, step)
    receiver.close(completion)
    count(findings, completion)
    calls = _identified(completion.tool_calls, number) if definitions else []
    thought.done(completion.usage, **_thought(completion, calls))
    if not calls:
        answered(step, completion.text, completion.usage)
        return False
    outcomes = await carried_out(work, findings, step, completion.text, calls, completion.usage)
    messages.append(_said(split_reasoning(completion.text)[0], calls))
    messages += [
        {
            "role": "tool",
            "tool_call_id": outcome.call.id,
            "name": outcome.call.name,
            "content": outcome.observation,
        }
        for outcome in outcomes
    ]
    return True


def _opening(work: Work) -> list[Message]:
    system = instructed(work.instruction, work.context)
    opening: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*opening, *work.history, work.question]


class _Aloud(Hush):
    """Streams the text as it comes."""

    def __init__(self, run: NodeRun, voice: Voice) -> None:
        super().__init__(run)
        self._voice = voice
        self._heard = False

    def text(self, piece: str) -> None:
        self._heard = True
        self._voice.say(piece)

    def close(self, completion: Completion | None = None) -> None:
        """Say what came whole, from a model that does not stream."""
        super().close()
        if completion is not None and not self._heard:
            self._voice.say(completion.text)


def _identified(calls: tuple[ToolCall, ...], number: int) -> list[ToolCall]:
    """Each with an id of its own: some engines send none, or the same one twice."""
    seen: set[str] = set()
    found = []
    for place, call in enumerate(calls):
        if not call.id or call.id in seen:
            call = msgspec.structs.replace(call, id=f"call_{number}_{place}")
        seen.add(call.id)
        found.append(call)
    return found


def _said(text: str, calls: list[ToolCall]) -> Message:
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in calls
        ],
    }


def _thought(completion: Completion, calls: list[ToolCall]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "output": completion.text,
        "tool_name": ";".join(call.name for call in calls),
        "tool_input": [{"name": call.name, "args": call.arguments} for call in calls],
    }
    return found | ({"reasoning": completion.reasoning} if completion.reasoning else {})
