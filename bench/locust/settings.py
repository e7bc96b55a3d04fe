"""What can be chosen about the load, by environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Settings", "read_settings"]

_PREFIX = "LOCUST_CHAT_"


@dataclass(frozen=True)
class Settings:
    """Each field is the variable `LOCUST_CHAT_` and its name in capitals.

    The server, users and duration are Locust's own options: --host, --users, --run-time.
    """

    model: str = "demo"
    path: str = "/v1/chat/completions"
    api_key: str = ""
    """Sent as a bearer token; empty for none."""
    turns: int = 1
    """Requests of a session; each carries what was said before it."""
    think_s: float = 0.0
    """Pause between an answer and the session's next turn."""
    prefixes: int = 4
    """How many system prompts there are; sessions take them in turn and share their tokens."""
    prefix_tokens: int = 0
    """Words of a system prompt; 0 for sessions without one."""
    input_tokens: int = 200
    """Words of what the user says in a turn."""
    output_tokens: int = 50
    """Limit of an answer, which `ignore_eos` makes its length with engines that know it."""
    requests: int = 0
    """After so many measured requests the run ends; 0 leaves the end to Locust."""
    warmup: int = 0
    """Requests each user sends before the measurement; then all begin together."""
    timeout_s: float = 300.0
    """For connecting, and for each pause within an answer."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{_PREFIX}{name.upper()} = {getattr(self, name)}: expected {least} or more"
                )


_LEAST = {
    **dict.fromkeys(("turns", "prefixes", "input_tokens", "output_tokens"), 1),
    **dict.fromkeys(("think_s", "prefix_tokens", "requests", "warmup", "timeout_s"), 0),
}


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings, with defaults for what `environment` does not name.

    Raises ValueError naming the variable that is unknown, no number, or out of range.
    """
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(Settings)}
    given: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(_PREFIX):
            continue
        name = variable.removeprefix(_PREFIX).lower()
        if name not in kinds:
            known = ", ".join(_PREFIX + each.upper() for each in kinds)
            raise ValueError(f"{variable} is not a setting; there are {known}")
        try:
            given[name] = kinds[name](value)
        except ValueError as error:
            raise ValueError(f"{variable} = {value!r}: expected a number") from error
    return Settings(**given)
