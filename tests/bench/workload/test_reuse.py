"""The upper bound of a workload's hit rate."""

from __future__ import annotations

from bench.workload.model import Prompt, Segment, Session, Turn
from bench.workload.reuse import reuse
from bench.workload.synthetic import SyntheticOptions, synthetic


def asked(*prompts: Prompt) -> list[Session]:
    return [
        Session(id=n, turns=(Turn(prompt=prompt, output_tokens=1, answer=1000 + n),))
        for n, prompt in enumerate(prompts)
    ]


A, B, C = Segment(1, 10), Segment(2, 20), Segment(3, 30)


def test_only_what_stands_at_the_same_place_counts() -> None:
    """A segment after another beginning is not in the cache."""
    found = reuse(asked((A, B), (A, C), (B, A), (A, B, C)))
    assert found.reused_tokens == 10 + 0 + 30
    assert found.tokens == 30 + 40 + 30 + 60
    assert found.requests == 4
    assert found.share == 40 / 160
    assert found.request_share == (10 / 40 + 30 / 60) / 4


def test_a_conversation_finds_all_but_its_new_text() -> None:
    """Prompts and answers of the turns before are kept: 10,000 of 11,000 tokens in 5 turns."""
    options = SyntheticOptions(
        num_sessions=3,
        session_turns_mean=5,
        synthetic_input_tokens_mean=200,
        output_tokens_mean=800,
    )
    assert reuse(synthetic(options)).share == 10 / 11


def test_nothing_shares_nothing() -> None:
    """An empty workload is no error."""
    assert reuse([]) == (0.0, 0, 0, 0, 0.0)
