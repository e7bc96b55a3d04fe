"""Asking on the terminal: the next turn of a chat, and the forms of human-input nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

from server.workflow.events import InputRequired

__all__ = ["Book", "Asker", "read_line"]

_LONGEST: Final = 1_000_000


class Book(Protocol):
    """Where answers are handed in; `FormBook` is one."""

    def submit(self, token: str, action: str, values: dict[str, Any]) -> None:
        """Raises ValueError, with what is wrong with it."""


async def read_line(prompt: str) -> str | None:
    """A line of the standard input, without its end; None when there are no more. A wait that is
    cancelled leaves its thread to the process's end: nothing can take a read back."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = await trio.to_thread.run_sync(sys.stdin.readline, _LONGEST, abandon_on_cancel=True)
    return line.rstrip("\r\n") if line else None


class Asker:
    """Fills in forms, one after the other; the others wait meanwhile."""

    def __init__(
        self,
        book: Book,
        say: Callable[[str], None],
        *,
        terminal: bool,
        file: Callable[[str, str], dict[str, Any]],
    ) -> None:
        """Without a terminal the token is said, and the form waits for its time-out. `file` makes
        of an input's name and what was written for it what a client sends for a file; it raises
        ValueError."""
        self._book = book
        self._file = file
        self._say = say
        self._terminal = terminal
        self._turn = trio.Lock()

    async def ask(self, event: InputRequired) -> None:
        """Show a form until its answer is taken. At the end of the input, and when the run is over,
        nothing is asked any more."""
        if not self._terminal:
            self._say(f"{event.title} waits for a person; the form's token is {event.token}")
            return
        form = event.form
        async with self._turn:
            self._say(str(form.get("form_content") or event.title))
            taken = False
            while not taken:
                values = await self._values(form)
                action = await self._action(form.get("actions") or [])
                if values is None or action is None:
                    return
                taken = self._hand_in(event.token, action, values)

    def _hand_in(self, token: str, action: str, values: dict[str, Any]) -> bool:
        try:
            self._book.submit(token, action, values)
        except ValueError as exc:
            self._say(f"the answer was not taken: {exc}")
            return getattr(exc, "reason", "invalid") != "invalid"  # else nobody waits for it
        return True

    async def _values(self, form: dict[str, Any]) -> dict[str, Any] | None:
        """Each input in a line of its own; an empty one is the default."""
        defaults = form.get("resolved_default_values") or {}
        values: dict[str, Any] = {}
        for one in form.get("inputs") or []:
            name = str(one.get("output_variable_name"))
            line = await read_line(f"{name}{_hint(one, defaults.get(name))}: ")
            if line is None:
                return None
            values[name] = self._value(one, name, line or str(defaults.get(name) or ""))
        return values

    def _value(self, one: dict[str, Any], name: str, line: str) -> Any:
        if one.get("type") not in ("file", "file-list"):
            return line
        try:
            files = [self._file(name, part) for part in line.split()]
        except ValueError as exc:
            self._say(str(exc))
            return None
        return files if one["type"] == "file-list" else (files[0] if files else None)

    async def _action(self, actions: list[dict[str, Any]]) -> str | None:
        """By its number; the only one by Enter."""
        for number, one in enumerate(actions, 1):
            self._say(f"  {number}  {one.get('title') or one.get('id')}")
        while actions:
            line = await read_line(f"1 to {len(actions)}: " if len(actions) > 1 else "Enter: ")
            if line is None:
                return None
            chosen = line.strip() or "1" * (len(actions) == 1)
            if chosen.isdecimal() and 1 <= int(chosen) <= len(actions):
                return str(actions[int(chosen) - 1].get("id"))
        return None


def _hint(one: dict[str, Any], default: Any) -> str:
    options = one.get("options")
    if isinstance(options, list):
        return f" ({', '.join(map(str, options))})"
    if one.get("type") in ("file", "file-list"):
        return " (@FILE or URL)"
    return f" ({default})" if default else ""
