"""Texts in blocks: counted and cut as the tokens are, however they are put together."""

from __future__ import annotations

from itertools import islice

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bench.replica import ReplicaSettings
from bench.replica.answer import filled, opening
from bench.replica.blocks import BLOCK_TOKENS, Blocks, TooLongError
from bench.replica.requests import Message, chat_blocks
from bench.replica.tokens import split
from bench.workload.model import Prompt

texts = st.text("ab ,.\n é日", max_size=200)
ENOUGH = 10**9


async def blocks_of(*parts: str, at_most: int = ENOUGH) -> Blocks:
    blocks = Blocks()
    for part in parts:
        await blocks.add_text(part, at_most)
    return blocks


def expected(pieces: list[str]) -> Prompt:
    """The blocks by the plain definition, token by token."""
    blocks = Blocks()
    for piece in pieces:
        blocks.add_tokens([piece])
    return blocks.whole()


@given(st.lists(texts, max_size=5))
def test_blocks_are_those_of_the_tokens(parts: list[str]) -> None:
    """Count and blocks follow from the tokens alone, not from how the text came."""
    pieces = [piece for part in parts for piece in split(part)]
    blocks = trio.run(blocks_of, *parts)
    assert blocks.tokens == len(pieces)
    assert blocks.whole() == expected(pieces)
    assert len(blocks.whole()) == len(pieces) // BLOCK_TOKENS


@given(texts, st.integers(0, 15), st.integers(1, 40))
def test_tokens_can_be_added_in_bulk(text: str, before: int, times: int) -> None:
    """Adding a list is adding one after the other."""
    pieces = [str(number) for number in range(before)] + split(text) * times
    blocks = Blocks()
    blocks.add_tokens(pieces[:before])
    blocks.add_tokens(pieces[before:])
    assert blocks.tokens == len(pieces)
    assert blocks.whole() == expected(pieces)


async def test_long_texts_are_the_same_from_the_second_time_on() -> None:
    """A text that was cut before gives the same blocks, also at another place in a block."""
    text = "Some words, and then some more of them. " * 200
    for before in ("", "x", "a b c d e f"):
        first, second = await blocks_of(before, text, "end"), await blocks_of(before, text, "end")
        assert first.whole() == second.whole() == expected(split(before) + split(text) + ["end"])
        assert first.tokens == second.tokens


async def test_too_long() -> None:
    """The bound is exact, for new texts, known ones and ids, and the rest is never looked at."""
    text = "word " * 999 + "word"
    assert (await blocks_of(text, at_most=1000)).tokens == 1000
    for _ in range(2):
        with pytest.raises(TooLongError):
            await blocks_of(text, at_most=999)
    with pytest.raises(TooLongError):
        await blocks_of("a", text, at_most=1000)
    with pytest.raises(TooLongError):
        await Blocks().add_ids([1] * 1000, 999)
    with trio.fail_after(5), pytest.raises(TooLongError):
        await blocks_of("a " * 2_000_000, at_most=1000)


async def test_ids_make_blocks() -> None:
    """The same ids have the same blocks, other ids have others."""
    one, same, other = Blocks(), Blocks(), Blocks()
    await one.add_ids(range(100), ENOUGH)
    await same.add_ids(range(100), ENOUGH)
    await other.add_ids([*range(40), 7, *range(41, 100)], ENOUGH)
    assert one.tokens == 100
    assert one.whole() == same.whole()
    differing = [a != b for a, b in zip(one.whole(), other.whole(), strict=True)]
    assert differing == [False, False, True, False, False, False]


@pytest.mark.parametrize("length", [1, 15, 40, 333, 1000])
async def test_the_next_turn_begins_with_prompt_and_answer(length: int) -> None:
    """An answer, sent back as text, has the tokens and blocks with which it was made."""
    settings = ReplicaSettings()
    asked = [Message("system", "Be brief."), Message("user", "What is a triolet? " * 9)]
    turn = await chat_blocks(asked, 1, ENOUGH)
    beginning = opening(settings, "What is a triolet?", turn.tokens)
    pieces = [*islice(filled(settings, beginning, 5), length)]
    turn.add_tokens(pieces)
    said = [*asked, Message("assistant", "".join(pieces)), Message("user", "Go on.")]
    following = await chat_blocks(said, 1, ENOUGH)
    assert following.whole()[: len(turn.whole())] == turn.whole()
    assert following.tokens > turn.tokens


async def test_roles_are_part_of_the_prompt() -> None:
    """The same words of somebody else are another prompt."""
    words = "one two three four five six seven eight nine ten eleven twelve."
    user = await chat_blocks([Message("user", words)], 1, ENOUGH)
    system = await chat_blocks([Message("system", words)], 1, ENOUGH)
    assert user.tokens == system.tokens == len(split(words)) + 4
    assert user.whole() != system.whole()


async def test_many_tokens_leave_room_for_other_tasks() -> None:
    """Tokens of a long answer are cut in parts, with the same result."""
    pieces = ["abc "] * 50_003
    blocks, turns = Blocks(), 0
    done = trio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await blocks.add_pieces(pieces)
        done.set()
    assert turns >= 5
    whole = Blocks()
    whole.add_tokens(pieces)
    assert (blocks.tokens, blocks.whole()) == (whole.tokens, whole.whole())
