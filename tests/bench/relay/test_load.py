"""The fake replica and the load client against each other, on one loop and through the drivers."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bench.relay import answers, drive, workloads
from bench.relay.fake import FakeReplica
from bench.relay.figures import percentile
from bench.relay.load import LoadClient, Target
from bench.relay.poll_loop import PollLoop
from bench.relay.workloads import Workload


class Bench:
    """A replica and its clients on one loop."""

    def __init__(self) -> None:
        self.loop = PollLoop()
        self.replica = FakeReplica(self.loop)

    def target(self, workload: Workload, *, events: int | None = None) -> Target:
        """How to send a workload's requests to the replica."""
        request = workloads.request_bytes(workload, port=self.replica.port, prompt_bytes=1024)
        return Target(self.replica.port, request, workload.events if events is None else events)

    def run_once(self, client: LoadClient) -> None:
        """One request on each lane, until all have ended."""
        for lane in client.lanes:
            lane.start()
        self.turn_until(lambda: not client.busy)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        """Run the loop; a test that hangs fails."""
        end_s = time.perf_counter() + 5
        while not condition():
            assert time.perf_counter() < end_s, "nothing more happened"
            self.loop.turn(0.05)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.replica.close()
    made.loop.close()


STREAMS = Workload("streams", lanes=4, tokens=32)
PLAIN = Workload("plain", lanes=4, tokens=32, stream=False)


def test_counts_are_exact_for_streams(bench: Bench) -> None:
    """Every event of every stream is counted once, however the bytes are cut."""
    client = LoadClient(bench.loop, bench.target(STREAMS), lanes=4)
    for _ in range(3):
        bench.run_once(client)
    tally = client.tally
    client.abandon()
    assert (tally.started, tally.first_events, tally.finished) == (12, 12, 12)
    assert tally.events == 12 * 33
    assert not tally.errors
    assert len(bench.replica.connections) == 4, "connections were not kept"


def test_counts_are_exact_without_streams(bench: Bench) -> None:
    """A whole answer has no events and one first byte."""
    client = LoadClient(bench.loop, bench.target(PLAIN), lanes=4)
    bench.run_once(client)
    client.abandon()
    assert (client.tally.finished, client.tally.events, len(client.tally.ttft_s)) == (4, 0, 4)
    assert not client.tally.errors


def test_events_cut_at_any_byte_are_counted_once(bench: Bench) -> None:
    """A proxy may cut the stream anywhere: each cut gives the same counts."""
    whole = b"".join(answers.stream_sends(2))
    for cut in range(1, len(whole)):
        client = LoadClient(bench.loop, Target(bench.replica.port, b"unused", 3), lanes=1)
        lane = client.lanes[0]
        near, far = socket.socketpair()
        near.setblocking(False)
        lane._sock = near
        bench.loop.watch(near.fileno(), lane._on_ready)
        lane.start()
        for part in (whole[:cut], whole[cut:]):
            far.sendall(part)
            bench.loop.turn(0.05)
        far.close()
        client.abandon()
        assert (client.tally.finished, client.tally.events) == (1, 3), f"cut at {cut}"


def test_a_staggered_stream_takes_its_time(bench: Bench) -> None:
    """The first token comes at once, the rest by the stream's own clock."""
    paced = Workload("paced", lanes=2, tokens=10, pace_ms=10, staggered=True)
    client = LoadClient(bench.loop, bench.target(paced), lanes=2)
    bench.run_once(client)
    client.abandon()
    assert client.tally.events == 22
    assert max(client.tally.ttft_s) < 0.09
    assert min(client.tally.total_s) >= 0.09


def test_a_stream_in_step_takes_its_time(bench: Bench) -> None:
    """Every token waits for a step: ten of 10 ms, of which the wait for the first is a part."""
    paced = Workload("paced", lanes=2, tokens=10, pace_ms=10)
    client = LoadClient(bench.loop, bench.target(paced), lanes=2)
    bench.run_once(client)
    client.abandon()
    assert client.tally.events == 22
    assert not client.tally.errors
    assert min(client.tally.total_s) >= 0.09


def test_a_saturated_stream_is_never_ahead_of_another(bench: Bench) -> None:
    """Chunks of different streams interleave: at each moment they are at most a step apart."""
    client = LoadClient(bench.loop, bench.target(STREAMS), lanes=4)
    for lane in client.lanes:
        lane.start()
    bench.turn_until(lambda: client.tally.first_events == 4)
    spans = []
    while client.busy:
        at = [lane._events for lane in client.lanes]
        spans.append(max(at) - min(at))
        bench.loop.turn(0.05)
    client.abandon()
    assert client.tally.events == 4 * 33
    assert len(spans) > 10, "all chunks came at once"
    # The end is an event of its own, sent with the last token.
    assert max(spans) <= 3


def test_a_missing_event_is_an_error(bench: Bench) -> None:
    """An answer that ends well but is short counts as an error, not as finished."""
    client = LoadClient(bench.loop, bench.target(STREAMS, events=34), lanes=1)
    bench.run_once(client)
    client.abandon()
    assert client.tally.finished == 0
    assert client.tally.errors == {"33 of 34 events": 1}


def test_an_error_status_is_an_error(bench: Bench) -> None:
    """A status other than 200 is told by its number."""
    request = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
    client = LoadClient(bench.loop, Target(bench.replica.port, request, 0), lanes=1)
    bench.run_once(client)
    client.abandon()
    assert client.tally.errors == {"status 404": 1}


def test_a_connection_lost_in_a_stream_is_an_error(bench: Bench) -> None:
    """A replica that goes away while it streams is seen."""
    paced = Workload("paced", lanes=1, tokens=10, pace_ms=10)
    client = LoadClient(bench.loop, bench.target(paced), lanes=1)
    client.lanes[0].start()
    bench.turn_until(lambda: client.tally.first_events == 1)
    next(iter(bench.replica.connections)).close()
    bench.turn_until(lambda: not client.busy)
    client.abandon()
    assert client.tally.errors == {"receive: closed early": 1}


def test_a_refused_connection_is_an_error() -> None:
    """Nobody listens: an error, and the client goes on."""
    loop = PollLoop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = LoadClient(loop, Target(taken.getsockname()[1], b"x", 0), lanes=1)
        client.lanes[0].start()
        while client.busy:
            loop.turn(0.05)
    client.abandon()
    loop.close()
    assert client.tally.errors.total() == 1


@pytest.fixture
def served() -> Iterator[FakeReplica]:
    """A replica on a thread, for drivers that have a loop of their own."""
    loop = PollLoop()
    replica = FakeReplica(loop)
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            loop.turn(0.02)

    thread = threading.Thread(target=serve)
    thread.start()
    yield replica
    stopped.set()
    thread.join()
    replica.close()
    loop.close()


def _target(served: FakeReplica, workload: Workload) -> Target:
    request = workloads.request_bytes(workload, port=served.port, prompt_bytes=64)
    return Target(served.port, request, workload.events)


def test_drive_requests_leaves_the_warm_up_out(served: FakeReplica) -> None:
    """Exactly the asked number is measured, between two probes."""
    probes = iter(range(9))
    outcome = drive.drive_requests(
        _target(served, STREAMS),
        lanes=4,
        warm_up=10,
        requests=50,
        limit_s=5,
        probe=lambda: next(probes),
    )
    assert (outcome.before, outcome.after) == (0, 1)
    assert (outcome.tally.started, outcome.tally.finished) == (50, 50)
    assert outcome.tally.events == 50 * 33
    assert 0 < percentile(outcome.tally.ttft_s, 0.5) < 1
    assert not outcome.tally.errors


@pytest.mark.slow
def test_drive_window_measures_steady_streams(served: FakeReplica) -> None:
    """With all lanes busy, events come at lanes / pace."""
    workload = Workload("paced", lanes=10, tokens=10, pace_ms=10)
    outcome = drive.drive_window(
        _target(served, workload),
        lanes=10,
        stream_s=workload.stream_s,
        pause_s=0.001,
        window_s=0.3,
        probe=lambda: None,
    )
    assert outcome.wall_s >= 0.3
    assert outcome.tally.events == pytest.approx(10 * outcome.wall_s / 0.01, rel=0.4)
    assert not outcome.tally.errors


@pytest.mark.slow
def test_drive_held_probes_while_all_are_open(served: FakeReplica) -> None:
    """The probe sees every stream open at once, and all end well."""
    workload = Workload("held", lanes=20, tokens=4, pace_ms=100)
    open_then: list[int] = []
    outcome = drive.drive_held(
        _target(served, workload),
        lanes=20,
        ramp_s=0.05,
        held_s=0.05,
        limit_s=3,
        probe=lambda: open_then.append(len(served.connections)),
    )
    assert open_then == [20, 20]
    assert (outcome.tally.finished, outcome.tally.events) == (20, 100)
    assert not outcome.tally.errors


def test_percentile_of_nothing_is_nan() -> None:
    """No answers, no TTFT: not a zero that looks good."""
    assert math.isnan(percentile([], 0.5))
