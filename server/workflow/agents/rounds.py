"""What both kinds of agent do in a round: carry out its calls and tell the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.workflow.agents.calls import Outcome, call_tools, labels_of
from server.workflow.agents.steps import Step
from server.workflow.agents.work import Findings, Work
from server.workflow.large_json import read_json
from server.workflow.services import Completion, Message, ToolCall, Usage
from server.workflow.tokens import estimate_messages
from server.workflow.values import plain

__all__ = ["answered", "carried_out", "count", "make_room"]

_LEFT_OUT = "(This result was left out: the conversation is too long.)"
_SHARE = 0.85
"""Of what the model reads; its answer needs the rest."""


def count(findings: Findings, completion: Completion) -> None:
    """Add what a call of the model used."""
    findings.usage = findings.usage + completion.usage
    findings.latency_s += completion.elapsed_s


def make_room(work: Work, messages: list[Message], results: Sequence[int]) -> None:
    """Leave the oldest results of tools out, until the conversation fits into what the model reads.
    `results` are their places in `messages`; the latest is always kept."""
    facts = work.run.run.services.models.facts(work.model, work.run)
    if not facts.context_tokens:
        return
    most = facts.context_tokens * _SHARE / facts.tokens_per_estimate
    tokens = estimate_messages(messages)
    for place in results[:-1]:
        if tokens <= most:
            return
        shorter = messages[place] | {"content": _LEFT_OUT}
        tokens += estimate_messages([shorter]) - estimate_messages([messages[place]])
        messages[place] = shorter


async def carried_out(
    work: Work,
    findings: Findings,
    round_step: Step,
    thought: str,
    calls: Sequence[ToolCall],
    usage: Usage,
) -> list[Outcome]:
    """Call the tools that a round asks for, and tell its log before and after."""
    tools = {
        "thought": thought,
        "tool": ";".join(call.name for call in calls),
        "tool_labels": labels_of(calls, work.tools),
        "tool_input": _named([(call.name, _given(call.arguments)) for call in calls]),
    }
    round_step.update(**tools)
    outcomes = await call_tools(calls, work.tools, work.run, round_step)
    made = [file for outcome in outcomes for file in outcome.files]
    findings.files = findings.files + made
    round_step.done(
        usage,
        observation=_named([(outcome.call.name, outcome.observation) for outcome in outcomes]),
        message_files=[plain(file) for file in made],
        output=_output(thought, outcomes),
    )
    return outcomes


def answered(round_step: Step, thought: str, usage: Usage) -> None:
    """Tell the log that a round was the last: it answers."""
    round_step.done(
        usage,
        thought=thought,
        tool="",
        tool_labels={},
        tool_input="",
        observation="",
        message_files=[],
        output=_output(thought, []),
    )


def _output(thought: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "llm_response": thought,
        "tool_responses": [
            {
                "tool_call_id": outcome.call.id,
                "tool_call_name": outcome.name,
                "tool_response": outcome.observation,
            }
            for outcome in outcomes
        ],
    }


def _given(arguments: str) -> Any:
    """The arguments as JSON, or as they were written."""
    try:
        return read_json(arguments)
    except ValueError:
        return arguments


def _named(items: Sequence[tuple[str, Any]]) -> str:
    """JSON by tool; a tool that was called several times has a list."""
    found: dict[str, Any] = {}
    several: set[str] = set()
    for name, value in items:
        if name not in found:
            found[name] = value
        elif name in several:
            found[name].append(value)
        else:
            several.add(name)
            found[name] = [found[name], value]
    return json.dumps(found, ensure_ascii=False, default=str)
