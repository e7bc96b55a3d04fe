"""The table of `triolet replicas`: what is in its cells, and that it stands straight."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.replicas_table import Rates, Snapshot, fitted, read_snapshot, table

POOL = {
    "model": "qwen3-8b",
    "policy": "expected_cost",
    "replicas": ["http://a:1", "http://b:1"],
    "up": 1,
    "in_flight": 3,
    "panic": False,
    "tiers": [{"tier": "interactive", "waiting": 2}, {"tier": "batch", "waiting": 12}],
}
BUSY = {
    "url": "http://a:1",
    "models": ["qwen3-8b"],
    "state": "up",
    "in_flight": 3,
    "unread": 2,
    "room": 8,
    "failures": 1,
    "tokens": {"prompt": 1000, "cached": 625, "output": 5000},
    "kv_share": 0.456,
    "learned": {"prefill_tokens_per_s": 12_340, "decode_ms_per_stream": 0.1},
    "engine": {"age_s": 1.0, "waiting": 4.0},
    "gpu": {"age_s": 0.5, "utilisation": 0.873, "throttled": [], "fault": None},
}
NEW: dict[str, Any] = {
    "url": "http://b:1",
    "models": ["qwen3-8b"],
    "state": "down",
    "room": None,
    "kv_share": None,
    "engine": None,
    "gpu": None,
}


def snapshot(*replicas: dict[str, Any], at: float = 0.0, pool: Any = POOL) -> Snapshot:
    encode = msgspec.json.encode
    return read_snapshot(at, encode({"pools": [pool]}), encode({"replicas": replicas}))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def shown(replica: dict[str, Any], **changes: Any) -> dict[str, str]:
    """The cells of one replica by their heads."""
    heads, row, *_ = table(snapshot({**replica, **changes}), Rates())
    return dict(zip(cells(heads), cells(row), strict=True))


def test_a_table() -> None:
    """As it looks."""
    rates = Rates()
    rates.add(snapshot({**BUSY, "tokens": {"output": 4000}}, NEW, at=0.0))
    last = snapshot(BUSY, NEW, at=2.0)
    rates.add(last)
    assert "\n".join(table(last, rates)) == (
        "MODEL     REPLICA     STATE  IN FLIGHT  QUEUED  TOK/S  PREFILL/S   KV  GPU  HIT  FAILED\n"
        "qwen3-8b  http://a:1  up           3/8     2+4    500      12.3k  46%  87%  62%       1\n"
        "qwen3-8b  http://b:1  down           0       0      0          -    -  -      -       0\n"
        "\n"
        "qwen3-8b (expected_cost): 1 of 2 up, 3 in flight, waiting: interactive 2, batch 12"
    )


@pytest.mark.parametrize(
    ("gpu", "text"),
    [
        (None, "-"),
        ({"utilisation": None}, "-"),
        ({"utilisation": 1.0, "throttled": ["hw_thermal"]}, "100% hw_thermal"),
        ({"utilisation": 0.5, "age_s": 60.0}, "50%?"),
        ({"utilisation": 0.5, "fault": "GPU is lost"}, "GPU is lost"),
    ],
)
def test_gpus(gpu: Any, text: str) -> None:
    """What slows them and what broke them; an old reading has a mark; unknown is no 0."""
    assert shown(BUSY, gpu=gpu)["GPU"] == text


def test_queues() -> None:
    """Ours and the engine's, where it says; an old word of it has a mark."""
    assert shown(BUSY, engine=None)["QUEUED"] == "2"
    assert shown(BUSY, engine={"waiting": None})["QUEUED"] == "2"
    assert shown(BUSY, engine={"waiting": 0, "age_s": 30})["QUEUED"] == "2+0?"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7.4, "7"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (12_345, "12.3k"),
        (123_456, "123k"),
        (1_500_000, "1.5M"),
        (2e9, "2G"),
        (None, "-"),
    ],
)
def test_large_numbers(number: float | None, text: str) -> None:
    """Three digits are enough."""
    assert shown(BUSY, learned={"prefill_tokens_per_s": number})["PREFILL/S"] == text


def test_rates_need_two_samples() -> None:
    """And neither a restart nor a replica that comes makes them negative or huge."""
    rates = Rates()
    assert rates.of("http://a:1") is None
    rates.add(snapshot({**BUSY, "tokens": {"output": 1000}}, at=0.0))
    assert rates.of("http://a:1") is None
    rates.add(snapshot({**BUSY, "tokens": {"output": 1500}}, NEW, at=2.0))
    assert (rates.of("http://a:1"), rates.of("http://b:1")) == (250.0, None)
    rates.add(snapshot({**BUSY, "tokens": {"output": 10}}, at=4.0))
    assert rates.of("http://a:1") is None
    rates.add(snapshot(NEW, at=6.0))
    assert rates.of("http://b:1") == 0.0


def test_rates_are_over_ten_seconds() -> None:
    """Requests end at once and count all their tokens then: a shorter time would jump."""
    rates = Rates()
    for second in range(0, 60, 2):
        output = 1000 * (second // 10)
        rates.add(snapshot({**BUSY, "tokens": {"output": output}}, at=float(second)))
    assert rates.of("http://a:1") == pytest.approx(100, rel=0.01)
    for second in range(60, 80, 2):
        rates.add(snapshot({**BUSY, "tokens": {"output": 5000}}, at=float(second)))
    assert rates.of("http://a:1") == 0.0


def test_panic_is_said() -> None:
    """It means that the pool uses what it would rather not."""
    *_, line = table(snapshot(BUSY, pool={**POOL, "panic": True}), Rates())
    assert line.endswith("batch 12, all that live are used (panic)")


def test_replicas_of_one_model_together() -> None:
    """In the order of the models; within one in that of the pool."""
    others = [{**NEW, "url": f"http://{name}", "models": [model]} for name, model in ("xb", "ya")]
    lines = table(snapshot(BUSY, *others), Rates())
    assert [cells(line)[1] for line in lines[1:4]] == ["http://y", "http://x", "http://a:1"]


def test_nothing_there() -> None:
    """A Triolet that still looks for engines."""
    lines = table(read_snapshot(0.0, b'{"pools":[]}', b'{"replicas":[]}'), Rates())
    assert lines[0].startswith("MODEL  REPLICA")
    assert lines[1:] == [""]


def test_names_cannot_steer_the_terminal() -> None:
    """An engine may call its model what it likes."""
    evil = "m\x1b[2J\r\n\x9b31m"
    lines = table(snapshot({**BUSY, "models": [evil]}, pool={**POOL, "model": evil}), Rates())
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b"<html>", b'{"replicas":[{}]}', b'{"replicas":1}', b"\xff"]
)
def test_other_answers(answer: bytes) -> None:
    """Whatever it is, it is refused in one way."""
    with pytest.raises(ValueError, match=r"\w"):
        read_snapshot(0.0, b'{"pools":[]}', answer)


@given(st.lists(st.text(st.characters(codec="ascii"), max_size=30), max_size=20))
def test_columns_stand_straight(names: list[str]) -> None:
    """However long the names are, a column begins and ends in the same place on every line."""
    lines = table(snapshot(*({**BUSY, "url": name} for name in names)), Rates())
    rows = lines[: len(names) + 1]
    assert len({line.rindex(cell) + len(cell) for line in rows for cell in [line.split()[-1]]}) == 1


@given(
    st.lists(st.text(max_size=300), max_size=60),
    st.integers(min_value=20, max_value=200),
    st.integers(min_value=2, max_value=50),
)
def test_fits_the_screen(lines: list[str], columns: int, rows: int) -> None:
    """Nothing wraps or scrolls, or drawing over it would leave remains."""
    found = fitted(lines, columns, rows)
    assert len(found) <= rows
    assert all(len(line) <= columns for line in found)
    assert found[0] == lines[0] if lines and len(lines[0]) <= columns else True


def test_what_does_not_fit_is_counted() -> None:
    """So that nobody takes a part for all."""
    assert fitted(["a", "b", "c", "d"], 80, 3) == ["a", "b", "... 2 more lines"]
    assert fitted(["abcdef"], 4, 3) == ["abc…"]
