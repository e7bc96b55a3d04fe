"""What goes wrong at the other end of a connection, and the bound on every wait for it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import trio

__all__ = ["Broken", "Late", "waiting"]


class Broken(Exception):
    """The peer is gone, or speaks no HTTP."""


class Late(Exception):
    """The peer took longer than it may."""


@contextlib.contextmanager
def waiting(within_s: float | None, what: str, broken: type[Exception] = Broken) -> Iterator[None]:
    """Bound a wait on the peer. Raises `Late`, and `broken` if the connection breaks."""
    try:
        with trio.fail_after(float("inf") if within_s is None else within_s):
            yield
    except trio.TooSlowError:
        raise Late(f"waited {within_s:g} s for {what}") from None
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise broken(_reason(error)) from None


def _reason(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {getattr(cause, 'verify_message', '') or cause.reason or cause}"
    return "closed the connection" if cause is None else f"closed the connection ({cause})"
