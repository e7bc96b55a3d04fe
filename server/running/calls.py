"""Apps that other apps call as tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from server.running.runs import Discard, Running
from server.workflow.app import App
from server.workflow.engine import Stop
from server.workflow.events import Event, InputRequired
from server.workflow.inputs import InputError
from server.workflow.node import NodeRun
from server.workflow.reading import GraphError
from server.workflow.services import ToolFailed
from server.workflow.values import Value

__all__ = ["AppCalls", "Lookup"]

Lookup: TypeAlias = Callable[[str], App | None]
"""Finds an app by its id or name."""


class AppCalls:
    """`server.tools` runs workflows through it. Made before `Running`, which it then is given."""

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup
        self.running: Running | None = None

    def app(self, id: str) -> App | None:
        """The app of this id or name; None if there is none."""
        return None if self._lookup is None else self._lookup(id)

    async def run(self, app_id: str, inputs: dict[str, Value], run: NodeRun) -> dict[str, Value]:
        """Run it one level deeper, for the same user, in the same tier, by the same deadline.
        Nobody watches it; the caller's cancellation ends it. Its tokens count for the caller,
        too. Raises `ToolFailed`."""
        app = self.app(app_id)
        if app is None or self.running is None:
            raise ToolFailed(f"there is no app {app_id!r} here", "ToolInvokeError")
        above, most = run.run, self.running.limits.depth
        if above.depth >= most:
            raise ToolFailed(f"Max workflow call depth {most} reached.", "ToolInvokeError")
        # A tool of any kind may be bound to a workflow, so its node may stand in a slot of its own.
        run.leave_slot()
        stop = Stop()
        try:
            result = await self.running.run_app(
                app,
                inputs,
                query=above.query,
                user=above.user,
                tier=above.tier,
                deadline=above.deadline,
                depth=above.depth + 1,
                sink=_Unwatched(stop),
                stop=stop,
            )
        except (InputError, GraphError) as error:
            raise ToolFailed(f"{app.name}: {error}", "ToolInvokeError") from error
        run.spend(result.usage)
        if result.status not in ("succeeded", "partial-succeeded"):
            raise ToolFailed(f"{app.name}: {result.error or result.status}", "ToolInvokeError")
        return result.outputs


class _Unwatched(Discard):
    """Nobody is shown what such a run says. So nobody could answer what it asks."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def put(self, event: Event) -> None:
        if isinstance(event, InputRequired):
            self._stop(f"{event.title} asks a person, which an app that is called as a tool cannot")
