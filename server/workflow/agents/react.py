"""An agent that thinks and acts in plain text, for models without calls of their own (ReAct)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.workflow.agents.prompts import as_prompt, last_words, observed, react_system
from server.workflow.agents.react_text import Action, Broken, ReactText, Reading, action_of
from server.workflow.agents.rounds import answered, carried_out, count, make_room
from server.workflow.agents.work import Findings, Hush, Voice, Work, ask
from server.workflow.json_text import object_in
from server.workflow.node import NodeRun
from server.workflow.services import ChatCall, Completion, Message, ToolCall

__all__ = ["think_and_act"]

_STOP = "Observation:"


async def think_and_act(work: Work) -> Findings:
    """Round by round, until the model answers. Only the final answer is streamed; thoughts and
    actions are told to the log. Raises `ModelFailed`."""
    findings = Findings()
    system: Message = {
        "role": "system",
        "content": react_system(work.tools, work.instruction, work.context),
    }
    messages = [system, *work.history, work.question]
    number = 0
    while True:
        number += 1
        last = number > work.rounds or not len(work.tools)
        if last and len(work.tools):
            messages.append({"role": "user", "content": last_words()})
        if not await _round(work, findings, messages, number, last=last):
            return findings


async def _round(
    work: Work, findings: Findings, messages: list[Message], number: int, *, last: bool
) -> bool:
    """One round; whether there is another. It adds what was said to `messages`."""
    step = work.steps.round(number)
    work.voice.begin_round()
    make_room(work, messages, _observed(messages))
    receiver = _Listening(work.run, work.voice)
    completion, thought = await ask(work, _call(work, messages), receiver, step)
    reading = receiver.close_with(completion)
    count(findings, completion)
    thought.done(completion.usage, **_thought(reading))
    if last or not reading.actions:
        answered(step, _conclude(work, reading), completion.usage)
        return False
    calls = _calls([await _mended(action) for action in reading.actions], number)
    outcomes = await carried_out(work, findings, step, reading.thought, calls, completion.usage)
    messages.append({"role": "assistant", "content": reading.spoken})
    seen = observed([(outcome.call.name, outcome.observation) for outcome in outcomes])
    messages.append({"role": "user", "content": seen})
    return True


def _observed(messages: Sequence[Message]) -> list[int]:
    """Where results of tools were told."""
    return [
        place
        for place, message in enumerate(messages)
        if message["role"] == "user" and str(message["content"]).startswith("Observation")
    ]


def _call(work: Work, messages: Sequence[Message]) -> ChatCall:
    parameters = dict(work.parameters)
    stop = parameters.get("stop") or []
    parameters["stop"] = [*([stop] if isinstance(stop, str) else stop)[:3], _STOP]
    if work.model.mode == "completion":
        return ChatCall(model=work.model, prompt=as_prompt(messages), parameters=parameters)
    return ChatCall(model=work.model, messages=list(messages), parameters=parameters)


def _conclude(work: Work, reading: Reading) -> str:
    """Say what is not said yet, and return the round's thought."""
    if reading.answer is None:
        work.voice.say(reading.thought or "No answer was found in the rounds allowed.")
    return reading.thought or reading.answer or ""


class _Listening(Hush):
    """Reads along, and says the final answer as it comes."""

    def __init__(self, run: NodeRun, voice: Voice) -> None:
        super().__init__(run)
        self._voice = voice
        self._reader = ReactText()
        self._heard = False

    def text(self, piece: str) -> None:
        self._heard = True
        self._voice.say(self._reader.feed(piece))

    def close_with(self, completion: Completion) -> Reading:
        """The whole reply, read."""
        super().close()
        if not self._heard:
            self._voice.say(self._reader.feed(completion.text))
        rest, reading = self._reader.end()
        self._voice.say(rest)
        return reading


async def _mended(action: Action | Broken) -> Action:
    """With its JSON put right; without a name if it cannot be."""
    if isinstance(action, Action):
        return action
    found = action_of(await object_in(action.written))
    return found or Action("", action.written)


def _calls(actions: Sequence[Action], number: int) -> list[ToolCall]:
    return [
        ToolCall(
            id=f"call_{number}_{place}",
            name=action.name,
            arguments=action.input
            if isinstance(action.input, str)
            else json.dumps(action.input, ensure_ascii=False),
        )
        for place, action in enumerate(actions)
    ]


def _thought(reading: Reading) -> dict[str, Any]:
    if not reading.actions:
        return {"thought": reading.thought, "action": "", "action_input": ""}
    first = reading.actions[0]
    if isinstance(first, Broken):
        return {"thought": reading.thought, "action": "", "action_input": first.written}
    return {"thought": reading.thought, "action": first.name, "action_input": first.input}
