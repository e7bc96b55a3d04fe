"""Events out of bytes, whatever the chunking."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.wire.sse import (
    HELD_BYTES,
    ByteTap,
    EventTap,
    TapOverflow,
    data_of,
    events_of,
    is_comment,
    latest_event,
)


@dataclass
class Written:
    """A stream as an engine writes it: one kind of line end throughout."""

    line_end: bytes
    events: list[list[bytes]]
    """The lines of each event."""

    @property
    def whole(self) -> bytes:
        ends = (self.line_end.join([*lines, b"", b""]) for lines in self.events)
        return b"".join(ends)


# Text as in JSON strings and prose: line ends of every other alphabet, but never CR or LF.
_text = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])
    | st.sampled_from("\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"),
    max_size=20,
).map(lambda text: text.encode())
_line = st.one_of(
    _text.map(lambda text: b"data: " + text),
    _text.map(lambda text: b"data:" + text),
    _text.map(lambda text: b": " + text),
    st.just(b"event: message"),
)
_written = st.builds(
    Written,
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.lists(_line, min_size=1, max_size=3), max_size=6),
)
_cuts = st.lists(st.integers(0, 400), max_size=40)


def chunks_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places (taken modulo its length), empty chunks left out."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def is_whole(passed: bytes) -> bool:
    return not passed or passed.endswith((b"\n\n", b"\r\n\r\n"))


@given(_written, _text, _cuts)
@settings(max_examples=100)
def test_any_chunking_gives_the_same(written: Written, rest: bytes, cuts: list[int]) -> None:
    """Whole events pass as they are, are counted right, and an unfinished one is kept."""
    tail = b"data: " + rest
    tap, passed = EventTap(), b""
    for data in chunks_of(written.whole + tail, cuts):
        piece = tap.feed(data)
        assert is_whole(piece)
        passed += piece
    assert passed == written.whole
    assert tap.pending == tail
    assert tap.events == len(written.events)


@given(
    st.binary(max_size=200).map(
        lambda raw: raw.translate(bytes(b"\n\r:dx"[i % 5] for i in range(256)))
    ),
    _cuts,
)
@settings(max_examples=100)
def test_no_byte_is_lost_or_moved(raw: bytes, cuts: list[int]) -> None:
    """Even of nonsense and mixed line ends: what passed and what is pending is what came."""
    tap, passed = EventTap(), b""
    for data in chunks_of(raw, cuts):
        passed += tap.feed(data)
        assert not any(mark in tap.pending for mark in (b"\n\n", b"\n\r\n"))
    assert passed + tap.pending == raw


def test_bytewise() -> None:
    """The worst chunking: each event passes with its very last byte, not sooner or later."""
    for line_end in (b"\n", b"\r\n"):
        one = b"data: a" + line_end + line_end
        tap = EventTap()
        passed = [tap.feed(bytes([byte])) for byte in one + one]
        quiet = [b""] * (len(one) - 1)
        assert passed == [*quiet, one, *quiet, one]
        assert tap.events == 2


def test_separators_of_other_alphabets_end_nothing() -> None:
    """U+2028 and its kin are text (a str.splitlines would cut there)."""
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg".encode()
    tap = EventTap()
    assert tap.feed(b"data: " + text + b"\n\n") == b"data: " + text + b"\n\n"
    assert tap.events == 1
    assert data_of(b"data: " + text) == text


def test_recent_holds_the_last_two_feeds() -> None:
    """Usage and [DONE] are found there whether they come together or apart."""
    tap = EventTap()
    tap.feed(b"data: old\n\ndata: usa")
    tap.feed(b"ge\n\n")
    tap.feed(b"data: [DO")
    tap.feed(b"NE]\n\n")
    assert tap.recent == b"data: usage\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("step", [1 << 20, 1 << 16])
def test_overflow(step: int) -> None:
    """An event may have 1 MiB, and not a byte more."""
    tap = EventTap()
    for _ in range(HELD_BYTES // step):
        assert tap.feed(b"x" * step) == b""
    with pytest.raises(TapOverflow, match="more than 1048576 bytes"):
        tap.feed(b"x")


def test_a_long_event_that_ends_is_no_overflow() -> None:
    """The bound is on what is held back."""
    tap = EventTap()
    tap.feed(b"x" * HELD_BYTES)
    assert len(tap.feed(b"\n\n")) == HELD_BYTES + 2


def test_byte_tap_passes_everything() -> None:
    """Bodies that are no events pass as they come, counted; the latest two are remembered."""
    tap = ByteTap()
    assert [tap.feed(piece) for piece in (b"a", b"\n", b"b")] == [b"a", b"\n", b"b"]
    assert (tap.events, tap.pending, tap.recent) == (3, b"", b"\nb")


@given(_written)
@settings(max_examples=50)
def test_events_of_and_data_of(written: Written) -> None:
    """Splitting gives the events back; data is the data lines, one leading space off, by LF."""
    found = list(events_of(written.whole))
    assert found == [written.line_end.join(lines) for lines in written.events]
    for event, lines in zip(found, written.events, strict=True):
        data = [line[5:] for line in lines if line.startswith(b"data:")]
        assert data_of(event) == b"\n".join(line.removeprefix(b" ") for line in data)


@pytest.mark.parametrize(
    ("data", "comment"),
    [
        (b": ping\n\n", True),
        (b":\r\n\r\n: two\r\n\r\n", True),
        (b": ping\n\ndata: x\n\n", False),
        (b"event: x\n\n", False),
        (b": in\ndata: one\n\n", False),
    ],
)
def test_is_comment(data: bytes, comment: bool) -> None:
    """Keep-alives are told from events, line by line."""
    assert is_comment(data) is comment


@given(_written, st.sampled_from([b"data:", b"event", b"a", b"absent"]))
@settings(max_examples=50)
def test_latest_event(written: Written, wanted: bytes) -> None:
    """Walking back with `before` meets every event that contains it, last first, whole."""
    found, before = list[bytes](), None
    while True:
        event, before = latest_event(written.whole, wanted, before)
        if not event:
            break
        found.append(event)
    assert found == [event for event in events_of(written.whole) if wanted in event][::-1]
    assert before == -1
