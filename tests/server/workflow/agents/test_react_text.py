"""Reading what a thinking and acting model writes, however it is cut."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.agents.react_text import Action, Broken, ReactText, Reading


def read(text: str, *cuts: int) -> tuple[str, Reading]:
    """The answer as it was handed out, and the reading, of a text cut at these places."""
    reader = ReactText()
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    said = "".join(reader.feed(text[a:b]) for a, b in itertools.pairwise(places))
    rest, reading = reader.end()
    return said + rest, reading


TEXTS: list[tuple[str, tuple[Action | Broken, ...], str | None]] = [
    ("Thought: in C\n{ int x;\n{ int y;\nFinal Answer: done {", (), "done {"),
    (
        'Thought: open\n{ so\nAction: s\nAction Input: {"q": 1}',
        (Action("s", {"q": 1}),),
        None,
    ),
    (
        'Thought: look\nAction: {"action": "s", "action_input": {"q": 1}}',
        (Action("s", {"q": 1}),),
        None,
    ),
    (
        'Action:\n```json\n{"action": "s", "action_input": "a } b"}\n```\nObservation: made up',
        (Action("s", "a } b"),),
        None,
    ),
    (
        'Action: {"action": "a", "action_input": {}}\nAction: {"action": "b", "action_input": {}}',
        (Action("a", {}), Action("b", {})),
        None,
    ),
    (
        'Action: search\nAction Input: {"q": 2}\nObservation: x\nFinal Answer: y',
        (Action("search", {"q": 2}),),
        None,
    ),
    ("Action: search\nAction Input: Paris\n", (Action("search", "Paris"),), None),
    ("Action: now", (Action("now", {}),), None),
    ('I go on. Action: [{"action": "s", "action_input": {}}]', (Action("s", {}),), None),
    ('{"action": "Final Answer", "action_input": "yes"}', (), "yes"),
    ('```json\n{"name": "s", "arguments": {"q": 3}}\n```', (Action("s", {"q": 3}),), None),
    ('Action: {"action": "s", "q": "open', (Broken('{"action": "s", "q": "open'),), None),
    ('```\n{"action": "s", }\n```', (Broken('{"action": "s", }'),), None),
    ("Thought: I know.\nFinal Answer: 42\nand more: {x}", (), "42\nand more: {x}"),
    ("Thought: k\n**Final Answer:** **bold** text", (), "**bold** text"),
    ("FINAL ANSWER\uff1a \u5b8c", (), "\u5b8c"),
    ('<think>Action: {"action": "no"}</think>Final Answer: ok', (), "ok"),
    ("Just an answer with {braces} and an Observation: yes", (), None),
    ("Recommended action: wait. Food for Thought: none", (), None),
    ("Here:\n```python\nx = {1: 2}\n```\n{\n  not json", (), None),
    ("", (), None),
]


@pytest.mark.parametrize(("text", "actions", "answer"), TEXTS)
def test_text_is_read(text: str, actions: tuple[Action | Broken, ...], answer: str | None) -> None:
    """Actions in every form that models use, answers, and texts that are neither."""
    said, reading = read(text)
    assert reading.actions == actions
    if answer is not None:
        assert (said, reading.answer) == (answer, answer)
    if actions:
        assert said == ""
        assert reading.answer is None


def test_plain_text_is_the_answer_unchanged() -> None:
    """What is no action and no final answer is said as it stands, fences and braces and all."""
    for text in ("Use `{}`:\n```js\nlet a = {};\n```\nDone.", "Recommended action: wait a day"):
        assert read(text)[0] == text


def test_made_up_observation_is_not_shown_to_the_model_again() -> None:
    """The reply is kept up to its action."""
    text = 'Thought: a\nAction: {"action": "s", "action_input": {}}\nObservation: lie'
    assert read(text)[1].spoken == text.partition("\nObs")[0]


@pytest.mark.parametrize("text", [text for text, _, _ in TEXTS])
def test_every_cut_reads_the_same(text: str) -> None:
    """One cut at any place, and a cut at every place, change nothing."""
    whole = read(text)
    assert all(read(text, cut) == whole for cut in range(1, len(text)))
    assert read(text, *range(1, len(text))) == whole


PIECES = [
    *("Thought: ", "Action: ", "Action Input: ", "Observation: ", "Final Answer:", "**", "\n", " "),
    *("```json\n", "```", "{", "}", "[", '"', "\\", "<think>", "</think>", "a", "Action", "final "),
    *(
        json.dumps({"action": "s", "action_input": {"q": "}"}}),
        "action\uff1a",
        "(x):",
        "`",
        "answer",
    ),
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_any_text_reads_the_same_in_any_pieces(text: str, cuts: list[int]) -> None:
    """Chunking never changes what is read: neither the actions nor the answer nor its text."""
    whole = read(text)
    assert read(text, *cuts) == whole
    assert read(text, *range(1, len(text))) == whole


def test_many_open_braces_take_linear_time() -> None:
    """They are given up together."""
    began = time.perf_counter()
    _, reading = read("Thought: x" + "\n{ a" * 20_000 + "\nFinal Answer: b")
    assert reading.answer == "b"
    assert time.perf_counter() - began < 2


def test_answer_is_handed_out_as_it_comes() -> None:
    """The first words of a final answer do not wait for the last."""
    reader = ReactText()
    assert reader.feed("Thought: x\nFinal Answer: one") == "one"
    assert reader.feed(" two") == " two"
