"""The lifespan protocol of ASGI: an app is told that it starts and that it ends."""

from __future__ import annotations

import logging
from typing import Any

import trio

from server.edge.exchange import ASGIApp, Message

__all__ = ["Lifespan", "LifespanFailed"]

log = logging.getLogger("triolet.edge")


class LifespanFailed(RuntimeError):
    """The app said that it cannot start or could not stop cleanly."""


class Lifespan:
    """Runs `app`'s lifespan in `nursery`: `await start()`, serve, `await stop()`.

    An app that does not know the protocol (returns or raises before answering) is served without.
    """

    def __init__(self, app: ASGIApp, state: dict[str, Any] | None = None) -> None:
        self.state: dict[str, Any] = state if state is not None else {}
        """What the app put there for its exchanges, on top of what was there."""
        self._app = app
        # Room for both messages: an app may answer without having read the first.
        self._to_app, self._inbox = trio.open_memory_channel[Message](2)
        self._answer = trio.Event()
        self._answered: Message | None = None
        self._spoke = False
        self._supported = True

    async def start(self, nursery: trio.Nursery) -> None:
        """Raises `LifespanFailed` with the app's own words if it refuses to start."""
        nursery.start_soon(self._run)
        await self._tell("startup")

    async def stop(self, limit_s: float = 10.0) -> None:
        """Tell the app and wait, at most `limit_s`, for it to finish."""
        if not self._supported:
            return
        self._answer, self._answered = trio.Event(), None
        with trio.move_on_after(limit_s, shield=True) as scope:
            await self._tell("shutdown")
        if scope.cancelled_caught:
            log.warning("the app did not finish its shutdown within %g s", limit_s)

    async def _tell(self, what: str) -> None:
        self._to_app.send_nowait({"type": f"lifespan.{what}"})
        await self._answer.wait()
        answer = self._answered
        if answer is not None and answer["type"] == f"lifespan.{what}.failed":
            raise LifespanFailed(f"the app failed at {what}: {answer.get('message', '')}")

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._inbox.receive, self._send)
        except Exception as exc:
            if self._spoke:
                log.exception("the app's lifespan failed")
            else:
                log.debug("the app does not support lifespan: %r", exc)
        finally:
            self._supported = False
            self._answer.set()

    async def _send(self, message: Message) -> None:
        self._answered = message
        self._spoke = True
        self._answer.set()
        await trio.lowlevel.checkpoint()
