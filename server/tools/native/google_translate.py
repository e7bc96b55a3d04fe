"""google_translate: translations by Google's web service."""

from __future__ import annotations

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import json_in, send
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["tools"]


def tools() -> list[Tool]:
    schema = arguments({"content": "The text to translate."}, ("content",))
    told = "Translates a text."
    return [NativeTool("google_translate", "translate", told, schema, _translate)]


async def _translate(given: Given) -> ToolOutput:
    language = given.text("dest", "en")
    if language == "custom":
        language = given.text("custom_dest")
    base = given.base_url("https://translate.googleapis.com")
    query = {"client": "gtx", "sl": "auto", "tl": language, "dt": "t", "q": given.text("content")}
    response = await send(given, "GET", f"{base}/translate_a/single", query=query)
    found = json_in(given, response)
    try:
        return ToolOutput(text="".join(part[0] for part in found[0] if part[0]))
    except (IndexError, KeyError, TypeError):
        raise ToolFailed("google_translate gave no translation", "ToolInvokeError") from None
