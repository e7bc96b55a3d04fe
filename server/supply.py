"""The pools that are served, and where their replicas come from: the configuration, what is found
on this machine, or a demo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import trio

from balancer.catalog import Catalog
from balancer.probes.discovery import Found, discover
from balancer.probes.dns import NameWatch
from balancer.probes.steady import keep_going
from balancer.wire.connect import TcpDialer
from balancer.wire.poller import Poller
from server.announce import Source
from server.config import Config, PoolConfig, ReplicaConfig, load_replicas
from server.edge.accept import bind
from server.edge.http1 import Http1Server
from server.listing import ListingWatch, Read
from server.membership import Membership
from server.pools import PoolBuilder
from server.probing import Probing

__all__ = ["Supply"]

_DEMO_REPLICAS: Final = 2


class Supply:
    """Fills a catalog, keeps it true, and asks its replicas how they are. `start` once."""

    def __init__(self, config: Config, poller: Poller, *, read_listing: Read | None = None) -> None:
        """`poller` must run by the time of `start`; `read_listing` reads a `replicas_file`."""
        self._config = config
        self._poller = poller
        self._dialer = TcpDialer(poller)
        self._builder = PoolBuilder(self._dialer, config.breaker)
        self.catalog = Catalog()
        self.membership = Membership(config.pool)
        self._coming: Membership | None = None
        """What is to be served once its files are read and its names looked up."""
        self._found: dict[str, Found] = {}
        self._discovery = trio.CancelScope()
        self._names = NameWatch(self._resolved, interval_s=config.probes.dns_s)
        self._listings = ListingWatch(self._listed, read_listing or _read_listing)
        self._probing = Probing(config, self._dialer, self.catalog, self._builder.config_of)

    async def start(self, nursery: trio.Nursery) -> Source:
        """Fill the catalog and ask its replicas from now on; says where they are from."""
        source = await self._fill(nursery)
        await self._probing.start(nursery)
        return source

    async def _fill(self, nursery: trio.Nursery) -> Source:
        """The configured pools; else the engines on this machine; else the demo."""
        if self._config.pool:
            await self._serve_pools(self._config.pool)
        nursery.start_soon(self._names.run)
        nursery.start_soon(self._listings.run)
        if self._config.pool:
            return "configuration"
        nursery.start_soon(self._keep_discovering)
        if await self._discover():
            return "discovery"
        urls = [await self._start_demo(nursery, index) for index in range(_DEMO_REPLICAS)]
        self.catalog.replace(self._builder.demo(urls))
        return "demo"

    async def reload(self, pools: Sequence[PoolConfig]) -> None:
        """Serve these from now on, and nothing that was found here."""
        self._discovery.cancel("pools are configured now")
        await self._serve_pools(pools)
        self._probing.watch()

    async def _serve_pools(self, pools: Sequence[PoolConfig]) -> None:
        """Serve these, once what their files list is read, and their names are looked up. Until
        then those that there are go on with what they have."""
        self._coming = self.membership.coming(pools)
        try:
            self._watch_sources()
            await self._listings.look()
            self._watch_sources()  # a file may list names
            await self._names.look_at_all()
        finally:
            self._coming = None
        self.membership.configure(pools)
        self._watch_sources()
        self.catalog.replace(self._builder.configured(self.membership))

    def _watch_sources(self) -> None:
        wanted = [self.membership] if self._coming is None else [self.membership, self._coming]
        self._listings.watch({path for one in wanted for path in one.files})
        self._names.watch({host for one in wanted for host in one.hosts})

    def _listed(self, path: str, replicas: tuple[ReplicaConfig, ...]) -> None:
        self.membership.listed(path, replicas)
        self.refresh_members()

    def _resolved(self, host: str, addresses: tuple[str, ...]) -> None:
        self.membership.resolved(host, addresses)
        self.refresh_members()

    def refresh_members(self) -> None:
        """The pools' replicas are those that the sources list now. Nothing in flight is disturbed.

        Before configured pools are there this does nothing.
        """
        if self.catalog.pools and self.membership.pools:
            self._watch_sources()
            self.catalog.update(self._builder.members(self.membership))
            self._probing.watch()

    async def _keep_discovering(self) -> None:
        """Find engines and models that come later; those that leave are found down, and stay."""
        with self._discovery:
            await keep_going("looking for engines here", self._discover_again)

    async def _discover_again(self) -> None:
        while True:
            await trio.sleep(self._config.probes.discovery_s)
            if await self._discover():
                self._probing.watch()

    async def _discover(self) -> bool:
        """Look for engines here. True if any was ever found; the catalog has them then."""
        found = await discover(self._dialer)
        if self._discovery.cancel_called:  # pools were configured meanwhile
            return False
        self._found |= {engine.url: engine for engine in found}
        if self._found:
            engines, known = list(self._found.values()), self.catalog.pools
            self.catalog.replace(self._builder.discovered(engines, known))
        return bool(self._found)

    async def _start_demo(self, nursery: trio.Nursery, index: int) -> str:
        from bench.replica import ReplicaSettings, create_app  # only if there is nothing else

        sock = bind("127.0.0.1", 0)
        app = create_app(ReplicaSettings(name=f"demo-{index}", seed=index))
        await nursery.start(Http1Server(app, self._poller).serve, [sock])
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def _read_listing(path: str) -> tuple[ReplicaConfig, ...]:
    return load_replicas(path, environ=os.environ)
