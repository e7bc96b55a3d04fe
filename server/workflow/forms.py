"""Forms that wait for a person's answer, in memory."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec
import trio

from server.workflow.given_files import FileError, FileRules, Upload, given_file
from server.workflow.services import Answer, Form, ServiceFailed
from server.workflow.values import Value

__all__ = ["FormBook", "FormError"]

MOST_FORMS: Final = 10_000
MOST_CHARACTERS: Final = 100_000
"""Of one text that a person gives."""


class FormError(ValueError):
    """An answer that is not taken."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


Reason = Literal["unknown", "answered", "expired", "invalid"]


class _Open(msgspec.Struct):
    form: Form
    answered: trio.Event
    answer: Answer | None = None


class FormBook:
    """`services.Forms`, and where answers are handed in. `clock` gives Unix seconds; `upload`
    finds the files that were uploaded before."""

    def __init__(
        self,
        *,
        most: int = MOST_FORMS,
        clock: Callable[[], float] = time.time,
        upload: Upload | None = None,
    ) -> None:
        self._most = most
        self._clock = clock
        self._upload = upload
        self._open: dict[str, _Open] = {}
        self._past: OrderedDict[str, Reason] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    # The node's side

    def open(self, form: Form) -> str:
        """Its token, which cannot be guessed. Raises `ServiceFailed` if too many forms wait."""
        if len(self._open) >= self._most:
            raise ServiceFailed(f"{self._most} forms wait for an answer already", "FormsFull")
        token = secrets.token_urlsafe(24)
        self._open[token] = _Open(form, trio.Event())
        return token

    async def answer(self, token: str) -> Answer:
        """Wait for the answer."""
        waiting = self._open[token]
        await waiting.answered.wait()
        assert waiting.answer is not None
        return waiting.answer

    def close(self, token: str) -> None:
        """No answer is taken any more. Its token is remembered for a while, to say why."""
        waiting = self._open.pop(token, None)
        if waiting is not None:
            self._past[token] = "answered" if waiting.answer is not None else "expired"
            while len(self._past) > self._most:
                self._past.popitem(last=False)

    # The people's side

    def form(self, token: str) -> Form:
        """The form to show. Raises `FormError`: unknown, answered or expired."""
        return self._waiting(token).form

    def submit(self, token: str, action: str, values: Mapping[str, Any]) -> None:
        """Hand in an answer. Raises `FormError`; the form then goes on waiting."""
        waiting = self._waiting(token)
        actions = {str(each.get("id")) for each in waiting.form.actions}
        if action not in actions:
            raise FormError("invalid", f"Invalid action: {action}"[:200])
        waiting.answer = Answer(action=action, values=_checked(waiting.form, values, self._upload))
        waiting.answered.set()

    def _waiting(self, token: str) -> _Open:
        waiting = self._open.get(token)
        if waiting is None:
            raise _refusal(self._past.get(token, "unknown"))
        if waiting.answer is not None:
            raise _refusal("answered")
        if self._clock() >= waiting.form.expires_at:
            raise _refusal("expired")
        return waiting


def _refusal(reason: Reason) -> FormError:
    return FormError(reason, _REFUSALS[reason])


_REFUSALS: Final[dict[Reason, str]] = {
    "unknown": "there is no such form",
    "answered": "the form has been answered",
    "expired": "the form has expired",
}


def _checked(form: Form, values: Mapping[str, Any], upload: Upload | None) -> dict[str, Value]:
    """The form's inputs, of their types; what else was given is dropped."""
    names = [str(each.get("output_variable_name")) for each in form.inputs]
    missing = [name for name in names if values.get(name) is None]
    if missing:
        raise FormError("invalid", f"Missing required inputs: {', '.join(missing)}")
    return {
        name: _one(each, name, values[name], upload)
        for name, each in zip(names, form.inputs, strict=True)
    }


def _one(spec: Mapping[str, Any], name: str, value: Any, upload: Upload | None) -> Value:
    kind = spec.get("type")
    if kind == "file":
        return _file(spec, name, value, upload)
    if kind == "file-list":
        if not isinstance(value, list):
            raise FormError("invalid", f"{name} must be a list of files")
        most = spec.get("number_limits")
        if isinstance(most, int) and len(value) > most > 0:
            raise FormError("invalid", f"{name} must have at most {most} files")
        return [_file(spec, name, each, upload) for each in value]
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        raise FormError("invalid", f"{name} must be a text of at most {MOST_CHARACTERS} characters")
    options = spec.get("options")
    if kind == "select" and isinstance(options, list) and value not in options:
        raise FormError("invalid", f"{name} must be one of {options}"[:500])
    return value.replace("\x00", "")


def _file(spec: Mapping[str, Any], name: str, value: Any, upload: Upload | None) -> Value:
    if not isinstance(value, Mapping):
        raise FormError("invalid", f"{name} must be a file")
    try:
        return given_file(value, FileRules.of(spec), upload)
    except FileError as error:
        raise FormError("invalid", f"{name}: {error}") from None
