"""human-input: asks a person, and goes on along the button that they press."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import trio

from server.workflow.events import InputRequired, InputTaken
from server.workflow.node import NodeRun, Result, Task, Work
from server.workflow.reading import Reader
from server.workflow.services import Answer, Form
from server.workflow.sizes import Room
from server.workflow.template import Template
from server.workflow.values import Value, text_of
from server.workflow.variables import MISSING, Selector, Variables

__all__ = ["TIMEOUT", "HumanInput"]

TIMEOUT: Final = "__timeout"
"""The handle, and the action, when nobody answers in time."""

MOST_WAIT_S: Final = 30 * 86400.0

_FIELD: Final = re.compile(r"\{\{#\$output\.([a-zA-Z_][a-zA-Z0-9_]{0,99})#\}\}")
_UNITS_S: Final = {"hour": 3600.0, "day": 86400.0}


class HumanInput(Task):
    """Handles: the ids of its actions, and "__timeout"."""

    type: ClassVar[str] = "human-input"
    work: ClassVar[Work] = "people"
    branches: ClassVar[bool] = True

    def read(self, data: Reader) -> None:
        self._content = Template(data.text("form_content"))
        self._inputs = tuple(map(_Field, data.tables("inputs")))
        self._actions = [dict(each.data) for each in data.tables("user_actions")]
        unit = data.text("timeout_unit", "hour")
        if unit not in _UNITS_S:
            raise data.wrong("timeout_unit", f"expected hour or day, got {unit!r}"[:200])
        wait_s = data.number("timeout", 36) * _UNITS_S[unit]
        self._wait_s = min(max(wait_s, 1.0), MOST_WAIT_S)

    def reads(self) -> Iterable[Selector]:
        yield from self._content.selectors
        for field in self._inputs:
            yield from field.reads()

    async def execute(self, run: NodeRun) -> Result:
        forms = run.run.services.forms
        form, defaults = self._form(run)
        token = forms.open(form)
        answer: Answer | None = None
        try:
            run.tell(
                InputRequired,
                token=token,
                form=_shown(form, defaults),
                expires_at=form.expires_at,
            )
            with trio.move_on_after(self._wait_s):
                answer = await forms.answer(token)
        finally:
            forms.close(token)
        return self._result(run, token, form, answer)

    def _form(self, run: NodeRun) -> tuple[Form, dict[str, Value]]:
        variables = run.variables
        fields = [field.form(variables) for field in self._inputs]
        form = Form(
            node_id=self.id,
            run_id=run.run.id,
            content=self._content.text(variables),
            inputs=fields,
            actions=self._actions,
            expires_at=time.time() + self._wait_s,
        )
        return form, {field.name: field.default(variables) for field in self._inputs}

    def _result(self, run: NodeRun, token: str, form: Form, answer: Answer | None) -> Result:
        action = TIMEOUT if answer is None else answer.action
        values = {} if answer is None else answer.values
        run.tell(InputTaken, token=token, action=action, values=values)
        pressed = next((each for each in self._actions if each.get("id") == action), {})
        outputs = {
            **values,
            "__action_id": "" if answer is None else action,
            "__action_value": str(pressed.get("title") or ""),
            "__rendered_content": _filled_in(form.content, values),
        }
        return Result(outputs=outputs, inputs=dict(values), handle=action)


class _Field:
    """One input of the form."""

    def __init__(self, data: Reader) -> None:
        self._data = data.data
        self.name = data.text("output_variable_name")
        self._default = _Source(data.table("default"))
        self._options = _Source(data.table("option_source"))

    def reads(self) -> Iterable[Selector]:
        return [source.selector for source in (self._default, self._options) if source.selector]

    def default(self, variables: Variables) -> Value:
        return self._default.value(variables)

    def form(self, variables: Variables) -> dict[str, Any]:
        """As the form has it, with its options looked up."""
        options = self._options.value(variables)
        if not isinstance(options, list):
            return dict(self._data)
        return dict(self._data) | {"options": [text_of(option) for option in options]}


class _Source:
    """A constant, or a variable."""

    def __init__(self, data: Reader) -> None:
        self.selector: Selector = ()
        if data.text("type", "constant") == "variable":
            self.selector = data.selector("selector")
        self._constant = data.value("value")

    def value(self, variables: Variables) -> Value:
        if not self.selector:
            return self._constant
        found = variables.get(self.selector)
        return None if found is MISSING else found


def _shown(form: Form, defaults: Mapping[str, Value]) -> dict[str, Any]:
    return {
        "form_content": form.content,
        "inputs": form.inputs,
        "actions": form.actions,
        "resolved_default_values": {name: text_of(value) for name, value in defaults.items()},
    }


def _filled_in(content: str, values: Mapping[str, Value]) -> str:
    """Raises `TooLarge`."""
    room = Room()
    return _FIELD.sub(lambda found: room.take(text_of(values.get(found[1]))), content)
