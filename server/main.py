"""The composition root: one top nursery, the signals, the exit code.

    top nursery      log writer, poller, probes, what watches names and files for members; the demo
                     replicas if there are any
      control          obeys signals; ends with the servers
        serving          the servers, one for plaintext and one for TLS

If a task of the top nursery fails, the process says why and stops. If one connection fails, only
that one does.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, Final, Protocol, TextIO

import trio

from balancer.decisions import Decisions
from balancer.probes.steady import keep_going
from balancer.wire.poller import Poller, open_poller
from server.admin_key import key_file, key_in_files
from server.announce import announce, announcement
from server.api.admin import AdminApi
from server.api.call import ENDPOINTS
from server.api.health import HealthApi
from server.api.openai import RelayApi
from server.api.respond import respond_error
from server.config import Address, Config, parse_listen
from server.edge.accept import bind
from server.edge.app import App, Route
from server.edge.connection import EdgeLimits
from server.edge.http1 import Http1Server
from server.edge.request import HeadLimits, Refusal
from server.errors import ApiError, error_body
from server.listing import Read
from server.observe.log import AccessLog, LineWriter, logging_to
from server.observe.looplag import LoopLag
from server.observe.metrics import EdgeCounts, Metrics
from server.observe.record import Record
from server.supply import Supply

__all__ = ["Triolet", "serve"]

log = logging.getLogger("triolet")

_LAST_WORDS_S: Final = 2.0
"""How long streams that are ended at shutdown have to send their error event."""


class EdgeServer(Protocol):
    """A server that carries the app."""

    async def serve(
        self, listeners: list[socket.socket], *, task_status: trio.TaskStatus[None]
    ) -> None: ...

    def stop_accepting(self) -> None: ...

    def abort(self) -> None: ...

    def counts(self) -> EdgeCounts: ...


class Triolet:
    """Everything that serves, put together from a `Config`. `run` once."""

    def __init__(
        self,
        config: Config,
        *,
        reload: Callable[[], Config] | None = None,
        read_listing: Read | None = None,
        log_stream: BinaryIO | None = None,
    ) -> None:
        """`reload` reads the configuration again, for SIGHUP, `read_listing` a `replicas_file`."""
        self._config = config
        self._reload = reload
        self._poller: Poller = open_poller()
        self.supply = Supply(config, self._poller, read_listing=read_listing)
        self.catalog = self.supply.catalog
        self._hangup = trio.Event()
        self._writer = LineWriter(log_stream or _stderr())
        self._lag = LoopLag()
        self._draining = False
        self.decisions = Decisions()
        self.metrics = Metrics(
            self.catalog, loop_busy=self._lag.busy, log_dropped=lambda: self._writer.dropped
        )
        self._access_log = AccessLog(self._writer, config.log_format, enabled=config.access_log)
        self.relay = RelayApi(
            self.catalog, body_bytes=config.limits.body_bytes, decisions=self.decisions
        )
        self.admin = AdminApi(
            self.catalog,
            self.supply.membership,
            self.decisions,
            key=config.admin.key,
            refresh=self.supply.refresh_members,
        )
        self.app = self._make_app()
        self._servers: list[EdgeServer] = []

    def _make_app(self) -> App:
        health = HealthApi(self.catalog, self.metrics, draining=lambda: self._draining)
        admin = self.admin
        routes = {path: Route(POST=self.relay.relay) for path in ENDPOINTS}
        routes |= {
            "/v1/models": Route(GET=self.relay.models),
            "/v1/models/": Route(GET=self.relay.model),
            "/healthz": Route(GET=health.healthz),
            "/health": Route(GET=health.healthz),  # where engines answer, and clients look
            "/readyz": Route(GET=health.readyz),
            "/metrics": Route(GET=health.metrics),
            "/admin/api/pools": Route(GET=admin.pools),
            "/admin/api/replicas": Route(GET=admin.replicas, POST=admin.add, DELETE=admin.remove),
            "/admin/api/replicas/drain": Route(POST=admin.drain),
            "/admin/api/decisions": Route(GET=admin.decisions),
            "/admin/api/decisions/": Route(GET=admin.decision),
        }
        return App(routes, respond_error, self._settle)

    def _settle(self, record: Record) -> None:
        """An exchange is over: log it, and count it if it was a model call."""
        self._access_log.write(record)
        if record.is_call:
            self.metrics.settle(record)

    async def run(
        self,
        *,
        out: TextIO | None = None,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until told to stop. Started with the URLs it listens on.

        Raises OSError if an address cannot be listened on.
        """
        trio.lowlevel.add_instrument(self._lag)
        listening = self._listen()
        servers = self._make_servers(listening)
        urls = [address.url for address, _ in listening]
        ports = [address.port for address, _ in listening]
        with logging_to(self._writer, self._config.log_format), self._key_of(ports):
            async with trio.open_nursery() as top:
                await top.start(self._writer.run)
                await top.start(self._poller.run)
                source = await self.supply.start(top)

                def ready() -> None:
                    announce(announcement(urls, self.catalog, source), out or sys.stdout)
                    task_status.started(urls)

                await self._serve(servers, ready)
                top.cancel_scope.cancel("every server is done")

    @contextmanager
    def _key_of(self, ports: Sequence[int]) -> Iterator[None]:
        """Where no key is configured, the admin API has one of its own meanwhile."""
        if self._config.admin.key is not None:
            yield
            return
        with ExitStack() as stack:
            path = key_file(ports[0], os.environ)
            try:
                self.admin.key = stack.enter_context(key_in_files(ports, os.environ))
            except OSError as exc:
                log.warning(
                    "the admin API answers nobody: its key cannot be written to %s (%s); "
                    "set admin.key",
                    path,
                    exc.strerror or exc,
                )
            yield

    def _listen(self) -> list[tuple[Address, socket.socket]]:
        listening = []
        for url in self._config.listen:
            asked = parse_listen(url)
            sock = bind(asked.host, asked.port)
            listening.append((asked._replace(port=sock.getsockname()[1]), sock))
        return listening

    async def _serve(
        self,
        servers: list[tuple[EdgeServer, list[socket.socket]]],
        ready: Callable[[], None],
    ) -> None:
        """Serve to the end. `ready` is called once signals are obeyed and clients accepted."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as control:
                control.start_soon(self._obey, signals, control)
                control.start_soon(keep_going, "reloading", self._keep_reloading)
                async with trio.open_nursery() as serving:
                    for server, sockets in servers:
                        self._servers.append(server)
                        self.metrics.edges.append(server.counts)
                        await serving.start(server.serve, sockets)
                    _settle_garbage()
                    ready()
                control.cancel_scope.cancel("every server is done")

    def _make_servers(
        self, listening: list[tuple[Address, socket.socket]]
    ) -> list[tuple[EdgeServer, list[socket.socket]]]:
        plain = [sock for address, sock in listening if address.scheme == "http"]
        secure = [sock for address, sock in listening if address.scheme == "https"]
        servers: list[tuple[EdgeServer, list[socket.socket]]] = []
        if plain:
            limits = _edge_limits(self._config)
            server = Http1Server(self.app, self._poller, limits, render=_render_refusal)
            servers.append((server, plain))
        if secure:
            from server.edge.tls import TlsServer  # Hypercorn takes a third of a second to import

            assert self._config.tls is not None, "checked by the configuration"
            tls = self._config.tls
            limits = _edge_limits(self._config)
            tls_server = TlsServer(
                self.app, limits, cert=tls.cert, key=tls.key, render=_render_refusal
            )
            servers.append((tls_server, secure))
        return servers

    async def _obey(self, signals: AsyncIterator[int], control: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._hangup.set()
            elif not self._draining:
                self.stop(control)
            else:
                log.warning("second signal: stopping at once")
                for server in self._servers:
                    server.abort()

    def stop(self, nursery: trio.Nursery) -> None:
        """Stop accepting, let exchanges finish for `drain_s`, then end them."""
        self._draining = True
        log.info(
            "stopping: %d calls in flight have %g s to finish",
            self.relay.in_flight,
            self._config.drain_s,
        )
        for server in self._servers:
            server.stop_accepting()
        nursery.start_soon(self._end_after_drain)

    async def _end_after_drain(self) -> None:
        await trio.sleep(self._config.drain_s)
        log.warning("drain_s has passed: ending %d calls", self.relay.in_flight)
        self.relay.end_all()
        await trio.sleep(_LAST_WORDS_S)
        for server in self._servers:
            server.abort()

    async def _keep_reloading(self) -> None:
        """One at a time, and apart from `_obey`: no file and no name may hold up a SIGTERM."""
        while True:
            await self._hangup.wait()
            self._hangup = trio.Event()
            await self._reload_pools()

    async def _reload_pools(self) -> None:
        """Take the pools from the configuration as it is now; keep the old ones if it is wrong."""
        if self._reload is None:
            return
        try:
            config = await trio.to_thread.run_sync(self._reload, abandon_on_cancel=True)
        except Exception as exc:
            log.error("SIGHUP: the pools stay as they are; the configuration is wrong:\n%s", exc)  # noqa: TRY400
            return
        if self._draining:
            return
        if not config.pool:
            log.warning("SIGHUP: the pools stay as they are; the configuration lists none")
            return
        await self.supply.reload(config.pool)
        log.info("SIGHUP: %d pools from the configuration", len(self.catalog.pools))


def _stderr() -> BinaryIO:
    """Where the log goes. A process may have been started with stderr closed."""
    stream = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    return stream.buffer


def _edge_limits(config: Config) -> EdgeLimits:
    limits = config.limits
    return EdgeLimits(
        head=HeadLimits(limits.header_bytes, limits.header_count, limits.body_bytes),
        connections=limits.connections,
        head_s=limits.head_s,
        body_s=limits.body_s,
        keep_alive_s=limits.keep_alive_s,
        write_s=limits.write_s,
    )


_REFUSAL_CODES: Final = {
    408: "request_timeout",
    413: "request_too_large",
    431: "request_headers_too_large",
    500: "internal_error",
    503: "overloaded",
}


def _render_refusal(refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """What the edge refuses by itself is told in the words of the API behind it."""
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    code = _REFUSAL_CODES.get(refusal.status, "bad_request")
    error = ApiError(refusal.status, refusal.message, type=kind, code=code)
    return [(b"content-type", b"application/json")], error_body(error)


def _settle_garbage() -> None:
    """What lives now lives on: keep the collector from walking it again and again.

    And let it walk what is new more rarely: hardly anything on the hot path is part of a cycle.
    With CPython's thresholds collecting took 4 % of the CPU of small requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def serve(config: Config, reload: Callable[[], Config]) -> None:
    """Run the server until it is told to stop. Raises OSError if it cannot listen."""
    trio.run(Triolet(config, reload=reload).run, strict_exception_groups=True)
