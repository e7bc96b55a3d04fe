"""Carrying out what a model asks of its tools: several at once, and no failure ends the agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import trio

from server.workflow.agents.steps import Step
from server.workflow.agents.toolset import Offered, Toolset
from server.workflow.json_text import object_in
from server.workflow.large_json import read_json, values_text
from server.workflow.node import NodeError, NodeRun
from server.workflow.services import ServiceFailed, ToolCall, ToolOutput
from server.workflow.values import File

__all__ = ["MOST_AT_ONCE", "MOST_CALLS", "Outcome", "arguments_of", "call_tools", "labels_of"]

MOST_AT_ONCE: Final = 4
"""Calls of one agent's round that run side by side; the others wait."""

MOST_CALLS: Final = 32
"""Calls of one round that are carried out; those beyond are told back."""

CALL_S: Final = 600.0
"""A tool that takes longer, in seconds, is given up."""

MOST_OBSERVED: Final = 100_000
"""Characters of a tool's result that the model is shown."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one call."""

    call: ToolCall
    name: str
    """The tool's, or what the model called it."""
    arguments: dict[str, Any]
    observation: str
    """What the model is told."""
    files: list[File] = []
    failed: bool = False


async def arguments_of(written: str) -> dict[str, Any] | None:
    """The arguments in a model's JSON, mended if it is broken; None if there is no sense in it.

    An empty text is no arguments. JSON that was encoded twice is decoded twice.
    """
    if not written.strip():
        return {}
    try:
        found = read_json(written)
    except ValueError:
        return await object_in(written) if "{" in written else None
    if isinstance(found, str) and found.lstrip().startswith("{"):
        return await object_in(found)
    return found if isinstance(found, dict) else None


async def call_tools(
    calls: Sequence[ToolCall], tools: Toolset, run: NodeRun, round_step: Step
) -> list[Outcome]:
    """Carry them out side by side; the outcomes are in the order of the calls. Whatever a tool
    cannot do is an observation for the model. Cancelling it cancels them all."""
    outcomes: list[Outcome | None] = [None] * len(calls)
    places = trio.Semaphore(MOST_AT_ONCE)

    async def carry_out(number: int, call: ToolCall) -> None:
        async with places:
            outcomes[number] = await _outcome(call, tools, run, round_step)

    async with trio.open_nursery() as nursery:
        for number, call in enumerate(calls[:MOST_CALLS]):
            nursery.start_soon(carry_out, number, call)
    return [
        outcome or _refused(call, f"not called: at most {MOST_CALLS} calls at once")
        for outcome, call in zip(outcomes, calls, strict=True)
    ]


async def _outcome(call: ToolCall, tools: Toolset, run: NodeRun, round_step: Step) -> Outcome:
    tool = tools.find(call.name)
    step = round_step.step(f"CALL {call.name}", {}, provider=tool.provider if tool else "")
    outcome = await _tried(call, tool, tools, run)
    output = {
        "tool_call_id": call.id,
        "tool_call_name": outcome.name,
        "tool_call_input": outcome.arguments,
        "tool_response": outcome.observation,
    }
    if outcome.failed:
        step.failed(outcome.observation, output=output)
    else:
        step.done(output=output)
    return outcome


async def _tried(call: ToolCall, tool: Offered | None, tools: Toolset, run: NodeRun) -> Outcome:
    if not call.name:
        return _refused(call, "this action is not valid JSON; write it anew, as one JSON object")
    if tool is None:
        known = ", ".join(tools.names) or "none"
        return _refused(call, f"there is no tool named {call.name!r}; there are: {known}")
    arguments = await arguments_of(call.arguments)
    if arguments is None:
        arguments = _only_argument(tool, call.arguments)
    if arguments is None:
        return _refused(
            call, f"the arguments of {tool.name} are not a JSON object; write them anew"
        )
    try:
        async with run.in_slot("io") as part:
            with trio.fail_after(CALL_S):
                output = await tool.tool.call(tool.arguments(arguments), dict(tool.settings), part)
    except (ServiceFailed, NodeError) as failure:
        return _refused(call, failure.message, arguments)
    except trio.TooSlowError:
        return _refused(call, f"{tool.name} gave no result within {CALL_S:g} s", arguments)
    try:
        observation = await _observation(output)
    except ValueError as error:
        return _refused(call, f"{tool.name} gave a result that cannot be shown: {error}", arguments)
    return Outcome(
        call=call,
        name=tool.name,
        arguments=arguments,
        observation=observation,
        files=output.files,
    )


def _only_argument(tool: Offered, written: str) -> dict[str, Any] | None:
    """A bare text is the argument of a tool that needs just one."""
    properties = tool.schema.get("properties", {})
    names = tool.schema.get("required") or list(properties)
    if len(names) != 1 or written.lstrip().startswith(("{", "[")):
        return None
    return {names[0]: written.strip()}


def _refused(call: ToolCall, reason: str, arguments: dict[str, Any] | None = None) -> Outcome:
    return Outcome(
        call=call,
        name=call.name,
        arguments=arguments or {},
        observation=f"Error: {reason}"[:MOST_OBSERVED],
        failed=True,
    )


async def _observation(output: ToolOutput) -> str:
    """Its text, or its JSON if it has none, and a line for each file. Raises ValueError for JSON
    that is too large."""
    parts = []
    if output.text:
        parts.append(output.text)
    elif output.json:
        found = output.json[0] if len(output.json) == 1 else output.json
        parts.append(await values_text(found))
    elif output.variables:
        parts.append(await values_text(output.variables))
    parts += [
        f"A {file.type} was made and is shown to the user: {file.name}" for file in output.files
    ]
    whole = "\n".join(parts) or "The tool gave no result."
    if len(whole) > MOST_OBSERVED:
        return whole[:MOST_OBSERVED] + f"\n(cut: {len(whole)} characters in all)"
    return whole


def labels_of(outcomes: Sequence[ToolCall], tools: Toolset) -> dict[str, dict[str, str]]:
    """How clients name the tools that were called."""
    labels = {}
    for call in outcomes:
        tool = tools.find(call.name)
        label = tool.label if tool else call.name
        labels[call.name] = {"en_US": label, "zh_Hans": label}
    return labels
