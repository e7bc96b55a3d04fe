"""The demo replica: a simulated model server that speaks OpenAI's API the way vLLM does.

`create_app` builds an ASGI 3 application; which server carries it is the caller's choice. With a
profile (`load_profile`) it runs on the engine simulator, without one at a steady pace.
"""

from __future__ import annotations

from bench.replica.app import Replica as Replica
from bench.replica.app import create_app as create_app
from bench.replica.faults import Faults as Faults
from bench.replica.profile import load_profile as load_profile
from bench.replica.settings import ReplicaSettings as ReplicaSettings

__all__ = ["Faults", "Replica", "ReplicaSettings", "create_app", "load_profile"]
