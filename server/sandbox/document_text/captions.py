"""Subtitles: what is said, without times and numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from server.sandbox.document_text.encoding import decoded

__all__ = ["srt_text", "vtt_text"]

_VOICE: Final = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
_TAG: Final = re.compile(r"<[^>]*>")


def vtt_text(data: bytes) -> str:
    """WebVTT: `speaker "text"` lines; what one speaker says in a row is one line."""
    said = [_voice(cue) for cue in _cues(decoded(data))]
    lines = []
    for voice, cues in groupby(said, key=lambda cue: cue[0]):
        texts = [text for _, text in cues]
        for joined in [" ".join(texts)] if voice else texts:
            lines.append(f'{voice} "{joined}"')
    return "\n".join(lines)


def srt_text(data: bytes) -> str:
    """SubRip: a line for each caption."""
    return "\n".join(_plain(cue) for cue in _cues(decoded(data)))


def _cues(text: str) -> Iterator[str]:
    """What stands below each line of times, up to an empty line."""
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip("\n").split("\n")
        for at, line in enumerate(lines):
            if "-->" in line:
                yield "\n".join(lines[at + 1 :])
                break


def _voice(cue: str) -> tuple[str, str]:
    found = _VOICE.search(cue)
    return (found.group(1).strip() if found else ""), _plain(cue)


def _plain(cue: str) -> str:
    return html.unescape(_TAG.sub("", cue)).strip()
