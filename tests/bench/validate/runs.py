"""Recorded runs for the tests, made by an engine whose constants are known."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from bench.engine import Engine, Profile, Sequence
from bench.workload.model import Segment

__all__ = ["META", "write_run"]

META: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "vllm_version": "0.19.0",
    "engine_kwargs": {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "max_model_len": None},
    "hardware": {"device_name": "NVIDIA H100 80GB HBM3"},
}


def write_run(
    directory: Path, profile: Profile, *, requests: int = 60, prefix: str = "", seed: int = 1
) -> list[Sequence]:
    """Requests that `profile` has served, as a recorder writes them: wall clock and another."""
    chance = random.Random(seed)
    engine = Engine(profile)
    at_s, sequences, blocks = 0.0, [], []
    for number in range(requests):
        at_s += chance.expovariate(12)
        own = [10_000 * number + i for i in range(chance.randint(10, 60))]
        blocks.append([*range(20 * (number % 2)), *own])
        prompt = tuple(Segment(block + 1, 16) for block in blocks[-1])
        sequences.append(Sequence(prompt, chance.randint(20, 200), 10**9 + number))
        engine.submit(sequences[-1], at_s)
    engine.advance(math.inf)
    lines = [_line(number, sequence) for number, sequence in enumerate(sequences)]
    (directory / f"{prefix}requests.jsonl").write_text("\n".join(lines) + "\n")
    rows = [
        json.dumps({"input_length": 16 * len(each), "output_length": 1, "blocks": each})
        for each in blocks
    ]
    (directory / "workload.jsonl").write_text("\n".join(rows) + "\n")
    (directory / f"{prefix}meta.json").write_text(json.dumps(META))
    return sequences


def _line(number: int, sequence: Sequence) -> str:
    assert sequence.first_token_s is not None
    assert sequence.finished_s is not None
    return json.dumps(
        {
            "request_id": f"bench-{number}",
            "input_toks": sequence.prompt_tokens,
            "output_toks": sequence.output_tokens,
            "arrival_time": 1.7e9 + sequence.arrived_s,
            "queued_ts": 5000 + sequence.arrived_s,
            "scheduled_ts": 5000 + (sequence.scheduled_s or 0.0),
            "first_token_ts": 5000 + sequence.first_token_s,
            "last_token_ts": 5000 + sequence.finished_s,
        }
    )
