"""regex: what a pattern finds in a text. Patterns may take for ever: they run where code runs."""

from __future__ import annotations

from typing import Final

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.workflow.services import Tool, ToolOutput

__all__ = ["tools"]

_SOURCE: Final = """\
import re

def main(content, expression):
    return {"found": [list(one) if isinstance(one, tuple) else one
                      for one in re.findall(expression, content)]}
"""


def tools() -> list[Tool]:
    schema = arguments(
        {"content": "The text to search.", "expression": "A regular expression of Python."},
        ("content", "expression"),
    )
    told = "Finds what a regular expression matches in a text."
    return [NativeTool("regex", "regex_extract", told, schema, _extract)]


async def _extract(given: Given) -> ToolOutput:
    asked = {
        "content": given.text("content").strip(),
        "expression": given.text("expression").strip(),
    }
    result = await given.services.code.run("python3", _SOURCE, asked)
    found = result["found"]
    return ToolOutput(text=str([tuple(one) if isinstance(one, list) else one for one in found]))
