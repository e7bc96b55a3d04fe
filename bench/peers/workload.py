"""What the gateways are asked: by default, conversations in which it matters who answers."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from bench.workload.model import Workload
from bench.workload.named import WORKLOADS, WorkloadOptions, named_workload
from bench.workload.synthetic import SyntheticOptions, synthetic

__all__ = ["DOCUMENTS", "workload_names", "workload_of"]

DOCUMENTS: Final = "documents"
_TURNS: Final = 5
_ABOUT: Final = (
    "Talks of 5 turns about a text of 2,000 tokens, after a system prompt of 500 that all share; "
    "60 tokens in and 48 out each turn, half a second between turns: every turn repeats the text, "
    "so it is answered soonest where the text was read before."
)
_NAMED_REQUESTS: Final = 75
"""So many requests for each replica the smallest of the named workloads has."""


def workload_names() -> list[str]:
    """Every name that `workload_of` takes; the default first."""
    return [DOCUMENTS, *WORKLOADS]


def workload_of(
    name: str, *, requests: int, concurrency: int, replicas: int, seed: int
) -> Workload:
    """Enough sessions for so many requests, the same ones for the same seed: none is begun twice,
    though so many are not at their end when the last request is sent.

    Raises ValueError for a name that there is not.
    """
    if name == DOCUMENTS:
        return _documents(math.ceil(requests / _TURNS) + concurrency, seed)
    if name not in WORKLOADS:
        raise ValueError(f"no workload {name!r}; there are {', '.join(workload_names())}")
    scale = max(1.0, (requests + _TURNS * concurrency) / (_NAMED_REQUESTS * replicas))
    return named_workload(name, WorkloadOptions(replicas=replicas, scale=scale, seed=seed))


def _documents(sessions: int, seed: int) -> Workload:
    options = SyntheticOptions(
        num_sessions=sessions,
        session_turns_mean=_TURNS,
        shared_system_prompt_length=500,
        user_context_prompt_length=2000,
        synthetic_input_tokens_mean=60,
        synthetic_input_tokens_stddev=20,
        output_tokens_mean=48,
        output_tokens_stddev=8,
        # Without a pause, a turn would come while its replica is the least loaded one just because
        # it has answered the turn before: balancing by load would look like balancing by prefix.
        session_turn_delay_mean=500,
        session_turn_delay_stddev=200,
        seed=seed,
    )
    return msgspec.structs.replace(synthetic(options, DOCUMENTS), about=_ABOUT)
