"""Waiting until a gateway passes a request on."""

from __future__ import annotations

import http.client
import json
import time
from typing import Final

from bench.relay.children import Child, ChildFailed

__all__ = ["await_answer"]

_READY_S: Final = 60.0
_BETWEEN_S: Final = 0.1


def await_answer(
    child: Child,
    port: int,
    model: str,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    limit_s: float = _READY_S,
) -> None:
    """Wait for a whole chat answer: a router may listen before it knows its replicas.

    Raises ChildFailed if the process ends, or none comes in time.
    """
    end_s = time.perf_counter() + limit_s
    last = "no answer"
    while time.perf_counter() < end_s:
        child.check()
        last = _try_chat(port, model, dict(headers))
        if last == "200":
            return
        time.sleep(_BETWEEN_S)
    raise ChildFailed(f"{child.name} was not ready in {limit_s:g} s ({last}): {child.tail()}")


def _try_chat(port: int, model: str, headers: dict[str, str]) -> str:
    """The status of one chat request, or the error in words."""
    body = {"model": model, "messages": [{"role": "user", "content": "Ready?"}], "max_tokens": 1}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {**headers, "content-type": "application/json", "connection": "close"},
        )
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
