"""What a policy is told of a turn: block numbers that stand for everything before them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.simulate.ask import TurnAsk
from bench.workload.model import Prompt, Segment
from tests.bench.simulate.small import prompt

LENGTHS = dict(enumerate((1, 3, 4, 5, 8, 17, 2), start=1))
prompts = st.lists(st.sampled_from(sorted(LENGTHS)), max_size=6).map(
    lambda keys: tuple(Segment(key, LENGTHS[key]) for key in keys)
)


def tokens(of: Prompt) -> list[tuple[int, int]]:
    """Every single token: the same key gives the same tokens, another key gives others."""
    return [(segment.key, place) for segment in of for place in range(segment.tokens)]


@given(prompts, prompts, st.sampled_from([1, 2, 4, 16]))
def test_blocks_agree_exactly_if_all_tokens_up_to_their_end_do(
    one: Prompt, other: Prompt, size: int
) -> None:
    """Against the prompts written out token by token."""
    blocks, others = (TurnAsk(each, None, None).blocks(size) for each in (one, other))
    assert len(blocks) == len(tokens(one)) // size
    for k in range(min(len(blocks), len(others))):
        end = (k + 1) * size
        assert (blocks[k] == others[k]) == (tokens(one)[:end] == tokens(other)[:end])


@given(prompts)
def test_block_numbers_of_one_prompt_differ(one: Prompt) -> None:
    """A number stands for its place too, so that none is found twice in a prompt."""
    blocks = TurnAsk(one, None, None).blocks(2)
    assert len(set(blocks)) == len(blocks)


def test_block_numbers_are_the_same_in_every_process() -> None:
    """They are made of numbers alone, which Python hashes alike everywhere."""
    ask = TurnAsk(prompt((11, 16), (12, 32)), None, None)
    assert list(ask.blocks(16)) == [hash((hash((0, 11)), 0))] + [
        hash((hash((hash((0, 11)), 12)), place)) for place in (1, 2)
    ]
    assert ask.blocks(16) is ask.blocks(16)
    assert len(ask.blocks(64)) == 0


def test_ask_tells_what_a_router_knows() -> None:
    """The prompt's length and the session; the length of the answer only if it is given."""
    ask = TurnAsk(prompt((1, 10), (2, 7)), None, "a")
    assert (ask.prompt_tokens, ask.output_tokens, ask.session) == (17, None, "a")
