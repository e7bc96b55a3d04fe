"""Forms that are filled in on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from server.cli_run import asking
from server.cli_run.asking import Asker
from server.workflow.events import InputRequired
from server.workflow.forms import FormError


class Book:
    """Takes answers, but for the first ones of `refusals`."""

    def __init__(self, refusals: Iterable[FormError] = ()) -> None:
        self._refusals = list(refusals)
        self.taken: list[tuple[str, str, dict[str, Any]]] = []

    def submit(self, token: str, action: str, values: dict[str, Any]) -> None:
        if self._refusals:
            raise self._refusals.pop(0)
        self.taken.append((token, action, values))


def required(
    *inputs: dict[str, Any], actions: Iterable[str] = ("yes", "no"), **more: Any
) -> InputRequired:
    listed = [{"id": one, "title": one.upper()} for one in actions]
    form = {"form_content": "Shall we?", "inputs": list(inputs), "actions": listed, **more}
    return InputRequired(
        node_run_id="r", node_id="n", node_type="human-input", title="Ask", token="t", form=form,
        expires_at=0.0,
    )  # fmt: skip


class Terminal:
    """What is written there, line by line, and what is shown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
        self._lines = list(lines)
        self.prompts: list[str] = []
        self.said: list[str] = []
        monkeypatch.setattr(asking, "read_line", self._read)

    async def _read(self, prompt: str) -> str | None:
        self.prompts.append(prompt)
        return self._lines.pop(0) if self._lines else None

    def asker(self, book: Book, *, terminal: bool = True) -> Asker:
        return Asker(book, self.said.append, terminal=terminal, file=self._file)

    @staticmethod
    def _file(name: str, written: str) -> dict[str, Any]:
        if not written.startswith("@"):
            raise ValueError(f"{name} is no file")
        return {"upload_file_id": written[1:]}


async def test_an_answer_is_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs one by one, an empty one is the default; the action by its number."""
    terminal, book = Terminal(monkeypatch, "blue", "", "9", "2"), Book()
    fields = (
        {"type": "select", "output_variable_name": "colour", "options": ["red", "blue"]},
        {"type": "paragraph", "output_variable_name": "why"},
    )
    defaults = {"why": "no reason"}
    await terminal.asker(book).ask(required(*fields, resolved_default_values=defaults))
    assert book.taken == [("t", "no", {"colour": "blue", "why": "no reason"})]
    assert terminal.prompts[:2] == ["colour (red, blue): ", "why (no reason): "]
    assert terminal.said[:3] == ["Shall we?", "  1  YES", "  2  NO"]


async def test_the_only_action_needs_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter is enough."""
    terminal, book = Terminal(monkeypatch, ""), Book()
    await terminal.asker(book).ask(required(actions=["go"]))
    assert book.taken == [("t", "go", {})]


async def test_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One, or several in a line."""
    terminal, book = Terminal(monkeypatch, "@a", "@b @c", "1"), Book()
    fields = (
        {"type": "file", "output_variable_name": "one"},
        {"type": "file-list", "output_variable_name": "all"},
    )
    await terminal.asker(book).ask(required(*fields))
    [(_, _, values)] = book.taken
    assert values == {
        "one": {"upload_file_id": "a"},
        "all": [{"upload_file_id": "b"}, {"upload_file_id": "c"}],
    }


async def test_an_answer_that_is_not_taken_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the reason."""
    terminal, book = Terminal(monkeypatch, "1", "2"), Book([FormError("invalid", "not so")])
    await terminal.asker(book).ask(required())
    assert book.taken == [("t", "no", {})]
    assert "the answer was not taken: not so" in terminal.said


async def test_a_form_that_expired_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that nobody knows, or one at the end of the input."""
    for refusals, lines in (([FormError("expired", "too late")], ["1"]), ([], [])):
        terminal, book = Terminal(monkeypatch, *lines), Book(refusals)
        await terminal.asker(book).ask(required())
        assert book.taken == []


async def test_without_a_terminal_the_token_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read."""
    terminal, book = Terminal(monkeypatch), Book()
    await terminal.asker(book, terminal=False).ask(required())
    assert terminal.said == ["Ask waits for a person; the form's token is t"]
    assert terminal.prompts == []
