"""How requests to the outside are made; the configuration's table `[web]`."""

from __future__ import annotations

import msgspec

__all__ = ["WebSettings"]


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and exceptions. Each request brings its own times and sizes."""

    allow: tuple[str, ...] = ()
    """What is inside and may be requested all the same: "sandbox", "sandbox:8194",
    "*.corp.example", "10.1.0.0/16", "http://sandbox:8194". Link-local addresses, where clouds keep
    credentials, only by their address."""
    deny: tuple[str, ...] = ()
    """What may not be requested, though it is outside; counts before `allow`. With a proxy, names
    in it and addresses in URLs: the addresses behind names are the proxy's to check."""
    proxy: str | None = None
    """http://[user:password@]host:port of a forward proxy that checks on its own, such as squid.
    What `allow` names is requested directly."""
    connections: int = 256
    """At the same time, in all; further requests wait."""
    connections_per_host: int = 32
    """At the same time, to one origin."""
    idle_connections: int = 64
    """Kept for further requests."""
    idle_s: float = 15.0
    """How long a connection is kept."""
    resolve_s: float = 5.0
    """For a name to be resolved."""
    redirects: int = 10
    """Followed at most."""
