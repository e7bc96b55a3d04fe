"""How an HTTP request reads in a node's log. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, quote_plus, urlsplit

from server.workflow.node import NodeRun
from server.workflow.services import WebRequest

__all__ = ["masked", "request_log"]


def request_log(
    request: WebRequest, headers: Mapping[str, str], secret: str | None, body: str
) -> str:
    """The request as it would stand on the wire, for people. The key's header is masked."""
    parts = urlsplit(request.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {host}"]
    for name, value in headers.items():
        shown = "*" * len(value) if name.lower() == secret else value
        lines.append(f"{name}: {shown}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body])


def masked(log: str, run: NodeRun) -> str:
    """The log without the values of secret environment variables, wherever they stand."""
    for spec in run.run.app.environment:
        value = run.variables.get(("env", spec.name)) if spec.value_type == "secret" else None
        if isinstance(value, str) and value:
            for form in _spellings(value):
                log = log.replace(form, "*" * 12)
    return log


def _spellings(secret: str) -> set[str]:
    """How a value stands in a URL, in a form and in JSON."""
    in_json = json.dumps(secret)[1:-1]
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), in_json}
