"""A request's place in line, out of its headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from balancer.admission import BATCH, INTERACTIVE, TIERS, Standing
from server.api.standing import read_standing
from server.errors import ApiError

Headers = list[tuple[bytes, bytes]]


def tier_header(value: bytes) -> Headers:
    return [(b"host", b"h"), (b"x-triolet-tier", value)]


def deadline_header(value: bytes) -> Headers:
    return [(b"x-triolet-deadline-ms", value), (b"host", b"h")]


def refused(headers: Headers) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_standing(headers, TIERS, INTERACTIVE, 5.0)
    return caught.value


def test_nothing_asked() -> None:
    """The tier it has, from its arrival on, without a deadline."""
    assert read_standing([], TIERS, INTERACTIVE, 5.0) == Standing("interactive", 5.0)


@pytest.mark.parametrize("value", [b"batch", b" batch "])
def test_down(value: bytes) -> None:
    """A lower tier may be asked for."""
    assert read_standing(tier_header(value), TIERS, INTERACTIVE, 5.0).tier == "batch"


def test_its_own() -> None:
    """So may the one it has."""
    assert read_standing(tier_header(b"batch"), TIERS, BATCH, 5.0).tier == "batch"


def test_not_up() -> None:
    """A higher one is refused, and those that can be had are named."""
    with pytest.raises(ApiError) as caught:
        read_standing(tier_header(b"interactive"), TIERS, BATCH, 5.0)
    assert caught.value.message == (
        "the header x-triolet-tier is 'interactive', above your own; it can be batch"
    )


def test_no_such_tier() -> None:
    """Nor is there `control` for a model call."""
    error = refused(tier_header(b"control"))
    assert (error.status, error.code, error.param) == (400, "invalid_header", "x-triolet-tier")
    assert error.message == (
        "the header x-triolet-tier is 'control', expected one of interactive, batch"
    )


def test_a_long_name_is_cut() -> None:
    """An error does not send back whatever came."""
    assert len(refused(tier_header(b"x" * 60_000)).message) < 200


def test_a_deadline_counts_from_the_arrival() -> None:
    """In milliseconds."""
    standing = read_standing(deadline_header(b"1500"), TIERS, INTERACTIVE, 5.0)
    assert standing == Standing("interactive", 5.0, 6.5)


def test_the_tier_has_a_default_deadline() -> None:
    """That of the tier asked for, unless the request has its own."""
    tiers = (INTERACTIVE, replace(BATCH, deadline_ms=2000))
    headers = tier_header(b"batch")
    assert read_standing(headers, tiers, INTERACTIVE, 1.0).deadline == 3.0
    headers += deadline_header(b"9000")
    assert read_standing(headers, tiers, INTERACTIVE, 1.0).deadline == 10.0


@pytest.mark.parametrize(
    "value", [b"", b"0", b"-1", b"1.5", b"1e3", b"2s", b"86400001", b"9" * 5000, b"\xb2", b"+5"]
)
def test_no_deadline_at_all(value: bytes) -> None:
    """Whole milliseconds up to a day; the header is named, and what was in it, cut short."""
    error = refused(deadline_header(value))
    assert (error.status, error.param) == (400, "x-triolet-deadline-ms")
    assert "expected a whole number of milliseconds from 1 to 86400000" in error.message
    assert len(error.message) < 200


@pytest.mark.parametrize("name", [b"x-triolet-tier", b"x-triolet-deadline-ms"])
def test_twice(name: bytes) -> None:
    """Two values would leave open which one counts."""
    assert "is given twice" in refused([(name, b"batch"), (name, b"1")]).message


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_bytes(tier: bytes, deadline: bytes) -> None:
    """Whatever is sent, it is read or refused with 400."""
    headers = tier_header(tier) + deadline_header(deadline)
    try:
        outcome: str | int = read_standing(headers, TIERS, INTERACTIVE, 5.0).tier
    except ApiError as error:
        outcome = error.status
    assert outcome in ("interactive", "batch", 400)
