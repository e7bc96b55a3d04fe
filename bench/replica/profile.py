"""The profile that a simulated replica runs on: found, changed, set to another time scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.engine import Profile, ProfileError, find_profile
from bench.engine.profile import read_profile

__all__ = ["load_profile"]

_TIMES: Final = (
    *("step_s", "sequence_s", "weights_s", "token_s", "attention_s", "context_s"),
    *("expert_weights_s", "link_s", "request_s", "request_token_s"),
)


def load_profile(name: str, *, time_scale: float = 1.0, **changes: Any) -> Profile:
    """The profile called `name`, or in the JSON file of that path, with `changes` to its fields.

    With `time_scale` all of its times are multiplied, so that their ratios stay. The context is
    bounded by the memory unless `max_model_len` is among the changes.

    Raises ProfileError for what cannot be: an engine would refuse to start with it.
    """
    if not 0 < time_scale < math.inf:
        raise ProfileError(f"time scale {time_scale!r}: expected a factor above 0")
    if name.endswith(".json") or "/" in name:
        profile = msgspec.structs.replace(read_profile(Path(name)), **changes)
    else:
        profile = find_profile(name, **changes)
    profile = _with_context(profile, asked="max_model_len" in changes)
    if profile.max_num_batched_tokens < profile.max_num_seqs:
        raise ProfileError(
            f"profile {profile.name}: max_num_batched_tokens = {profile.max_num_batched_tokens} "
            f"is less than max_num_seqs = {profile.max_num_seqs}: a step could not take them all"
        )
    scaled = {key: getattr(profile, key) * time_scale for key in _TIMES}
    return msgspec.structs.replace(profile, **scaled)


def _with_context(profile: Profile, *, asked: bool) -> Profile:
    room = profile.kv_blocks * profile.block_tokens
    if profile.max_model_len <= room:
        return profile
    if asked:
        raise ProfileError(
            f"profile {profile.name}: max_model_len = {profile.max_model_len} does not fit into "
            f"the memory for keys and values ({room} tokens)"
        )
    return msgspec.structs.replace(profile, max_model_len=room)
