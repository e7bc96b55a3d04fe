"""Traces of block hashes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.workload.data import bundled
from bench.workload.lines import BadLine
from bench.workload.model import Prompt, Segment, prompt_tokens
from bench.workload.reuse import reuse
from bench.workload.traces.mooncake import BlockKeys, block_prompt, mooncake
from bench.workload.traces.options import TraceOptions


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def prompts(trace: Path, text: str, **options: Any) -> list[Prompt]:
    trace.write_text(text)
    return [s.turns[0].prompt for s in mooncake(trace, TraceOptions(**options)).sessions]


def test_prompts_share_the_blocks_they_both_name(trace: Path) -> None:
    """512 tokens each, the last one shorter."""
    one, other = prompts(
        trace,
        '{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
        '{"timestamp": 9, "input_length": 1024, "output_length": 5, "hash_ids": [0, 3]}',
    )
    assert [segment.tokens for segment in one] == [512, 512, 76]
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_block_cut_short_is_not_the_whole_block(trace: Path) -> None:
    """Same key, same length: an id with fewer tokens has another key."""
    whole, cut = prompts(
        trace,
        '{"timestamp": 0, "input_length": 512, "output_length": 5, "hash_ids": [7]}\n'
        '{"timestamp": 0, "input_length": 100, "output_length": 5, "hash_ids": [7]}',
    )
    assert whole[0].key != cut[0].key


def test_tokens_without_a_block_belong_to_the_request_alone(trace: Path) -> None:
    """Some traces name only whole blocks, some none."""
    one, other = prompts(
        trace,
        '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1]}\n'
        '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1]}',
    )
    assert [segment.tokens for segment in one] == [512, 88]
    assert one[0] == other[0]
    assert one[1].key != other[1].key
    assert [
        prompt_tokens(p)
        for p in prompts(trace, '{"timestamp": 0, "input_length": 600, "output_length": 5}')
    ] == [600]


def test_bailians_traces_have_seconds_and_blocks_of_16(trace: Path) -> None:
    """Told by their `chat_id`."""
    trace.write_text(
        '{"chat_id": 1, "timestamp": 61.5, "input_length": 40, "output_length": 2,'
        ' "hash_ids": [1, 2, 3], "type": "text", "turn": 1}\n'
        '{"chat_id": 2, "timestamp": 63.0, "input_length": 16, "output_length": 2,'
        ' "hash_ids": [1]}'
    )
    one, other = mooncake(trace).sessions
    assert [segment.tokens for segment in one.turns[0].prompt] == [16, 16, 8]
    assert other.turns[0].prompt == one.turns[0].prompt[:1]
    assert other.turns[0].due_s == 1.5


def test_ids_may_be_text_and_blocks_of_any_size(trace: Path) -> None:
    """Digests in place of numbers; the size given goes before the format's."""
    [prompt] = prompts(
        trace,
        '{"timestamp": 0, "input_length": 48, "output_length": 5, "hash_ids": ["ab", "cd"]}',
        block_tokens=32,
    )
    assert [segment.tokens for segment in prompt] == [32, 16]


def test_namespaces_share_nothing(trace: Path) -> None:
    """The same trace beside itself is other people's traffic."""
    line = '{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}'
    one = prompts(trace, line, namespace="one")
    other = prompts(trace, line, namespace="other")
    assert not set(one[0]) & set(other[0])


def test_keys_of_whole_blocks_differ() -> None:
    """Small, large and textual ids alike."""
    keys = BlockKeys("x")
    ids: list[int | str] = [0, 1, 2**40 - 1, 2**40, 2**62, "0", "1"]
    assert len({keys.key(each, 16, 16) for each in ids}) == len(ids)
    assert all(0 <= keys.key(each, 16, 16) < 2**63 for each in ids)


def test_a_prompt_of_exactly_its_blocks_has_no_rest() -> None:
    """No segment of no tokens."""
    keys = BlockKeys()
    assert block_prompt([1, 2], 32, 16, keys, 0) == (
        Segment(keys.key(1, 16, 16), 16),
        Segment(keys.key(2, 16, 16), 16),
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"timestamp": 0, "input_length": 10}', "output_length"),
        ('{"timestamp": 0, "input_length": 0, "output_length": 1}', "must be 1 or more"),
        ('{"timestamp": 0, "input_length": 10, "output_length": 0}', "must be 1 or more"),
        ('{"input_length": 10, "output_length": 1}', "no `timestamp`"),
        (
            '{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1, 2]}',
            "2 blocks of 512 tokens are more than 512 tokens",
        ),
        ('{"timestamp": "x", "input_length": 1, "output_length": 1}', "Expected"),
        ("nonsense", "JSON"),
    ],
)
def test_a_malformed_line_is_named(trace: Path, line: str, reason: str) -> None:
    """By file, line and what is wrong."""
    good = '{"timestamp": 0, "input_length": 10, "output_length": 1, "hash_ids": [1]}\n'
    with pytest.raises(BadLine, match=rf"trace\.jsonl:2: .*{reason}"):
        prompts(trace, good + line)
    assert len(prompts(trace, good + line, bad_lines="skip")) == 1


@pytest.mark.slow
def test_the_conversation_trace_has_its_published_reuse() -> None:
    """37.4 % of all tokens at 512-token granularity, 40.9 % mean over requests; 12,031 requests."""
    found = reuse(mooncake(bundled("conversation")))
    assert found.requests == 12_031
    assert found.tokens == 144_793_823
    assert found.share == pytest.approx(0.3736, abs=0.0001)
    assert found.request_share == pytest.approx(0.4094, abs=0.0001)


@pytest.mark.slow
def test_the_conversation_traces_stamps_are_spread() -> None:
    """Its 3-second stamps do not stay bursts, and all hour of it is replayed."""
    due = [session.turns[0].due_s or 0.0 for session in mooncake(bundled("conversation")).sessions]
    assert due == sorted(due)
    assert len(set(due)) == 12_031
    assert 3536 < due[-1] < 3541
    gaps = [later - earlier for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    variation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean
    assert variation == pytest.approx(1.0, abs=0.15)
