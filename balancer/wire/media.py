"""Images, sounds and files inside a JSON body: megabytes that are known by a digest instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["MEDIA_TOKENS", "stand_in", "without_media"]

MEDIA_TOKENS: Final = 1024
"""Nominal tokens of anything that is not text. What a model makes of an image depends on the model
and on its size, which is not read here: some 300 to 2,700 tokens are usual, up to a full screen.
"""

_LONG: Final = 65_536
"""Bytes of a string that is taken out before the body is decoded. Decoding takes 0.6 ms a MiB,
looking for the quote at its end 0.04."""
_KEY_BYTES: Final = 64
_MEDIA_KEY: Final = re.compile(
    rb'"(?:url|data|image|image_url|audio|audio_url|video|video_url|file|file_data|b64_json)"'
    rb'\s*:\s*"\Z'
)
_BACKSLASH: Final = 0x5C
_SAMPLES: Final = 16
_SAMPLE_BYTES: Final = 1024


def without_media(body: bytes) -> bytes:
    """`body` with a digest for each string of media that is longer than 64 KiB.

    A string that long has a byte at one of the places that are looked at, 64 KiB apart, so the
    bytes between are not walked.
    """
    pieces: list[bytes] = []
    done = 0
    for start, end in _long_strings(body):
        if _MEDIA_KEY.search(body, max(done, start - _KEY_BYTES), start):
            digest = hash(_sampled(body, start, end))
            pieces += (body[done:start], b"%x-%d" % (digest & 0xFFFFFFFFFFFFFFFF, end - start))
            done = end
    return b"".join((*pieces, body[done:])) if pieces else body


def _long_strings(body: bytes) -> Iterator[tuple[int, int]]:
    """Where more than 64 KiB stand between two quotes."""
    at, done = _LONG, 0
    while at < len(body):
        end = body.find(b'"', at)
        if end < 0:
            return
        start = body.rfind(b'"', done, at) + 1
        # A backslash: the string goes on, and so it is a text.
        if start and end - start > _LONG and body[end - 1] != _BACKSLASH:
            yield start, end
        at, done = end + _LONG, end


def _sampled(body: bytes, start: int, end: int) -> bytes:
    """Enough of a long string to know it by: both ends, and places between.

    Media is compressed: what differs anywhere differs from there on. Its length goes in as well.
    """
    step = (end - start - _SAMPLE_BYTES) // (_SAMPLES - 1)
    places = range(start, end - _SAMPLE_BYTES + 1, step)
    samples = [body[place : place + _SAMPLE_BYTES] for place in places]
    return b"".join((*samples, body[end - _SAMPLE_BYTES : end], b"%d" % (end - start)))


def stand_in(media: bytes) -> bytes:
    """What stands for `media` in a rendered prompt: as long as its nominal tokens, and its own."""
    digest = hash(media).to_bytes(8, "little", signed=True)
    return digest * (MEDIA_TOKENS * 4 // len(digest))
