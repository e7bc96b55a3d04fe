"""The demo replica: a simulated model server that speaks OpenAI's API the way vLLM does.

`create_app` builds an ASGI 3 application; which server carries it is the caller's choice.
"""

from __future__ import annotations

from bench.replica.app import create_app as create_app
from bench.replica.settings import ReplicaSettings as ReplicaSettings

__all__ = ["ReplicaSettings", "create_app"]
