"""trigger-webhook, trigger-schedule, trigger-plugin: runs that begin without a user."""

from __future__ import annotations

from typing import ClassVar, Final

from server.workflow import schedules
from server.workflow.node import Inline, NodeError, NodeRun, Result
from server.workflow.reading import Reader
from server.workflow.values import Value
from server.workflow.webhooks import WebhookError, WebhookFields

__all__ = ["REQUEST", "Plugin", "Schedule", "Webhook"]

REQUEST: Final = "webhook_data"
"""The input that holds a webhook's request: headers, query_params, body, files."""


class Webhook(Inline):
    """Gives out the fields that it declares, and the whole request as `_webhook_raw`."""

    type: ClassVar[str] = "trigger-webhook"

    def read(self, data: Reader) -> None:
        self._fields = WebhookFields(data)

    def evaluate(self, run: NodeRun) -> Result:
        inputs = _given(run.variables.names_of(self.id))
        request = inputs.get(REQUEST)
        if not isinstance(request, dict):
            request = {"headers": inputs, "query_params": inputs, "body": inputs}
        try:
            return Result(outputs=self._fields.values(request), inputs=inputs)
        except WebhookError as error:
            raise NodeError(str(error), inputs=inputs) from None


class Schedule(Inline):
    """Begins a run at a time (`schedules.next_time`); gives out what the run was given."""

    type: ClassVar[str] = "trigger-schedule"

    def read(self, data: Reader) -> None:
        """A schedule that export has emptied can still be run by hand."""
        self.schedule: schedules.Schedule | None
        try:
            self.schedule = schedules.read_schedule(data.data)
        except schedules.ScheduleError:
            self.schedule = None

    def evaluate(self, run: NodeRun) -> Result:
        inputs = run.variables.names_of(self.id)
        return Result(outputs=inputs, inputs=inputs)


class Plugin(Inline):
    """Begins a run when a plugin has an event. There is none here to have one: who runs the app
    gives the event's fields as inputs."""

    type: ClassVar[str] = "trigger-plugin"

    def read(self, data: Reader) -> None:
        self._event = (
            f"{data.text('plugin_id') or data.text('provider_id')}:{data.text('event_name')}"
        )

    def evaluate(self, run: NodeRun) -> Result:
        inputs = run.variables.names_of(self.id)
        if not _given(inputs):
            raise NodeError(
                f"the trigger {self._event!r} is not bound: give the event's fields as inputs",
                "MissingBinding",
            )
        return Result(outputs=inputs, inputs=inputs)


def _given(named: dict[str, Value]) -> dict[str, Value]:
    """The inputs alone, without the system's variables that the engine puts beside them."""
    return {name: value for name, value in named.items() if not name.startswith("sys.")}
