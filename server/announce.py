"""What `triolet serve` says when it is ready."""

from __future__ import annotations

import json
import logging
import os
import shlex
from typing import Final, Literal, TextIO

from balancer.catalog import Catalog
from server import __version__

__all__ = ["Source", "announce", "announcement"]

log = logging.getLogger("triolet")

Source = Literal["configuration", "discovery", "demo"]

_WHENCE: Final[dict[Source, str]] = {
    "configuration": "from the configuration",
    "discovery": "found on this machine",
    "demo": "embedded demo, a simulation: no engine was found here and no [[pool]] is configured",
}


def announce(text: str, out: TextIO) -> None:
    """Print it. That nobody reads our output is no reason not to serve."""
    try:
        print(text, file=out, flush=True)
    except OSError as exc:
        log.warning("nobody reads the announcement (%s):\n%s", exc, text)
        # What is still buffered would be tried again at exit, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def announcement(urls: list[str], catalog: Catalog, source: Source) -> str:
    """The URLs, the models and where they come from, and one command that works."""
    lines = [f"Triolet {__version__} serves {', '.join(urls)}", f"models ({_WHENCE[source]}):"]
    for pool in catalog.pools.values():
        names = ", ".join(replica.name for replica in pool.replicas)
        lines.append(f"  {pool.model}  {names}")
    if catalog.pools:
        lines += ["try:", f"  {_curl(urls[0], next(iter(catalog.pools)))}"]
    return "\n".join(lines)


def _curl(url: str, model: str) -> str:
    # 0.0.0.0 and :: are addresses to listen on, not to call.
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    call = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    insecure = " -k" if url.startswith("https:") else ""
    return (
        f"curl -N{insecure} {url}/v1/chat/completions -H 'content-type: application/json' "
        f"-d {shlex.quote(json.dumps(call))}"
    )
