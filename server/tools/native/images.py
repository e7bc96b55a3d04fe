"""dalle and openai: images by any service with OpenAI's endpoint for them."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json, send
from server.workflow.services import Tool, ToolFailed, ToolOutput
from server.workflow.values import File

__all__ = ["dalle_tools", "openai_tools"]

_OPENAI: Final = "https://api.openai.com/v1"
_DALLE3: Final = {"square": "1024x1024", "vertical": "1024x1792", "horizontal": "1792x1024"}
_DALLE2: Final = {"small": "256x256", "medium": "512x512", "large": "1024x1024"}
_MOST_BYTES: Final = 64 * 1024 * 1024


def dalle_tools() -> list[Tool]:
    """The provider of its own, and what it brought before it became part of `openai`."""
    return _tools("dalle")


def openai_tools() -> list[Tool]:
    schema = arguments({"prompt": "What the image shows, in detail."}, ("prompt",))
    told = "Draws an image after a description."
    return [*_tools("openai"), NativeTool("openai", "gpt_image_generate", told, schema, _gpt_image)]


def _tools(provider: str) -> list[Tool]:
    schema = arguments({"prompt": "What the image shows, in detail."}, ("prompt",))
    told = "Draws an image after a description."
    return [
        NativeTool(provider, "dalle3", told, schema, _dalle3),
        NativeTool(provider, "dalle2", told, schema, _dalle2),
    ]


async def _dalle3(given: Given) -> ToolOutput:
    body = {
        "model": given.text("model", "dall-e-3"),
        "size": _size(given, _DALLE3, "square"),
        "quality": given.text("quality", "standard"),
        "style": given.text("style", "vivid"),
        "response_format": "b64_json",
    }
    return await _drawn(given, body)


async def _dalle2(given: Given) -> ToolOutput:
    body = {
        "model": given.text("model", "dall-e-2"),
        "size": _size(given, _DALLE2, "large"),
        "response_format": "b64_json",
    }
    return await _drawn(given, body)


async def _gpt_image(given: Given) -> ToolOutput:
    body: dict[str, Any] = {"model": given.text("model", "gpt-image-1")}
    for name in ("size", "quality", "background", "output_format", "moderation"):
        value = given.text(name, "auto")
        if value != "auto":
            body[name] = value
    return await _drawn(given, body)


def _size(given: Given, sizes: dict[str, str], default: str) -> str:
    size = given.text("size", default)
    return sizes.get(size, size)


async def _drawn(given: Given, body: dict[str, Any]) -> ToolOutput:
    base = given.base_url(_OPENAI, "openai_base_url")
    if base.startswith("https://api.openai.com") and not base.endswith("/v1"):
        base += "/v1"
    key = given.value("openai_api_key", given.value("api_key"))
    if not key and base == _OPENAI:
        given.credential("openai_api_key")
    headers = [("authorization", f"Bearer {key}")] if key else []
    if given.value("openai_organization_id"):
        headers.append(("openai-organization", given.text("openai_organization_id")))
    body = {"prompt": given.text("prompt"), "n": given.whole("n", 1, low=1, high=10)} | body
    url = f"{base}/images/generations"
    found = await ask_json(
        given, "POST", url, headers=headers, body=body, read_s=300.0, most_bytes=_MOST_BYTES
    )
    images = [item for item in found.get("data") or [] if isinstance(item, dict)]
    files = [await _file(given, number, item) for number, item in enumerate(images, 1)]
    if not files:
        raise ToolFailed(f"{given.provider} drew no image", "ToolInvokeError")
    return ToolOutput(files=files)


async def _file(given: Given, number: int, item: dict[str, Any]) -> File:
    encoded = item.get("b64_json")
    if isinstance(encoded, str):
        content, kind = _decoded(given, encoded)
    else:
        response = await send(given, "GET", str(item.get("url", "")), most_bytes=_MOST_BYTES)
        content = response.content
        kind = dict(response.headers).get("content-type", "image/png").split(";")[0]
    name = f"image_{number}.{kind.rsplit('/', 1)[-1]}"
    return given.services.files.keep(content, name=name, mime_type=kind)


def _decoded(given: Given, encoded: str) -> tuple[bytes, str]:
    kind = "image/png"
    if encoded.startswith("data:"):
        head, _, encoded = encoded.partition(",")
        kind = head[5:].split(";")[0] or kind
    try:
        return base64.b64decode(encoded, validate=True), kind
    except (binascii.Error, ValueError):
        raise ToolFailed(f"{given.provider} sent a broken image", "ToolInvokeError") from None
