"""start: what the user gave."""

from __future__ import annotations

from typing import ClassVar

from server.workflow.inputs import InputError, SchemaCheck
from server.workflow.node import Inline, NodeError, NodeRun, Result
from server.workflow.reading import Reader

__all__ = ["Start"]


class Start(Inline):
    """Gives out the inputs, which the engine has put under its id, checked by `inputs.checked`."""

    type: ClassVar[str] = "start"

    def read(self, data: Reader) -> None:
        self._schemas = {
            each.text("variable"): SchemaCheck(each)
            for each in data.tables("variables")
            if each.text("type") == "json_object" and _is_given(each.value("json_schema"))
        }

    def evaluate(self, run: NodeRun) -> Result:
        inputs = run.variables.names_of(self.id)
        for name, check in self._schemas.items():
            if inputs.get(name):
                try:
                    check(name, inputs[name])
                except InputError as error:
                    raise NodeError(error.message, "ValueError", inputs=inputs) from None
        return Result(outputs=inputs, inputs=inputs)


def _is_given(schema: object) -> bool:
    return bool(schema.strip() if isinstance(schema, str) else schema)
