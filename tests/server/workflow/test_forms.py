"""Forms that wait for a person."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from server.workflow.forms import MOST_CHARACTERS, FormBook, FormError
from server.workflow.services import Answer, Form, ServiceFailed
from server.workflow.values import File

FILE = File(type="image", transfer_method="local_file", related_id="1", name="a.png")


def form(**fields: Any) -> Form:
    given: dict[str, Any] = {
        "node_id": "n",
        "run_id": "r",
        "content": "ok?",
        "inputs": [{"type": "paragraph", "output_variable_name": "note"}],
        "actions": [{"id": "yes"}, {"id": "no"}],
        "expires_at": 100.0,
    }
    return Form(**given | fields)


def book(now: float = 0.0, **more: Any) -> FormBook:
    return FormBook(clock=lambda: now, upload={"1": FILE}.get, **more)


def refused(book: FormBook, token: str, action: str, values: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(FormError) as error:
        book.submit(token, action, values)
    return error.value.reason, error.value.message


async def test_an_answer_reaches_who_waits(autojump_clock: trio.testing.MockClock) -> None:
    """With what the form asked for, and nothing else."""
    forms = book()
    token = forms.open(form())
    answers: list[Answer] = []

    async def wait() -> None:
        answers.append(await forms.answer(token))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert forms.form(token).content == "ok?"
        forms.submit(token, "yes", {"note": "fine\x00", "more": 1})
    assert answers == [Answer(action="yes", values={"note": "fine"})]


def test_tokens_cannot_be_guessed() -> None:
    """They are long, and none is like another."""
    forms = book()
    tokens = {forms.open(form()) for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32


def test_an_answer_counts_once() -> None:
    """Before its node has taken it, and after."""
    forms = book()
    token = forms.open(form())
    forms.submit(token, "yes", {"note": "a"})
    answered = ("answered", "the form has been answered")
    assert refused(forms, token, "no", {"note": "b"}) == answered
    forms.close(token)
    assert refused(forms, token, "no", {"note": "b"}) == answered
    assert len(forms) == 0


def test_unknown_and_expired_forms() -> None:
    """Each says which; a form that was closed unanswered has expired."""
    assert refused(book(), "nonsense", "yes", {}) == ("unknown", "there is no such form")
    late = book(now=100.0)
    token = late.open(form())
    assert refused(late, token, "yes", {"note": "a"})[0] == "expired"
    late.close(token)
    late.close(token)
    assert refused(late, token, "yes", {"note": "a"})[0] == "expired"


INPUTS = [
    {"type": "select", "output_variable_name": "s", "options": ["a", "b"]},
    {"type": "file", "output_variable_name": "f", "allowed_file_types": ["image"]},
    {"type": "file-list", "output_variable_name": "l", "number_limits": 1},
]
UPLOAD = {"transfer_method": "local_file", "upload_file_id": "1"}
PAPER = {"transfer_method": "remote_url", "url": "http://h/a.pdf"}
GOOD = {"s": "a", "f": UPLOAD, "l": [UPLOAD]}


def test_inputs_of_all_types() -> None:
    """Files come from uploads and URLs."""
    forms = book()
    token = forms.open(form(inputs=INPUTS))
    forms.submit(token, "no", GOOD)
    waiting = forms._open[token].answer
    assert waiting == Answer(action="no", values={"s": "a", "f": FILE, "l": [FILE]})


@pytest.mark.parametrize(
    ("action", "values", "message"),
    [
        ("maybe", GOOD, "Invalid action: maybe"),
        ("yes", {}, "Missing required inputs: s, f, l"),
        ("yes", GOOD | {"s": "c"}, "s must be one of"),
        ("yes", GOOD | {"s": 5}, "s must be a text"),
        ("yes", GOOD | {"s": "a" * (MOST_CHARACTERS + 1)}, "s must be a text"),
        ("yes", GOOD | {"f": "a.png"}, "f must be a file"),
        ("yes", GOOD | {"f": PAPER}, "File validation failed"),
        ("yes", GOOD | {"f": {"transfer_method": "local_file"}}, "Invalid upload file"),
        ("yes", GOOD | {"l": UPLOAD}, "l must be a list of files"),
        ("yes", GOOD | {"l": [UPLOAD, UPLOAD]}, "l must have at most 1 files"),
    ],
)
def test_answers_that_are_not_taken(action: str, values: dict[str, Any], message: str) -> None:
    """The form goes on waiting for a better one."""
    forms = book()
    token = forms.open(form(inputs=INPUTS))
    reason, said = refused(forms, token, action, values)
    assert reason == "invalid"
    assert message in said
    forms.submit(token, "yes", GOOD)


def test_forms_are_bounded() -> None:
    """Those that wait, and what is remembered of those that did."""
    forms = book(most=3)
    tokens = [forms.open(form()) for _ in range(3)]
    with pytest.raises(ServiceFailed, match="3 forms wait"):
        forms.open(form())
    for token in tokens:
        forms.close(token)
    for _ in range(20):
        forms.close(forms.open(form()))
    assert len(forms._past) == 3
    assert refused(forms, tokens[0], "yes", {})[0] == "unknown"
