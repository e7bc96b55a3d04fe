"""How templates of Jinja are understood, the same in this process and in workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["make_environment"]


def make_environment() -> ImmutableSandboxedEnvironment:
    """A new one, of jinja2's sandbox: templates do not reach Python's insides, nor change what
    they are given. What is undefined is empty; nothing is escaped."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment()
