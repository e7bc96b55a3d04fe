"""GaugeProbes keep each replica's snapshot fresh, in virtual time, and never invent one."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from balancer.load import Charge
from balancer.policies import Outcome
from balancer.probes.engine_metrics import Reading
from balancer.probes.engine_places import Place
from balancer.probes.gauges import GaugeProbes
from balancer.readings import Gauges
from balancer.replica import Listener, Replica
from balancer.wire.connect import Origin
from balancer.wire.memory import MemoryDialer, memory_network
from balancer.wire.transport import Transport
from bench.replica.app import Replica as SimulatedReplica
from bench.replica.settings import ReplicaSettings
from tests.balancer.scripted import Act, Step, answer, read_request
from tests.bench.replica.driver import call, chat

Clock = trio.testing.MockClock
PAGES = Path(__file__).parent / "pages"
GONE = answer(b"", status=404)


class Engine:
    """Answers each path by a script; notes what it was asked, and when."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        self.scripts = {**scripts}
        self.asked: list[tuple[float, str]] = []
        self.heads: list[bytes] = []
        self.connections = 0

    async def __call__(self, source: Transport) -> None:
        self.connections += 1
        while (request := await read_request(source)) is not None:
            path = request.split(b" ")[1].decode()
            self.asked.append((trio.current_time(), path))
            self.heads.append(request)
            for step in self.scripts.get(path, [GONE]):
                if isinstance(step, bytes):
                    await source.send_all(step)
                elif isinstance(step, float):
                    await trio.sleep(step)
                elif step is Act.HANG:
                    await trio.sleep_forever()
                else:
                    source.close(reset=True)
                    return

    @property
    def paths(self) -> list[str]:
        return [path for _, path in self.asked]

    def gaps(self, path: str = "/metrics") -> list[float]:
        times = [at for at, asked in self.asked if asked == path]
        return [later - at for at, later in pairwise(times)]


def page(name: str) -> bytes:
    return (PAGES / f"{name}.txt").read_bytes()


def said(replica: Replica) -> Gauges | None:
    """Its snapshot, whatever was asserted of the last one."""
    return replica.gauges


def vllm(running: int, **more: float) -> Sequence[Step]:
    text = f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n"
    text += "".join(f"{name} {value}\n" for name, value in more.items())
    return [answer(text.encode(), content_type=b"text/plain")]


@asynccontextmanager
async def probing(
    network: MemoryDialer,
    *replicas: Replica,
    on_read: Callable[[Replica, Gauges, int], object] = lambda *_: None,
    pages: Mapping[str, Origin] | None = None,
) -> AsyncIterator[GaugeProbes]:
    probes = GaugeProbes(network, on_read=on_read, pages=pages)
    async with trio.open_nursery() as nursery:
        await nursery.start(probes.run, replicas)
        yield probes
        nursery.cancel_scope.cancel()


async def test_reads_what_it_serves(autojump_clock: Clock) -> None:
    """Within the first interval, then every 2 s with jitter, over one connection, with its key."""
    async with memory_network() as network:
        engine = Engine({"/metrics": [answer(page("vllm"))]})
        network.serve("http://a", engine)
        replica = Replica("http://a/v1", network, headers={b"authorization": b"Bearer key"})
        async with probing(network, replica):
            await trio.sleep(2.1)
            assert replica.gauges is not None
            assert (replica.gauges.running, replica.gauges.waiting) == (17, 4)
            assert trio.current_time() - 2.1 <= replica.gauges.at <= trio.current_time()
            await trio.sleep(120)
        gaps = engine.gaps()
        assert all(1.6 <= gap <= 2.4 for gap in gaps)
        assert 50 <= len(gaps) <= 75
        assert len(set(gaps)) > 10
        assert engine.connections == 1
        assert b"authorization: Bearer key\r\n" in engine.heads[0]
        assert network.open == 0


async def test_a_server_that_closes_is_connected_to_anew(autojump_clock: Clock) -> None:
    """After each answer, or just when it is asked again: no poll is lost."""
    async with memory_network() as network:
        closing = answer(page("tgi"), headers=[b"connection: close"])
        engine = Engine({"/metrics": [closing], "/info": [answer(b"{}")]})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        reads: list[float] = []
        async with probing(network, replica, on_read=lambda _, gauges, __: reads.append(gauges.at)):
            await trio.sleep(30)
        assert len(reads) == engine.paths.count("/metrics") >= 12
        assert network.open == 0


@pytest.mark.parametrize(
    ("scripts", "found", "running", "max_running"),
    [
        ({"/prometheus/metrics": [answer(page("trtllm"))]}, "/prometheus/metrics", 12, 256),
        (
            {"/v1/loads?include=core": [answer(b'{"loads":[{"num_running_reqs":3}]}')]},
            "/v1/loads?include=core",
            3,
            None,
        ),
        (
            {"/get_load": [answer(b'[{"num_reqs":4,"num_waiting_reqs":1}]')]},
            "/get_load",
            3,
            None,
        ),
        (
            {
                "/metrics": [answer(b"{}", status=501)],
                "/slots": [answer(b'[{"id":0,"is_processing":true}]')],
            },
            "/slots",
            1,
            1,
        ),
        (
            {
                "/metrics": [answer(page("llamacpp"))],
                "/props": [answer(b'{"total_slots":6}')],
            },
            "/metrics",
            3,
            6,
        ),
    ],
)
async def test_the_place_is_found_and_remembered(
    scripts: Mapping[str, Sequence[Step]],
    found: str,
    running: float,
    max_running: int | None,
    autojump_clock: Clock,
) -> None:
    """Whatever answers; the others are tried once only, and facts are asked for once."""
    async with memory_network() as network:
        engine = Engine(scripts)
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica):
            await trio.sleep(600)
        assert replica.gauges is not None
        assert (replica.gauges.running, replica.gauges.max_running) == (running, max_running)
        assert engine.paths.count(found) > 200
        assert len(engine.paths) - engine.paths.count(found) <= 8


async def test_a_place_that_only_hung_is_tried_again(autojump_clock: Clock) -> None:
    """trtllm-serve's /metrics hangs while idle; so might a page that is worth more."""
    async with memory_network() as network:
        engine = Engine(
            {"/metrics": [Act.HANG], "/slots": [answer(b'[{"id":0,"is_processing":false}]')]}
        )
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica):
            await trio.sleep(30)
            before = said(replica)
            assert before is not None
            assert before.waiting is None
            assert engine.paths.count("/metrics") == 1
            engine.scripts["/metrics"] = [answer(page("llamacpp"))]
            await trio.sleep(60)
            after = said(replica)
            assert after is not None
            assert after.waiting == 1
            await trio.sleep(200)
            assert engine.paths.count("/slots") < 60


async def test_one_that_tells_nothing_is_asked_rarely(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """After 4, 8, ... up to 60 s; no snapshot is made up; said once, with what was tried."""
    caplog.set_level(logging.INFO, "triolet.gauges")
    async with memory_network() as network:
        engine = Engine({})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica):
            await trio.sleep(600)
            assert said(replica) is None
            engine.scripts["/metrics"] = [answer(page("vllm"))]
            await trio.sleep(75)
            assert said(replica) is not None
    for gap, nominal in zip(engine.gaps(), [4, 8, 16, 32, *[60] * 9], strict=False):
        assert 0.8 * nominal <= gap <= 1.2 * nominal
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith(
        "replica http://a tells nothing of its load (tried http://a/metrics,"
    )
    assert lines[1] == "replica http://a: vllm tells its load at http://a/metrics"


@pytest.mark.parametrize(
    "steps",
    [
        [answer(b"", status=503)],
        [Act.RESET],
        [Act.HANG],
        [0.6, answer(page("vllm"))],
        [answer(page("vllm"))[:-100], Act.HANG],
        None,
    ],
)
async def test_one_that_does_not_answer_keeps_its_last(
    steps: Sequence[Step] | None, autojump_clock: Clock
) -> None:
    """Its age tells; back again it is read within an interval or two."""
    async with memory_network() as network:
        engine = Engine({"/metrics": vllm(7)})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica):
            await trio.sleep(5)
            last = replica.gauges
            if steps is None:
                engine.scripts["/metrics"] = [Act.RESET]
                network.refuse("http://a")
            else:
                engine.scripts["/metrics"] = steps
            await trio.sleep(60)
            kept = replica.gauges
            assert last is not None
            assert kept is not None
            assert kept.running == 7
            assert kept.at - last.at < 2.5
            engine.scripts["/metrics"] = vllm(9)
            network.serve("http://a", engine)
            await trio.sleep(5.5)
            assert replica.gauges is not None
            assert replica.gauges.running == 9
    assert network.open == 0


async def test_one_in_flight(autojump_clock: Clock) -> None:
    """A slow answer is given up after 0.5 s; the next question waits its turn."""
    async with memory_network() as network:
        engine = Engine({"/metrics": [Act.HANG]})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica):
            for _ in range(100):
                await trio.sleep(0.1)
                assert network.open <= 1


async def test_one_that_is_down_is_not_asked(autojump_clock: Clock) -> None:
    """A health probe knows that sooner; once it is up it is asked within an interval."""
    async with memory_network() as network:
        engine = Engine({"/metrics": vllm(1)})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        replica.probed(False, 0)
        async with probing(network, replica):
            await trio.sleep(60)
            assert engine.asked == []
            replica.probed(True, 60)
            await trio.sleep(2.5)
            assert replica.gauges is not None


class Restarts(Listener):
    """Notes which replica was restarted, and what its snapshot said by then."""

    def __init__(self, replica: Replica) -> None:
        self.told: list[tuple[str, float | None]] = []
        self._replica = replica
        replica.listeners.append(self)

    def on_restart(self, replica: str) -> None:
        gauges = self._replica.gauges
        self.told.append((replica, gauges.running if gauges else None))

    def on_room(self) -> None:
        pass

    def on_change(self) -> None:
        pass

    def on_models(self, replica: str, before: Set[str], after: Set[str]) -> None:
        pass

    def on_lost(self, replica: Replica) -> None:
        pass

    def on_capacity(self, replica: str, tokens: int) -> None:
        pass


async def test_a_restart_is_told(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Once, also if it was away in between; told after the new snapshot is there."""
    async with memory_network() as network:
        engine = Engine({"/metrics": vllm(1, process_start_time_seconds=100.0)})
        network.serve("http://a", engine)
        read = Replica("http://a", network)
        told = Restarts(read).told
        async with probing(network, read):
            await trio.sleep(20)
            assert told == []
            network.refuse("http://a")
            engine.scripts["/metrics"] = [Act.RESET]
            await trio.sleep(20)
            engine.scripts["/metrics"] = vllm(2, process_start_time_seconds=140.0)
            network.serve("http://a", engine)
            await trio.sleep(20)
    assert told == [("http://a", 2)]
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "replica http://a was restarted: its cache is empty"
    ]


async def test_facts_are_asked_for_again_after_a_restart(autojump_clock: Clock) -> None:
    """It may have come back with more slots."""
    text = page("llamacpp")
    async with memory_network() as network:
        engine = Engine({"/metrics": [answer(text)], "/props": [answer(b'{"total_slots":6}')]})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica):
            await trio.sleep(5)
            engine.scripts["/props"] = [answer(b'{"total_slots":8}')]
            engine.scripts["/metrics"] = [answer(text.replace(b" 1200\n", b" 10\n"))]
            await trio.sleep(5)
            assert replica.gauges is not None
            assert replica.gauges.max_running == 8
        assert engine.paths.count("/props") == 2


async def test_own_requests_are_the_most_of_the_exchange(autojump_clock: Clock) -> None:
    """What was in flight when it was asked or when it answered, whichever is more."""
    own: list[int] = []
    charges: list[Charge] = []
    async with memory_network() as network:
        replica = Replica("http://a", network)

        async def come_and_go(source: Transport) -> None:
            while await read_request(source) is not None:
                if charges:
                    replica.closed(charges.pop(), Outcome(), trio.current_time())
                else:
                    charges.append(replica.open(1, (), trio.current_time()))
                for step in vllm(1):
                    assert isinstance(step, bytes)
                    await source.send_all(step)

        network.serve("http://a", come_and_go)
        async with probing(network, replica, on_read=lambda _, __, count: own.append(count)):
            await trio.sleep(20)
    assert own == [1] * len(own)
    assert len(own) >= 8


async def test_a_kept_connection_that_closes_just_then(autojump_clock: Clock) -> None:
    """The server gave it up while the question was on its way: asked again at once, anew."""
    reads: list[float] = []

    async def answer_once(source: Transport) -> None:
        await read_request(source)
        await source.send_all(answer(page("vllm")))
        await read_request(source)

    async with memory_network() as network:
        network.serve("http://a", answer_once)
        replica = Replica("http://a", network)
        async with probing(network, replica, on_read=lambda _, gauges, __: reads.append(gauges.at)):
            await trio.sleep(60)
    assert all(later - at <= 2.4 for at, later in pairwise(reads))
    assert len(reads) >= 24


async def test_a_page_elsewhere(autojump_clock: Clock) -> None:
    """Triton's, on another port: nothing else is tried, and a key goes to no other host."""
    async with memory_network() as network:
        triton, other = Engine({"/metrics": [answer(page("triton"))]}), Engine({})
        network.serve("http://a:8002", triton)
        network.serve("http://b:9", other)
        key = {b"authorization": b"Bearer key"}
        a, b = Replica("http://a", network, headers=key), Replica("http://b", network, headers=key)
        pages = {"http://a": Origin.parse("http://a:8002/metrics")}
        pages["http://b"] = Origin.parse("http://a:8002/metrics")
        async with probing(network, a, b, pages=pages):
            await trio.sleep(10)
            for replica in (a, b):
                assert replica.gauges is not None
                assert replica.gauges.max_running == 512
        assert set(triton.paths) == {"/metrics"}
        assert 0 < sum(b"Bearer key" in head for head in triton.heads) < len(triton.heads)


async def test_several_processes_at_one_url(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A load balancer in between: said once, and no cache is thought empty at every poll."""
    async with memory_network() as network:
        engine = Engine({"/metrics": vllm(1, process_start_time_seconds=100.0)})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        restarts = Restarts(replica).told
        async with probing(network, replica):
            await trio.sleep(5)
            for poll in range(20):
                start = 100.0 + 50 * (poll % 2)
                engine.scripts["/metrics"] = vllm(1, process_start_time_seconds=start)
                await trio.sleep(5)
    assert len(restarts) == 1
    assert caplog.text.count("several processes answer at its URL") == 1


@pytest.mark.parametrize(
    ("own", "page_at", "with_key"),
    [
        ("http://a", "http://a:8002/metrics", True),
        ("https://a", "https://a:8002/metrics", True),
        ("http://a", "https://a:8002/metrics", True),
        ("https://a", "http://a:8002/metrics", False),
        ("http://a", "http://b:8002/metrics", False),
    ],
)
async def test_where_a_key_goes(
    own: str, page_at: str, with_key: bool, autojump_clock: Clock
) -> None:
    """To its own machine, and never in clear if it is meant to be sent by TLS."""
    async with memory_network() as network:
        engine = Engine({"/metrics": vllm(1)})
        network.serve(page_at.removesuffix("/metrics"), engine)
        replica = Replica(own, network, headers={b"authorization": b"Bearer key"})
        async with probing(network, replica, pages={own: Origin.parse(page_at)}):
            await trio.sleep(10)
        assert engine.heads
        assert all((b"Bearer key" in head) is with_key for head in engine.heads)


async def test_a_page_without_a_path(autojump_clock: Clock) -> None:
    """The usual one is meant."""
    async with memory_network() as network:
        engine = Engine({"/metrics": vllm(3)})
        network.serve("http://a:8002", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica, pages={"http://a": Origin.parse("http://a:8002/")}):
            await trio.sleep(3)
        assert set(engine.paths) == {"/metrics"}
        assert replica.gauges is not None


async def test_what_is_configured_anew_is_asked_so(autojump_clock: Clock) -> None:
    """Another key, another page: at the next change of the set, and none of the old any more."""
    async with memory_network() as network:
        old, new = Engine({"/metrics": vllm(1)}), Engine({"/metrics": vllm(2)})
        network.serve("http://a:1", old)
        network.serve("http://a:2", new)
        pages = {"http://a": Origin.parse("http://a:1/metrics")}
        replica = Replica("http://a", network, headers={b"authorization": b"Bearer old"})
        async with probing(network, replica, pages=pages) as probes:
            await trio.sleep(5)
            replica.headers = {b"authorization": b"Bearer new"}
            pages["http://a"] = Origin.parse("http://a:2/metrics")
            probes.watch([replica])
            asked = len(old.asked)
            await trio.sleep(5)
        assert len(old.asked) == asked > 0
        assert new.heads
        assert all(b"Bearer new" in head for head in new.heads)


async def test_too_much_json_is_not_read(autojump_clock: Clock) -> None:
    """Reading it would hold the loop for a second, and a thread would hold it too."""
    async with memory_network() as network:
        body = b'{"loads":[' + b",".join([b'{"num_running_reqs":1}'] * 20_000) + b"]}"
        engine = Engine({"/v1/loads?include=core": [answer(body)]})
        network.serve("http://a", engine)
        replica = Replica("http://a", network)
        async with probing(network, replica):
            await trio.sleep(10)
        assert "/v1/loads?include=core" in engine.paths
        assert replica.gauges is None


async def test_a_large_page_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the same as another one, but not on the loop."""
    threads: list[bool] = []
    truly = Place.read

    def read(self: Place, body: bytes, now: float, known: str) -> Reading | None:
        threads.append(threading.current_thread() is threading.main_thread())
        return truly(self, body, now, known)

    monkeypatch.setattr(Place, "read", read)
    async with memory_network() as network:
        text = b"vllm:num_requests_running 1\n" + b"# HELP x y\n" * 10_000
        network.serve("http://a", Engine({"/metrics": [answer(text)]}))
        replica = Replica("http://a", network)
        read_it = trio.Event()
        probes = GaugeProbes(network, poll_s=0.001, on_read=lambda *_: read_it.set())
        async with trio.open_nursery() as nursery:
            await nursery.start(probes.run, [replica])
            with trio.fail_after(5):
                await read_it.wait()
            nursery.cancel_scope.cancel()
    assert replica.gauges is not None
    assert set(threads) == {False}


async def test_watch(autojump_clock: Clock) -> None:
    """New ones are asked; those that left no more, their connections closed; may come back."""
    async with memory_network() as network:
        a, b = Replica("http://a", network), Replica("http://b", network)
        engines = {
            "http://a": Engine({"/metrics": vllm(1)}),
            "http://b": Engine({"/metrics": vllm(2)}),
        }
        for url, engine in engines.items():
            network.serve(url, engine)
        async with probing(network, a) as probes:
            await trio.sleep(3)
            assert (a.gauges is None, b.gauges is None) == (False, True)
            probes.watch([b])
            await trio.sleep(3)
            assert b.gauges is not None
            count = len(engines["http://a"].asked)
            await trio.sleep(60)
            assert (len(engines["http://a"].asked), network.open) == (count, 1)
            probes.watch([a, b])
            await trio.sleep(3)
            assert len(engines["http://a"].asked) > count


@pytest.mark.slow
async def test_many_replicas_are_asked_less_often(autojump_clock: Clock) -> None:
    """200 polls a second at most, however many there are."""
    async with memory_network() as network:
        probes = GaugeProbes(network)
        assert probes.poll_s == 2
        async with trio.open_nursery() as nursery:
            replicas = [Replica(f"http://r{n}", network) for n in range(1000)]
            await nursery.start(probes.run, replicas)
            assert probes.poll_s == 5
            await trio.sleep(10)
            assert network.dialed <= 10 * 200 * 1.25
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("old_names", [False, True])
async def test_the_simulated_replica(old_names: bool, autojump_clock: Clock) -> None:
    """Under vLLM's names of today and of before: what runs in it is seen."""
    app = SimulatedReplica(ReplicaSettings(tokens_per_s=1.0, old_metric_names=old_names))

    async def serve(source: Transport) -> None:
        while (request := await read_request(source)) is not None:
            path = request.split(b" ")[1].decode()
            shown = await call(app, "GET", path)
            await source.send_all(answer(shown.body, status=shown.status))

    async with memory_network() as network, trio.open_nursery() as nursery:
        network.serve("http://a", serve)
        replica = Replica("http://a", network)
        nursery.start_soon(chat, app)
        async with probing(network, replica):
            await trio.sleep(5)
        nursery.cancel_scope.cancel()
    gauges = replica.gauges
    assert gauges is not None
    assert (gauges.running, gauges.waiting) == (1, 0)
    assert gauges.kv_share is not None
    assert 0 < gauges.kv_share < 1
    assert gauges.kv_tokens is not None
    assert gauges.kv_tokens > 1000
