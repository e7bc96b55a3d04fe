"""Keeps `Replica.gpu` current: one thread for the GPUs of this machine, one task for each exporter.

Policies read the snapshots and wait for nothing here.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import random
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import trio

from balancer.probes.gpu_exporter import ExporterPage
from balancer.probes.gpu_local import LocalGpus, LocalReplica
from balancer.probes.gpu_processes import Endpoint, is_local
from balancer.probes.gpu_sample import GpuSample, chosen, reading
from balancer.probes.gpu_thread import DriverThread
from balancer.probes.nvml import NvmlAbsent, NvmlUnavailable
from balancer.probes.steady import keep_going
from balancer.readings import GpuReading
from balancer.replica import Replica
from balancer.wire.connect import Dialer, Origin
from balancer.wire.fetch import FetchFailed, fetch

__all__ = ["GpuPlace", "GpuProbes", "reading", "remote_reading"]

log = logging.getLogger("triolet.gpu")

_HERE: Final = "here"
_RETRY_MAX_S: Final = 60.0
"""The longest pause after a failure; it doubles up to here."""
_FETCH_S: Final = 2.0
_RESOLVE_S: Final = 2.0
_LOCATE_S: Final = 5.0
"""How soon names that could not be looked up are tried again, at first."""
_READ_HERE_BYTES: Final = 65_536
_VAIN_LOOKS: Final = 30
_MISSED_MAX: Final = 3
"""So many pages in a row may fail before what is known counts as unknown."""


class GpuPlace(NamedTuple):
    """What the configuration says of a replica's GPUs."""

    gpus: tuple[int | str, ...] = ()
    """By index or UUID; empty finds them by itself."""
    exporter: str | None = None
    """URL of the exporter on its machine; None is this machine."""


class GpuProbes:
    """Reads the GPUs of a changing set of replicas. `run` in a nursery, `watch` at each change.

    A replica on another machine and without an exporter has no reading.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        place_of: Callable[[Replica], GpuPlace] = lambda _: GpuPlace(),
        interval_s: float = 1.0,
        local: LocalGpus | None = None,
    ) -> None:
        self._dialer = dialer
        self._place_of = place_of
        self._interval_s = interval_s
        self._gpus = local or LocalGpus()
        self._thread = DriverThread()
        self._here: dict[Replica, GpuPlace] = {}
        self._at_exporter: dict[str, list[Replica]] = {}
        self._fetching: dict[str, trio.CancelScope] = {}
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._trouble: dict[str, str] = {}
        self._unknown: dict[Replica, int] = {}

    async def run(
        self,
        replicas: Iterable[Replica],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Probe until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self.watch(replicas)
            task_status.started()
            await keep_going("reading the GPUs of this machine", self._keep_sampling)

    def watch(self, replicas: Iterable[Replica]) -> None:
        """Read the GPUs of these from now on, and of no others."""
        places = {replica: self._place_of(replica) for replica in replicas}
        for gone in {*self._here, *_flat(self._at_exporter)} - set(places):
            gone.gpu = None
            self._unknown.pop(gone, None)
        self._here = {r: place for r, place in places.items() if place.exporter is None}
        self._at_exporter = {}
        for replica, place in places.items():
            if place.exporter is not None:
                self._at_exporter.setdefault(place.exporter, []).append(replica)
        known = {_HERE, *self._at_exporter, *(replica.name for replica in places)}
        self._trouble = {about: why for about, why in self._trouble.items() if about in known}
        self._changed.set()
        self._fetch_from(self._at_exporter)

    # -- this machine

    async def _keep_sampling(self) -> None:
        pause_s, locate_s = self._interval_s, _LOCATE_S
        while True:
            self._changed = trio.Event()
            here, unknown = await _locate_all(self._here)
            locate_at = trio.current_time() + locate_s if unknown else math.inf
            locate_s = min(2 * locate_s, _RETRY_MAX_S) if unknown else _LOCATE_S
            while here and not self._changed.is_set() and trio.current_time() < locate_at:
                answered = await self._sample(here)
                pause_s = self._interval_s if answered else min(2 * pause_s, _RETRY_MAX_S)
                with trio.move_on_after(pause_s):
                    await self._changed.wait()
            if not here:
                await self._let_go()
                with trio.move_on_at(locate_at):
                    await self._changed.wait()

    async def _sample(self, here: Sequence[LocalReplica]) -> bool:
        """Whether NVML answered."""
        readings: dict[str, GpuReading | None] = {}
        answered, trouble = True, ""
        now = trio.current_time()
        try:
            readings = await self._thread.run(lambda: self._gpus.look(here, now))
        except NvmlUnavailable as exc:
            answered = False
            trouble = "" if isinstance(exc, NvmlAbsent) else str(exc)
        self._tell(_HERE, "GPUs of this machine", trouble)
        for replica in tuple(self._here):
            self._set(replica, readings.get(replica.name))
            if replica.name in readings:
                self._count_unknown(replica)
        return answered

    def _count_unknown(self, replica: Replica) -> None:
        """Say once that the GPUs of an engine that serves were looked for in vain."""
        if replica.gpu is not None or not replica.probed_up:
            self._unknown.pop(replica, None)
            return
        looks = self._unknown[replica] = self._unknown.get(replica, 0) + 1
        if looks == _VAIN_LOOKS:
            log.info(
                "replica %s: no process on this machine's GPUs could be tied to it. If it has one: "
                "is it another user's, or in a container? Then name its GPUs with `gpus`",
                replica.name,
            )

    async def _let_go(self) -> None:
        """No replica is here: the driver may be unloaded, or a GPU reset."""
        with suppress(NvmlUnavailable):
            await self._thread.run(self._gpus.close)

    # -- other machines

    def _fetch_from(self, urls: Iterable[str]) -> None:
        wanted = set(urls)
        for url in self._fetching.keys() - wanted:
            self._fetching.pop(url).cancel("no replica has this exporter any more")
        for url in wanted - self._fetching.keys():
            if self._nursery is not None:
                scope = self._fetching[url] = trio.CancelScope()
                self._nursery.start_soon(self._run_fetching, url, scope)

    async def _run_fetching(self, url: str, scope: trio.CancelScope) -> None:
        with scope:
            await keep_going(f"reading GPU exporter {url}", partial(self._keep_fetching, url))

    async def _keep_fetching(self, url: str) -> None:
        page, missed, pause_s = ExporterPage(), 0, self._interval_s
        while True:
            samples = await self._fetch(url, page)
            missed = 0 if samples else missed + 1
            if samples or missed >= _MISSED_MAX:
                self._spread(url, samples)
            pause_s = self._interval_s if samples else min(2 * pause_s, _RETRY_MAX_S)
            await trio.sleep(pause_s * random.uniform(0.9, 1.1))

    async def _fetch(self, url: str, page: ExporterPage) -> list[GpuSample]:
        """Empty if nothing could be had."""
        samples: list[GpuSample] = []
        try:
            origin = Origin.parse(url)
            host, path = origin._replace(base=""), origin.base or "/metrics"
            status, body = await fetch(self._dialer, host, path, limit_s=_FETCH_S)
            trouble = f"it answered {status}" if status != 200 else ""
            if not trouble:
                samples = await _read(page, body)
                trouble = "" if samples else "its page tells of no GPU"
        except FetchFailed as exc:
            trouble = getattr(exc, "why", "") or str(exc)
        except ValueError as exc:  # of the URL, or a page that no exporter writes
            trouble = str(exc)
        self._tell(url, f"GPU exporter {url}", trouble)
        return samples

    def _spread(self, url: str, samples: Sequence[GpuSample]) -> None:
        for replica in tuple(self._at_exporter.get(url, ())):
            place, port = self._place_of(replica), replica.origin.port
            self._set(replica, remote_reading(samples, place.gpus, port, trio.current_time()))
            unclear = replica.gpu is None and len(samples) > 1
            self._tell(
                replica.name,
                f"GPU exporter {url}, replica {replica.name}",
                f"which of the {len(samples)} GPUs are its? Say so with `gpus`" if unclear else "",
            )

    # -- news

    def _set(self, replica: Replica, now: GpuReading | None) -> None:
        before = replica.gpu.fault if replica.gpu is not None else None
        replica.gpu = now
        fault = now.fault if now is not None else None
        if fault is not None and fault != before:
            # An exporter's own words: they must not look like other lines, nor steer a terminal.
            shown = "".join(char if char.isprintable() else "?" for char in fault)
            log.warning("replica %s: %s", replica.name, shown)

    def _tell(self, about: str, what: str, trouble: str) -> None:
        """Log what is new: trouble, other trouble, its end."""
        before = self._trouble.get(about, "")
        self._trouble[about] = trouble
        if trouble and trouble != before:
            log.warning("%s: %s", what, trouble)
        elif before and not trouble:
            log.info("%s: readable again", what)


def remote_reading(
    samples: Sequence[GpuSample], gpus: tuple[int | str, ...], port: int, at: float
) -> GpuReading | None:
    """What an exporter's GPUs mean for a replica that listens on `port` of its machine.

    The configured ones; else, from Triolet's agent, those whose processes listen there; else the
    only one there is. None if it cannot be told.
    """
    processes = [process for sample in samples for process in sample.processes or ()]
    pids = {process.pid for process in processes if port in process.ports}
    if gpus:
        own = chosen(samples, gpus)
    elif pids:
        own = [s for s in samples if any(p.pid in pids for p in s.processes or ())]
    else:
        own = list(samples) if len(samples) == 1 else []
    return reading(own, pids, at)


async def _read(page: ExporterPage, body: bytes) -> list[GpuSample]:
    """The GPUs on a page; about 1 ms for each 80 KB, so a large one is read in a thread."""
    now = trio.current_time()
    if len(body) <= _READ_HERE_BYTES:
        return page.read(body, now)
    return await trio.to_thread.run_sync(page.read, body, now, abandon_on_cancel=True)


async def _locate_all(places: Mapping[Replica, GpuPlace]) -> tuple[list[LocalReplica], bool]:
    """The replicas on this machine, and whether any name could not be looked up. Takes no longer
    than the slowest name."""
    found: list[LocalReplica] = []
    unknown = False

    async def locate(replica: Replica, place: GpuPlace) -> None:
        nonlocal unknown
        addresses = await _addresses(replica.origin)
        unknown = unknown or addresses is None
        here = _located(replica, place, addresses or [])
        if here is not None:
            found.append(here)

    async with trio.open_nursery() as nursery:
        for replica, place in places.items():
            nursery.start_soon(locate, replica, place)
    return found, unknown


def _located(replica: Replica, place: GpuPlace, addresses: Iterable[str]) -> LocalReplica | None:
    """Where a replica listens on this machine; None if it does not, and has no GPUs given."""
    origin = replica.origin
    addresses = [address for address in addresses if is_local(address)]
    if not addresses and not place.gpus:
        return None
    endpoints = tuple(Endpoint(address, origin.port) for address in addresses)
    return LocalReplica(replica.name, endpoints, place.gpus)


async def _addresses(origin: Origin) -> list[str] | None:
    """The IP addresses of its host; None if they cannot be found out in time."""
    try:
        return [str(ipaddress.ip_address(origin.host))]
    except ValueError:
        pass
    with trio.move_on_after(_RESOLVE_S):
        try:
            answer = await trio.socket.getaddrinfo(
                origin.host, origin.port, type=socket.SOCK_STREAM
            )
            return list(dict.fromkeys(str(address[0]) for *_, address in answer))
        except (OSError, UnicodeError):
            return None
    return None


def _flat(groups: dict[str, list[Replica]]) -> list[Replica]:
    return [replica for group in groups.values() for replica in group]
