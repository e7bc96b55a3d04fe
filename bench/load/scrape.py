"""What the target's metrics page says, before and after the measured phase."""

from __future__ import annotations

import re
from math import isfinite
from typing import Final
from urllib.parse import urlsplit

from balancer.wire.connect import Dialer, Origin
from balancer.wire.fetch import FetchFailed, fetch

__all__ = ["read_samples", "scrape"]

_LIMIT_S: Final = 5.0
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*(?:\{.*\})?)\s+(\S+)(?:\s+-?\d+)?\s*")


async def scrape(dialer: Dialer, url: str) -> dict[str, float] | str:
    """The samples of the page at `url`, or what went wrong in a sentence. At most 5 s."""
    try:
        parts = urlsplit(url)
        origin = Origin.parse(f"{parts.scheme}://{parts.netloc}")
        path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
        status, body = await fetch(
            dialer, origin, path, limit_s=_LIMIT_S, headers=[(b"accept", b"text/plain")]
        )
    except (*FetchFailed, ValueError) as exc:
        return f"{url}: {exc}"
    return f"{url}: answered {status}" if status != 200 else read_samples(body)


def read_samples(page: bytes) -> dict[str, float]:
    """Finite values by name with labels, of Prometheus' text format; buckets of histograms and
    lines that are none are left out."""
    samples: dict[str, float] = {}
    for line in page.decode("utf-8", "replace").splitlines():
        found = None if line.startswith("#") else _SAMPLE.fullmatch(line)
        if found is None or "_bucket{" in found[1]:
            continue
        try:
            value = float(found[2])
        except ValueError:
            continue
        if isfinite(value):
            samples[found[1]] = value
    return samples
