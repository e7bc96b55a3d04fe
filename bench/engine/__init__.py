"""The engine simulator: continuous batching as vLLM does it, on a clock that others hold.

`Engine` is pure: times go in and come out as numbers. `Clockwork` drives engines under Trio, on the
real clock or a virtual one.
"""

from bench.engine.clockwork import Clockwork, JumpClock
from bench.engine.engine import Engine, EngineSnapshot
from bench.engine.profile import Profile, ProfileError
from bench.engine.profiles import PROFILES, find_profile
from bench.engine.sequence import Sequence

__all__ = [
    "PROFILES",
    "Clockwork",
    "Engine",
    "EngineSnapshot",
    "JumpClock",
    "Profile",
    "ProfileError",
    "Sequence",
    "find_profile",
]
