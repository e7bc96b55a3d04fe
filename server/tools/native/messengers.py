"""wecom and slack: messages to a group, by its webhook."""

from __future__ import annotations

import uuid

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import send
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["slack_tools", "wecom_tools"]


def wecom_tools() -> list[Tool]:
    schema = arguments({"content": "The message."}, ("content",))
    told = "Sends a message to a group in WeCom."
    return [NativeTool("wecom", "wecom_group_bot", told, schema, _wecom)]


async def _wecom(given: Given) -> ToolOutput:
    key = given.credential("hook_key")
    try:
        uuid.UUID(key)
    except ValueError:
        raise given.wrong("'hook_key' is no UUID") from None
    kind = given.text("message_type", "text")
    if kind not in ("text", "markdown", "markdown_v2"):
        kind = "text"
    base = given.base_url("https://qyapi.weixin.qq.com")
    body = {"msgtype": kind, kind: {"content": given.text("content")}}
    await send(given, "POST", f"{base}/cgi-bin/webhook/send", query={"key": key}, body=body)
    return ToolOutput(text="Text message sent successfully")


def slack_tools() -> list[Tool]:
    schema = arguments({"content": "The message."}, ("content",))
    told = "Sends a message to a channel in Slack."
    return [NativeTool("slack", "slack_webhook", told, schema, _slack)]


async def _slack(given: Given) -> ToolOutput:
    url = given.credential("webhook_url")
    if not url.startswith("https://hooks.slack.com/"):
        raise ToolFailed(
            "slack: webhook_url must begin with https://hooks.slack.com/: bind "
            "tool:slack.webhook_url",
            "ToolParameterError",
        )
    await send(given, "POST", url, body={"text": given.text("content")})
    return ToolOutput(text="Text message was sent successfully")
