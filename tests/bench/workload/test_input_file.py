"""Recorded prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.workload.input_file import InputFileOptions, input_file
from bench.workload.lines import BadLine, BadLineCount
from bench.workload.model import Session, Turn
from bench.workload.reuse import reuse
from bench.workload.text import segment_text


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return tmp_path / "prompts.jsonl"


def read(file: Path, text: str, options: InputFileOptions | None = None) -> list[Session]:
    file.write_text(text)
    workload = input_file(file, options)
    made = list(workload.sessions)
    assert list(workload.sessions) == made
    return made


def texts(session: Session, turn: Turn) -> list[tuple[str, str]]:
    return [(each.role, segment_text(each, session.texts)) for each in turn.prompt]


@pytest.mark.parametrize("field", ["text", "text_input", "prompt"])
def test_a_line_with_a_text_is_a_request(prompts: Path, field: str) -> None:
    """GenAI-Perf's and AIPerf's names for it; the text is kept as it is."""
    [session] = read(prompts, f'{{"{field}": "Hello,  there!"}}')
    [turn] = session.turns
    assert texts(session, turn) == [("user", "Hello,  there!")]
    assert turn.prompt[0].tokens == 4


def test_an_answers_length_is_the_lines_or_the_options(prompts: Path) -> None:
    """`output_length` and the names of OpenAI's fields; else what is asked for."""
    made = read(
        prompts,
        '{"text":"a"}\n{"text":"a","output_length":7}\n{"text":"a","max_tokens":8}\n'
        '{"text":"a","max_completion_tokens":9}',
        InputFileOptions(output_tokens=50),
    )
    assert [session.turns[0].output_tokens for session in made] == [50, 7, 8, 9]


def test_messages_are_the_history_of_one_request(prompts: Path) -> None:
    """Each message is a segment with its role; parts of text are joined."""
    [session] = read(
        prompts,
        '{"messages": [{"role": "developer", "content": "Be brief."},'
        '{"role": "user", "content": [{"type": "text", "text": "Hi"}]},'
        '{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Why?"}]}',
    )
    [turn] = session.turns
    assert texts(session, turn) == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Yes?"),
        ("user", "Why?"),
    ]


def test_turns_carry_the_history_and_the_answers(prompts: Path) -> None:
    """AIPerf's conversations, with a system prompt as a leading turn."""
    [session] = read(
        prompts,
        '{"session_id": "a", "turns": [{"role": "system", "text": "Be brief."},'
        '{"text": "One", "output_length": 5}, {"text": "Two", "delay": 1500}]}',
        InputFileOptions(session_delay_ratio=2),
    )
    first, second = session.turns
    assert texts(session, first) == [("system", "Be brief."), ("user", "One")]
    assert second.prompt[:2] == first.prompt
    assert second.prompt[2] == (first.answer, 5, "assistant")
    assert texts(session, second)[3] == ("user", "Two")
    assert (first.delay_s, second.delay_s) == (0.0, 3.0)


def test_lines_of_one_session_are_its_turns(prompts: Path) -> None:
    """GenAI-Perf's conversations; lines without a session stand alone."""
    made = read(
        prompts,
        '{"session_id": 1, "text": "a"}\n{"session_id": 1, "text": "b", "delay": 10}\n'
        '{"text": "c"}\n{"text": "d"}',
    )
    assert [len(session.turns) for session in made] == [2, 1, 1]
    assert [session.id for session in made] == [0, 1, 2]


def test_a_length_without_a_text_is_that_many_words(prompts: Path) -> None:
    """GenAI-Perf's payload form: text is made up for it."""
    [session] = read(prompts, '{"input_length": 30, "output_length": 4}')
    [(role, text)] = texts(session, session.turns[0])
    assert role == "user"
    assert len(text.split()) == 30


def test_equal_texts_share_their_prefix(prompts: Path) -> None:
    """Prompts that begin alike are recognised as such."""
    file = "\n".join(
        f'{{"messages": [{{"role": "system", "content": "One two three four"}},'
        f'{{"role": "user", "content": "{question}"}}]}}'
        for question in ("a", "b")
    )
    assert reuse(read(prompts, file)).reused_tokens == 4


def test_plain_text_has_a_request_in_each_line(tmp_path: Path) -> None:
    """Any file that does not begin with a brace."""
    made = read(tmp_path / "prompts.txt", "Why is the sky blue?\n\nTell me {more}.\n")
    assert [texts(session, session.turns[0]) for session in made] == [
        [("user", "Why is the sky blue?")],
        [("user", "Tell me {more}.")],
    ]


def test_timestamps_are_due_times(prompts: Path) -> None:
    """Milliseconds from the start."""
    made = read(prompts, '{"text":"a","timestamp":0}\n{"text":"b","timestamp":1500}')
    assert [session.turns[0].due_s for session in made] == [0.0, 1.5]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "JSON is malformed|truncated"),
        ("[]", "Expected"),
        ('{"other": 1}', "no text"),
        ('{"text": ""}', "no text"),
        ('{"text": 3}', "Expected"),
        ('{"text": "a", "output_length": 0}', "must be 1 or more"),
        ('{"text": "a", "delay": -1}', "delay must not be negative"),
        ('{"text": "a", "role": "robot"}', "role 'robot'"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "must be text"),
        ('{"messages": [{"content": "a"}]}', "role 'None'"),
        ('{"turns": [{"role": "system", "text": "a"}]}', "not a system prompt"),
        ('{"session_id": "first", "text": "again"}', "has ended above"),
        ('{"text": "a", "timestamp": -5}', "lies before"),
    ],
)
def test_a_malformed_line_is_named_or_skipped(prompts: Path, line: str, reason: str) -> None:
    """Its place and what is wrong; the lines around it are read when skipping."""
    text = f'{{"session_id": "first", "text": "a"}}\n{{"text": "b"}}\n{line}\n{{"text": "c"}}'
    with pytest.raises(BadLine, match=rf"prompts\.jsonl:3: .*({reason})"):
        read(prompts, text)
    skipped = BadLineCount()
    made = read(prompts, text, InputFileOptions(bad_lines="skip", on_bad_line=skipped))
    assert len(made) == 3
    assert skipped.count == 1


def test_a_limit_counts_sessions(prompts: Path) -> None:
    """And reads no further than to the line that shows where the last one ends."""
    lines = '{"text":"a"}\n{"text":"b"}\n{"text":"c"}\nbroken'
    made = read(prompts, lines, InputFileOptions(limit=2))
    assert len(made) == 2


def test_another_tokenizer_counts(prompts: Path) -> None:
    """Lengths come from the tokenizer that is given."""

    class Letters:
        def count(self, text: str) -> int:
            return len(text)

    prompts.write_text('{"text": "seventeen letters"}')
    [session] = input_file(prompts, tokenizer=Letters()).sessions
    assert session.turns[0].prompt[0].tokens == 17
