"""What agents tell their models, in our own words. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.workflow.agents.toolset import Toolset
from server.workflow.services import Message

__all__ = ["as_prompt", "instructed", "last_words", "observed", "react_system"]


def instructed(instruction: str, context: str) -> str:
    """The system message: the author's instruction, and what was looked up for the question."""
    if not context:
        return instruction
    found = (
        "Passages that were looked up for this conversation stand between <context> and "
        "</context>. Rely on them where they bear on the question; where they do not hold the "
        "answer, say so rather than guess. Write in the language of the question.\n"
        f"<context>\n{context}\n</context>"
    )
    return f"{found}\n\n{instruction}" if instruction else found


_REACT = """\
You solve the user's request step by step. These tools are at your disposal, one JSON object a line:

{tools}

Write every reply in one of two forms.

To use a tool, write what you are about to do and why, then one action, and stop there:

Thought: <your reasoning>
Action:
{{"action": "<name of a tool>", "action_input": {{<its arguments>}}}}

The result is given to you in the next message, after the word Observation. Never write an \
observation yourself. If a tool fails, mend its arguments or go another way.

Once you can answer, or if no tool can help, write:

Thought: <your reasoning>
Final Answer: <the whole answer for the user, in the user's language>\
"""

_NO_TOOLS = """\
You answer the user's request. Think first, then answer, in this form:

Thought: <your reasoning>
Final Answer: <the whole answer for the user, in the user's language>\
"""


def react_system(tools: Toolset, instruction: str, context: str) -> str:
    """The system message of an agent that thinks and acts in plain text."""
    form = _REACT.format(tools="\n".join(map(_line, tools))) if len(tools) else _NO_TOOLS
    told = instructed(instruction, context)
    return f"{told}\n\n{form}" if told else form


def _line(tool: Any) -> str:
    found = {"name": tool.name, "description": tool.description, "arguments": tool.schema}
    return json.dumps(found, ensure_ascii=False)


def observed(observations: Sequence[tuple[str, str]]) -> str:
    """What the tools gave, as the next message to the model."""
    if len(observations) == 1:
        return f"Observation: {observations[0][1]}"
    return "\n".join(f"Observation ({name}): {text}" for name, text in observations)


def last_words() -> str:
    """Added to the last message when no more tools may be called."""
    return "No further tool can be called. Give your Final Answer now from what you have found."


def as_prompt(messages: Sequence[Message]) -> str:
    """The same as one text, for models that only complete texts."""
    labels = {"system": "", "user": "User: ", "assistant": "Assistant: "}
    lines = [f"{labels.get(message['role'], '')}{_text(message)}" for message in messages]
    return "\n\n".join([*lines, "Assistant:"])


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if part.get("type") == "text")
