"""Events far larger than what one receive brings: whole, and at a cost in proportion."""

from __future__ import annotations

import itertools
import time
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.wire.sse import EventTap

_SEGMENT: Final = 1_448
"""What one TCP segment carries on Ethernet."""


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def seconds_for(event: bytes) -> float:
    """The least of three tries: what else the machine does only ever adds."""
    pieces, tries = pieces_of(event, _SEGMENT), list[float]()
    for _ in range(3):
        tap = EventTap()
        began = time.perf_counter()
        passed = [tap.feed(piece) for piece in pieces]
        tries.append(time.perf_counter() - began)
        assert b"".join(passed) == event
        assert tap.events == 1
    return min(tries)


def test_a_large_event_in_many_pieces() -> None:
    """Passes whole with its last piece, and four times the size costs about four times as much.

    A tap that searched again through all it holds at each piece would take sixteen times as long,
    some 700 ms for this event: in that time no other client is served.
    """
    quarter, whole = (b"data: " + b"x" * size + b"\n\n" for size in (250_000, 1_000_000))
    seconds = seconds_for(whole)
    assert seconds < 0.05
    assert seconds < 10 * seconds_for(quarter) + 0.005


def test_an_event_in_tiny_pieces() -> None:
    """A replica may send byte by byte: no byte costs more than those before it."""
    event, tap = b"data: " + b"x" * 20_000 + b"\n\n", EventTap()
    began = time.perf_counter()
    passed = [tap.feed(piece) for piece in pieces_of(event, 1)]
    assert time.perf_counter() - began < 0.2
    assert b"".join(passed) == event


_PARTS: Final = [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\n\r\n", b"x", b"data: y", b": z"]
# Not more than one empty line in a row: of two it is open whether the second is passed or held.
_streams: Final = (
    st.lists(st.sampled_from(_PARTS), max_size=16)
    .map(b"".join)
    .filter(lambda data: b"\n\n\n" not in data.replace(b"\r", b""))
)


def fed(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What all the pieces let through, and what is held back; nothing is lost or moved.

    Empty lines between two events belong to neither, and may be in either part.
    """
    tap = EventTap()
    passed = b"".join([tap.feed(piece) for piece in pieces])
    assert passed + tap.pending == b"".join(pieces)
    return passed.rstrip(b"\r\n"), tap.pending.lstrip(b"\r\n")


@given(_streams.filter(bool), st.lists(st.integers(1, 100), max_size=8))
@settings(max_examples=300)
def test_boundaries_across_pieces(data: bytes, cuts: list[int]) -> None:
    """However the bytes are cut, the same events pass."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[one:other] for one, other in itertools.pairwise(places)]
    assert fed(pieces) == fed([data])


@given(_streams)
@settings(max_examples=300)
def test_boundaries_byte_by_byte(data: bytes) -> None:
    """The worst cut: after each byte, what a single feed of all bytes so far lets through."""
    for end in range(1, len(data) + 1):
        assert fed(pieces_of(data[:end], 1)) == fed([data[:end]])


def test_every_cut_of_every_boundary() -> None:
    """Each kind of empty line, cut at each place and at each two, behind pieces of every size."""
    for line_end in (b"\n", b"\r\n"):
        event = b"data: 0123456789" + line_end + line_end
        data = event + b": next"
        for one in range(len(data) + 1):
            for other in range(one, len(data) + 1):
                cut = [data[:one], data[one:other], data[other:]]
                passed = fed([piece for piece in cut if piece])
                assert passed == (b"data: 0123456789", b": next")
