"""Code, templates and documents that are not ours: they run in locked-down processes, never here.

`Sandbox` is what the rest of the server uses. Its name is looked up late, because the processes
inside import this package too and want none of what the outside needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.sandbox.options import SandboxOptions
    from server.sandbox.sandbox import Sandbox

__all__ = ["Sandbox", "SandboxOptions"]


def __getattr__(name: str) -> Any:
    if name == "Sandbox":
        from server.sandbox.sandbox import Sandbox

        return Sandbox
    if name == "SandboxOptions":
        from server.sandbox.options import SandboxOptions

        return SandboxOptions
    raise AttributeError(name)
