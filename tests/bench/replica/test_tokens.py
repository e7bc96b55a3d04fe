"""The replica's tokens and its search for stop strings."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from bench.replica.stops import StopScan
from bench.replica.tokens import count, split


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    """No character is lost or moved, whatever the script."""
    assert "".join(split(text)) == text
    assert all(split(text))


@given(st.text(max_size=60), st.integers(1, 80))
def test_count_agrees_with_split(text: str, at_most: int) -> None:
    """Counting is splitting, up to the bound."""
    assert count(text, at_most) == min(len(split(text)), at_most)


def test_words_keep_their_spaces() -> None:
    """White space travels with the word after it; long words are several tokens."""
    assert split("Hi,  simulation \n") == ["Hi", ",", "  simulati", "on", " \n"]


pieces = st.lists(st.text("abc", min_size=1, max_size=4), max_size=12)
stops = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(pieces, stops)
def test_stop_is_found_across_borders(pieces: list[str], stops: list[str]) -> None:
    """What is let through is the text before the stop string; nothing is ever retracted."""
    scan = StopScan(stops)
    released, whole = "", ""
    for piece in pieces:
        whole += piece
        released += scan.feed(piece)
        assert whole.startswith(released)
        if scan.found is not None:
            break
        assert not any(stop in whole for stop in stops)
    if scan.found is None:
        assert released + scan.flush() == whole
    else:
        assert scan.found in stops
        assert released == whole[: min(at for s in stops if (at := whole.find(s)) >= 0)]


def test_stop_can_be_included() -> None:
    """On request the stop string itself is part of the text."""
    scan = StopScan(["b c"], include=True)
    assert scan.feed("a b") + scan.feed(" cd") == "a b c"
    assert scan.found == "b c"


def _seconds(text: str) -> float:
    begun_s = time.process_time()
    count(text, len(text))
    return time.process_time() - begun_s


def test_white_space_costs_no_more_than_words() -> None:
    """A long run of it is looked at once, not again for each of its characters."""
    spaces, words = " " * 2_000_000, "abcdefg " * 250_000
    assert min(_seconds(spaces) for _ in range(3)) < min(_seconds(words) for _ in range(3))
