"""audio: speech from text and text from speech, by any service with OpenAI's endpoints."""

from __future__ import annotations

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.tools.native.requests import ask_json, send
from server.workflow.multipart import FormFile, boundary, encoded
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["tools"]

MOST_AUDIO_BYTES = 30 * 1024 * 1024


def tools() -> list[Tool]:
    return [
        NativeTool(
            "audio",
            "tts",
            "Speaks a text.",
            arguments({"text": "The text to speak."}, ("text",)),
            _speak,
        ),
        NativeTool(
            "audio",
            "asr",
            "Writes down what is said in an audio file.",
            arguments({"audio_file": ("object", "The audio file.")}, ("audio_file",)),
            _listen,
        ),
    ]


async def _speak(given: Given) -> ToolOutput:
    chosen = given.text("model", "#tts-1")
    body = {
        "model": _model(chosen),
        "input": given.text("text"),
        "voice": given.text(f"voice#{chosen}", given.text("voice", "alloy")),
        "response_format": given.text("response_format", "mp3"),
    }
    response = await send(
        given,
        "POST",
        f"{_base(given)}/audio/speech",
        headers=_headers(given),
        body=body,
        read_s=300.0,
        most_bytes=MOST_AUDIO_BYTES,
    )
    kind = dict(response.headers).get("content-type", "audio/mpeg").split(";")[0]
    name = f"speech.{body['response_format']}"
    file = given.services.files.keep(response.content, name=name, mime_type=kind)
    return ToolOutput(text="Audio generated successfully", files=[file])


async def _listen(given: Given) -> ToolOutput:
    file = given.files("audio_file")[0]
    if file.type not in ("audio", "video"):
        raise given.wrong("not a valid audio file")
    content = await given.services.files.read(file, MOST_AUDIO_BYTES)
    name = file.name or f"audio{file.extension or '.mp3'}"
    upload = FormFile("file", name, file.mime_type or "application/octet-stream", content)
    mark = boundary()
    body = encoded({"model": _model(given.text("model", "#whisper-1"))}, [upload], mark)
    found = await ask_json(
        given,
        "POST",
        f"{_base(given)}/audio/transcriptions",
        headers=[*_headers(given), ("content-type", f"multipart/form-data; boundary={mark}")],
        content=body,
        read_s=300.0,
    )
    if not isinstance(found.get("text"), str):
        raise ToolFailed("audio: the service gave no text", "ToolInvokeError")
    return ToolOutput(text=found["text"])


def _model(chosen: str) -> str:
    """Exports say "provider#model"."""
    return chosen.rsplit("#", 1)[-1]


def _base(given: Given) -> str:
    base = given.base_url("", "openai_base_url")
    if not base:
        raise given.unbound("base_url")
    return base


def _headers(given: Given) -> list[tuple[str, str]]:
    key = given.value("api_key", given.value("openai_api_key"))
    return [("authorization", f"Bearer {key}")] if key else []
