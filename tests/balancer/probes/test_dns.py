"""Names that stand for many replicas: looked up again and again, and never lost by a bad answer."""

from __future__ import annotations

import logging
import socket
from itertools import pairwise

import pytest
import trio
import trio.testing

from balancer.probes.dns import NameWatch, look_up

Clock = trio.testing.MockClock


class Resolver:
    """A DNS that says what a test wants, and the watch that asks it."""

    def __init__(self, *, interval_s: float = 10.0) -> None:
        self.zone: dict[str, tuple[str, ...] | Exception] = {}
        self.asked: list[tuple[float, str]] = []
        self.slow_s = 0.0
        self.told: list[tuple[str, tuple[str, ...]]] = []
        self.watch = NameWatch(
            lambda host, addresses: self.told.append((host, addresses)),
            interval_s=interval_s,
            limit_s=5.0,
            look_up=self.look_up,
        )

    async def look_up(self, host: str) -> tuple[str, ...]:
        self.asked.append((trio.current_time(), host))
        await trio.sleep(self.slow_s)
        found = self.zone.get(host, socket.gaierror("no such name"))
        if isinstance(found, Exception):
            raise found
        return found


async def test_told_once_for_each_change() -> None:
    """The first addresses, others, and nothing while they stay the same."""
    dns = Resolver()
    dns.zone["many"] = ("10.0.0.1", "10.0.0.2")
    dns.watch.watch(["many"])
    await dns.watch.look_at_all()
    await dns.watch.look_at_all()
    assert dns.told == [("many", ("10.0.0.1", "10.0.0.2"))]
    dns.zone["many"] = ("10.0.0.2",)
    await dns.watch.look_at_all()
    assert dns.told[1:] == [("many", ("10.0.0.2",))]


@pytest.mark.parametrize(
    "failure", [socket.gaierror("no such name"), OSError("no network"), UnicodeError("label empty")]
)
async def test_a_failing_dns_takes_nobody_away(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The addresses stay as they were. It is said once, and again after it went well between."""
    dns = Resolver()
    dns.zone["many"] = ("10.0.0.1",)
    dns.watch.watch(["many"])
    await dns.watch.look_at_all()
    for _ in range(2):
        dns.zone["many"] = failure
        await dns.watch.look_at_all()
        await dns.watch.look_at_all()
        dns.zone["many"] = ("10.0.0.1",)
        await dns.watch.look_at_all()
    assert len(dns.told) == 1
    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings == [f"cannot look up many, its replicas stay as they are: {failure}"] * 2


async def test_a_slow_dns_is_given_up(autojump_clock: Clock) -> None:
    """All names at the same time, for `limit_s` at most."""
    dns = Resolver()
    dns.zone = {"one": ("10.0.0.1",), "two": ("10.0.0.2",)}
    dns.slow_s = 60.0
    dns.watch.watch(dns.zone)
    began = trio.current_time()
    await dns.watch.look_at_all()
    assert trio.current_time() - began == pytest.approx(5.0)
    assert dns.told == []
    dns.slow_s = 4.0
    await dns.watch.look_at_all()
    assert trio.current_time() - began == pytest.approx(9.0)
    assert sorted(dns.told) == [("one", ("10.0.0.1",)), ("two", ("10.0.0.2",))]


async def test_asked_again_with_jitter(autojump_clock: Clock) -> None:
    """Every `interval_s`, a fifth more or less."""
    dns = Resolver(interval_s=10.0)
    dns.zone["many"] = ("10.0.0.1",)
    dns.watch.watch(["many"])
    with trio.move_on_after(200):
        await dns.watch.run()
    times = [at for at, _ in dns.asked]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(8.0 <= gap <= 12.0 for gap in gaps)
    assert len(set(gaps)) > 1
    assert 16 <= len(gaps) <= 25


async def test_a_new_name_is_asked_for_at_once(autojump_clock: Clock) -> None:
    """Not at the end of an interval."""
    dns = Resolver(interval_s=100.0)
    dns.zone = {"one": ("10.0.0.1",), "two": ("10.0.0.2",)}
    dns.watch.watch(["one"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dns.watch.run)
        await trio.sleep(10)
        dns.watch.watch(["one", "two"])
        await trio.sleep(1)
        assert ("two", ("10.0.0.2",)) in dns.told
        nursery.cancel_scope.cancel()


async def test_a_name_that_fails_is_not_asked_for_in_a_loop(autojump_clock: Clock) -> None:
    """To be told of the same names again, while one has no address yet, is no reason to ask."""
    dns = Resolver(interval_s=100.0)
    dns.watch.watch(["bad"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dns.watch.run)
        for _ in range(50):
            await trio.sleep(1)
            dns.watch.watch(["bad"])
        nursery.cancel_scope.cancel()
    assert len(dns.asked) == 1


async def test_dropped_names(autojump_clock: Clock) -> None:
    """Nobody is told of one dropped during its look-up; watched again, it is told again."""
    dns = Resolver()
    dns.zone["many"] = ("10.0.0.1",)
    dns.slow_s = 1.0
    dns.watch.watch(["many"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dns.watch.look_at_all)
        await trio.sleep(0.5)
        dns.watch.watch([])
    assert dns.told == []
    for _ in range(2):
        dns.watch.watch(["many"])
        await dns.watch.look_at_all()
        dns.watch.watch([])
    assert dns.told == [("many", ("10.0.0.1",))] * 2


async def test_the_resolver_of_the_system() -> None:
    """Each address once, in order, without ports."""
    assert await look_up("127.0.0.1") == ("127.0.0.1",)
    found = await look_up("localhost")
    assert set(found) <= {"127.0.0.1", "::1"}
    assert list(found) == sorted(set(found))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("10.0.0.2", 4), ("fd00::1", 6), ("10.0.0.1", 4)], ("10.0.0.1", "10.0.0.2")),
        ([("fd00::2", 6), ("fd00::1", 6)], ("fd00::1", "fd00::2")),
    ],
)
async def test_one_family_of_a_name(
    answers: list[tuple[str, int]], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with an address of each would be two replicas: IPv4, if there is any."""
    families = {4: socket.AF_INET, 6: socket.AF_INET6}

    async def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(families[ip], 1, 6, "", (address, 0)) for address, ip in answers]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    assert await look_up("many") == expected
