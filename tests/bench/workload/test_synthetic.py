"""Made-up conversations."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.workload.model import Session, prompt_tokens
from bench.workload.synthetic import SyntheticOptions, parse_seq_dist, synthetic

LENGTHS = st.floats(1, 400)
SPREADS = st.floats(0, 2000)


def sessions(**options: Any) -> list[Session]:
    return list(synthetic(SyntheticOptions(**options)).sessions)


def test_the_defaults_are_aiperfs_hundred_prompts_of_550_tokens() -> None:
    """Without options: single turns, one for each data set entry."""
    made = sessions()
    assert len(made) == 100
    assert [prompt_tokens(turn.prompt) for s in made for turn in s.turns] == [550] * 100
    assert len({s.turns[0].prompt for s in made}) == 100


def test_the_same_options_give_the_same_sessions_each_time() -> None:
    """Iterating twice, or making it twice, changes nothing; another seed does."""
    options = SyntheticOptions(
        num_sessions=20, session_turns_mean=3, session_turns_stddev=2, output_tokens_stddev=50
    )
    workload = synthetic(options)
    assert list(workload.sessions) == list(workload.sessions)
    assert list(synthetic(options).sessions) == list(workload.sessions)
    other = msgspec.structs.replace(options, seed=1)
    assert list(synthetic(other).sessions) != list(workload.sessions)


def test_a_later_turn_carries_all_before_it_and_the_answer() -> None:
    """The history really grows: prompt, answer, new text."""
    [session] = sessions(
        num_sessions=1,
        session_turns_mean=4,
        synthetic_input_tokens_mean=200,
        output_tokens_mean=800,
    )
    assert [prompt_tokens(turn.prompt) for turn in session.turns] == [200, 1200, 2200, 3200]
    for before, after in zip(session.turns, session.turns[1:], strict=False):
        size = len(before.prompt)
        assert after.prompt[:size] == before.prompt
        answer = after.prompt[size]
        assert (answer.key, answer.tokens, answer.role) == (before.answer, 800, "assistant")
        assert [segment.role for segment in after.prompt[size + 1 :]] == ["user"]


@given(
    asked=LENGTHS, asked_stddev=SPREADS, answered=LENGTHS, answered_stddev=SPREADS, turns=LENGTHS
)
def test_drawn_values_are_never_below_one(
    asked: float, asked_stddev: float, answered: float, answered_stddev: float, turns: float
) -> None:
    """Whatever the spread, there is a turn with a token in and a token out."""
    [session] = sessions(
        num_sessions=1,
        synthetic_input_tokens_mean=asked,
        synthetic_input_tokens_stddev=asked_stddev,
        output_tokens_mean=answered,
        output_tokens_stddev=answered_stddev,
        session_turns_mean=min(turns, 5),
        session_turns_stddev=3,
        session_turn_delay_mean=10,
        session_turn_delay_stddev=100,
    )
    assert session.turns
    for turn in session.turns:
        assert all(segment.tokens >= 1 for segment in turn.prompt)
        assert turn.output_tokens >= 1
        assert turn.delay_s >= 0


def test_drawn_lengths_have_the_mean_and_spread_asked_for() -> None:
    """Normal lengths: 2,000 draws are near their parameters."""
    drawn = [
        turn.output_tokens
        for s in sessions(num_sessions=2000, output_tokens_mean=500, output_tokens_stddev=50)
        for turn in s.turns
    ]
    mean = sum(drawn) / len(drawn)
    assert mean == pytest.approx(500, abs=6)
    assert (sum((n - mean) ** 2 for n in drawn) / len(drawn)) ** 0.5 == pytest.approx(50, rel=0.1)


def test_prefix_prompts_are_a_pool_of_system_prompts() -> None:
    """Each session begins with one of them, all turns with the same."""
    made = sessions(
        num_sessions=50, num_prefix_prompts=3, prefix_prompt_length=1000, session_turns_mean=2
    )
    firsts = {turn.prompt[0] for s in made for turn in s.turns}
    assert len(firsts) == 3
    assert {(first.tokens, first.role) for first in firsts} == {(1000, "system")}
    assert all(s.turns[0].prompt[0] == s.turns[1].prompt[0] for s in made)


def test_a_shared_system_prompt_and_a_context_of_its_own() -> None:
    """The first is everyone's, the second the session's."""
    made = sessions(num_sessions=5, shared_system_prompt_length=300, user_context_prompt_length=40)
    assert len({s.turns[0].prompt[0] for s in made}) == 1
    assert len({s.turns[0].prompt[1] for s in made}) == 5
    assert [segment.tokens for segment in made[0].turns[0].prompt] == [300, 40, 550]


def test_delays_come_before_later_turns_only_and_are_scaled() -> None:
    """Milliseconds in, seconds out, times the ratio."""
    [session] = sessions(
        num_sessions=1,
        session_turns_mean=3,
        session_turn_delay_mean=2000,
        session_delay_ratio=0.5,
    )
    assert [turn.delay_s for turn in session.turns] == [0.0, 1.0, 1.0]


def test_a_sequence_distribution_draws_pairs_by_their_share() -> None:
    """Input and output lengths come together, a quarter of them the first pair."""
    pairs = [
        (prompt_tokens(turn.prompt), turn.output_tokens)
        for s in sessions(num_sessions=2000, seq_dist="128,64:25;512,128:75")
        for turn in s.turns
    ]
    assert set(pairs) == {(128, 64), (512, 128)}
    assert pairs.count((128, 64)) / len(pairs) == pytest.approx(0.25, abs=0.04)


def test_a_sequence_distribution_may_have_spreads() -> None:
    """AIPerf's form with `|stddev`."""
    [pair] = parse_seq_dist("512|10,128|5:100")
    assert pair == (100, 512, 128, 10, 5)


@pytest.mark.parametrize(
    "text", ["", "128,64", "128:100", "128,64:50", "a,b:100", "0,64:100", "1,1:-1;1,1:101"]
)
def test_a_wrong_sequence_distribution_is_refused(text: str) -> None:
    """The error names the flag."""
    with pytest.raises(ValueError, match="seq_dist"):
        sessions(seq_dist=text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_prefix_prompts": 3}, "prefix_prompt_length"),
        ({"prefix_prompt_length": 3}, "num_prefix_prompts"),
        (
            {
                "num_prefix_prompts": 3,
                "prefix_prompt_length": 3,
                "shared_system_prompt_length": 1,
            },
            "shared_system_prompt_length",
        ),
        ({"synthetic_input_tokens_mean": 0}, "synthetic_input_tokens_mean"),
        ({"output_tokens_mean": float("nan")}, "output_tokens_mean"),
        ({"num_sessions": -1}, "num_sessions"),
        ({"session_turn_delay_stddev": -1}, "session_turn_delay_stddev"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], named: str) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=named):
        sessions(**options)
