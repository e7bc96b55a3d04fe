"""Whole runs in virtual time: closed and open loops, limits, warm-up, probes, stopping."""

from __future__ import annotations

import os
import signal
from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing

from balancer.wire.memory import memory_network
from balancer.wire.transport import Transport
from bench.load.plan import Closed, Limits, Plan, Rated, Scheduled
from bench.load.record import Record
from bench.load.result import RunResult
from bench.load.runner import run, run_alone, stop_on_interrupt
from bench.workload.model import Segment, Session, Turn, Workload
from tests.balancer.scripted import Act, ScriptedReplica, Step, answer, read_request
from tests.bench.load.rig import URL, bodies, measure, plan, session, talk, whole, workload

Clock = trio.testing.MockClock
ONE_SECOND = talk("a", " b", first_s=0.5, gap_s=0.5)


def sent_at(result: RunResult) -> list[float]:
    return [record.sent_s for record in result.measured]


def busiest(records: list[Record]) -> int:
    """The most requests that were under way at once."""
    edges = [(record.sent_s, 1) for record in records]
    edges += [(record.ended_s or 1e9, -1) for record in records]
    under_way = most = 0
    for _, change in sorted(edges):
        under_way += change
        most = max(most, under_way)
    return most


# Closed loop


async def test_closed_loop(autojump_clock: Clock) -> None:
    """So many at once, the next when one ends, each session once, no scheduled times."""
    result = await measure(ONE_SECOND, plan(loop=Closed(concurrency=4)), workload(10))
    assert [record.outcome for record in result.records] == ["ok"] * 10
    assert sent_at(result) == pytest.approx([0] * 4 + [1] * 4 + [2] * 2)
    assert busiest(result.records) == 4
    assert sorted(record.session for record in result.records) == list(range(10))
    assert {record.scheduled_s for record in result.records} == {None}
    assert result.duration_s == pytest.approx(3)
    assert (result.was_cancelled, result.turns_not_sent) == (False, 0)


async def test_sessions_carry_their_history(autojump_clock: Clock) -> None:
    """Turn by turn the prompt grows by the answers that really came, after the think time."""
    replica = ScriptedReplica(talk("first", " answer"), talk("second"), talk("third"))
    result = await measure(replica, work=workload(1, 3, delay_s=2.0))
    roles = [[message["role"] for message in body["messages"]] for body in bodies(replica)]
    chat = ["user", "assistant"]
    assert roles == [["user"], [*chat, "user"], [*chat, *chat, "user"]]
    said = [message["content"] for message in bodies(replica)[2]["messages"]]
    assert said[1::2] == ["first answer", "second"]
    assert [len(text.split()) for text in said[0::2]] == [5, 5, 5]
    gaps = [after.sent_s - (before.ended_s or 0.0) for before, after in pairwise(result.records)]
    assert gaps == pytest.approx([2.0, 2.0])
    assert [record.turn for record in result.records] == [0, 1, 2]


async def test_delay_ratio(autojump_clock: Clock) -> None:
    """Think times can be shortened."""
    result = await measure(talk("a", first_s=1), plan(delay_ratio=0.5), workload(1, 2, delay_s=2.0))
    assert sent_at(result) == pytest.approx([1, 3])


async def test_failed_turn_ends_its_session(autojump_clock: Clock) -> None:
    """What would have followed is not sent, but counted; other sessions go on."""
    replica = ScriptedReplica(talk("a"), [answer(b"no", status=500)], talk("b"))
    result = await measure(replica, work=workload(2, 4))
    places = [(record.session, record.turn) for record in result.records]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    # The failed turn itself was sent.
    assert result.turns_not_sent == 2


async def test_request_count(autojump_clock: Clock) -> None:
    """Exactly so many are sent; the workload is begun again for them, which is said."""
    load = plan(loop=Closed(concurrency=3), limits=Limits(requests=8))
    result = await measure(ONE_SECOND, load, workload(2, 2))
    assert len(result.records) == 8
    assert all(record.outcome == "ok" for record in result.records)
    assert len({(record.session, record.turn) for record in result.records}) == 8
    assert len({record.request_id for record in result.records}) == 8
    assert [text for text in result.warnings if "prefix cache" in text]


async def test_request_count_does_not_await_thinkers(autojump_clock: Clock) -> None:
    """Once the last request was sent nobody's think time holds the run up."""
    load = plan(loop=Closed(concurrency=2), limits=Limits(requests=2))
    result = await measure(talk("a"), load, _thinkers())
    assert trio.current_time() < 100
    assert (len(result.records), result.turns_not_sent) == (2, 2)


def _thinkers() -> Workload:
    def one(number: int) -> Session:
        first, second = session(number, 2).turns
        slow = Turn(
            prompt=second.prompt, output_tokens=3, answer=second.answer, delay_s=1_000_000.0
        )
        return Session(id=number, turns=[first, slow])

    return Workload(name="thinkers", sessions=[one(0), one(1)])


async def test_session_count(autojump_clock: Clock) -> None:
    """So many sessions are begun, all their turns are sent."""
    load = plan(loop=Closed(concurrency=2), limits=Limits(sessions=3))
    result = await measure(ONE_SECOND, load, workload(9, 2))
    assert Counter(record.session for record in result.records) == {0: 2, 1: 2, 2: 2}
    assert result.sessions_started == 3


async def test_duration_and_grace(autojump_clock: Clock) -> None:
    """Sending stops at the interval's end; answers get the grace period, then are unfinished."""
    for grace_s, outcomes in ((5.0, {"ok": 3}), (0.4, {"ok": 2, "unfinished": 1})):
        load = plan(limits=Limits(duration_s=2.5), grace_s=grace_s)
        result = await measure(ONE_SECOND, load, workload(9))
        assert Counter(record.outcome for record in result.records) == outcomes
        assert not result.was_cancelled


async def test_concurrency_ramp(autojump_clock: Clock) -> None:
    """The first sessions are spread over the ramp."""
    load = plan(loop=Closed(concurrency=4, ramp_s=8))
    result = await measure(talk("a", first_s=20), load, workload(4))
    assert sent_at(result) == pytest.approx([0, 2, 4, 6])


async def test_branches_of_a_fan_out_start_together(autojump_clock: Clock) -> None:
    """Sessions of one group begin at once, in one slot."""
    sessions = [
        Session(id=number, turns=session(number).turns, group=group)
        for number, group in enumerate([7, 7, 7, 0, 0])
    ]
    result = await measure(ONE_SECOND, plan(), Workload(name="fan", sessions=sessions))
    assert sent_at(result) == pytest.approx([0, 0, 0, 1, 2])


async def test_refusals_do_not_spin(autojump_clock: Clock) -> None:
    """Where nobody listens a closed loop tries ten times a second, not without end."""
    result = await measure(None, plan(limits=Limits(duration_s=2)), workload(1))
    assert 15 <= len(result.records) <= 21
    assert {record.error for record in result.records} == {"connect"}


async def test_empty_workload() -> None:
    """A workload without sessions is an error, not a run of nothing."""
    with pytest.RaisesGroup(
        pytest.RaisesExc(ValueError, match="no sessions"), flatten_subgroups=True
    ):
        await measure(
            talk("a"), plan(limits=Limits(requests=1)), Workload(name="none", sessions=[])
        )


# Open loop


async def test_constant_rate(autojump_clock: Clock) -> None:
    """Requests leave at their times although answers take far longer than the gaps."""
    load = plan(loop=Rated(rate=4, arrival="constant"))
    result = await measure(talk("a", first_s=30), load, workload(8))
    assert sent_at(result) == pytest.approx([number / 4 for number in range(8)])
    assert [record.scheduled_s for record in result.records] == pytest.approx(sent_at(result))
    assert busiest(result.records) == 8


async def test_no_coordinated_omission(autojump_clock: Clock) -> None:
    """A request held up by the client's own limit keeps the time for which it was scheduled."""
    load = plan(loop=Rated(rate=10, arrival="constant"), max_in_flight=2)
    result = await measure(ONE_SECOND, load, workload(6))
    assert [record.scheduled_s for record in result.records] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    )
    assert sent_at(result) == pytest.approx([0, 0.1, 1, 1.1, 2, 2.1])
    assert result.client.capped == 4
    assert [text for text in result.warnings if text.startswith("client limit")]


@pytest.mark.parametrize("grace_s", [0.0, 30.0])
async def test_backlog_is_bounded(grace_s: float, autojump_clock: Clock) -> None:
    """What a target cannot take waits as one arrival, not as a task each; and it is reported."""
    load = plan(
        loop=Rated(rate=100, arrival="constant"),
        max_in_flight=2,
        limits=Limits(duration_s=10.2),
        grace_s=grace_s,
    )
    result = await measure(ONE_SECOND, load, workload(2000))
    assert len(result.records) == 22
    assert [record.scheduled_s for record in result.records] == pytest.approx(
        [number / 100 for number in range(22)]
    )
    assert result.turns_not_sent < 5
    assert result.client.behind_s == pytest.approx(10, abs=0.5)
    assert [text for text in result.warnings if "never sent" in text]


async def test_request_count_is_not_behind(autojump_clock: Clock) -> None:
    """A run that ended because it sent all it should has left nothing out."""
    load = plan(
        loop=Rated(rate=100, arrival="constant"), max_in_flight=2, limits=Limits(requests=6)
    )
    result = await measure(ONE_SECOND, load, workload(100))
    assert len(result.records) == 6
    assert not [text for text in result.warnings if "never sent" in text]


async def test_rate_counts_later_turns(autojump_clock: Clock) -> None:
    """An arrival takes the turn that waits, or begins a session: the rate is one of requests."""
    load = plan(loop=Rated(rate=1, arrival="constant"), limits=Limits(requests=9))
    result = await measure(talk("a", first_s=0.5), load, workload(9, 3))
    assert sent_at(result) == pytest.approx(range(9))
    places = [(record.session, record.turn) for record in result.records]
    assert places == [(number, turn) for number in range(3) for turn in range(3)]


async def test_rate_with_think_time_before_the_first_turn(autojump_clock: Clock) -> None:
    """Every arrival sends a request: none is spent on a session that only begins to think."""
    load = plan(loop=Rated(rate=1, arrival="constant"))
    result = await measure(talk("a"), load, workload(6, delay_s=5.0))
    assert sent_at(result) == pytest.approx(range(6))


async def test_warmup_is_not_in_the_clients_limits(autojump_clock: Clock) -> None:
    """What waited in the warm-up is no fault of the measured phase."""
    load = plan(
        loop=Rated(rate=0.5, arrival="constant"),
        warmup=Limits(requests=3),
        max_in_flight=1,
        limits=Limits(requests=3),
    )
    replica = ScriptedReplica(*[talk("a", first_s=5)] * 3, talk("a", first_s=0.1))
    result = await measure(replica, load, workload(9))
    assert result.client.capped == 0


async def test_rate_without_a_ready_turn(autojump_clock: Clock) -> None:
    """When no session is left to begin, an arrival waits for the next turn; the report says so."""
    load = plan(loop=Rated(rate=10, arrival="constant"))
    result = await measure(talk("a", first_s=2), load, workload(1, 5))
    assert sent_at(result) == pytest.approx([0, 2, 4, 6, 8])
    assert [record.scheduled_s for record in result.records] == pytest.approx(sent_at(result))
    assert [text for text in result.warnings if text.startswith("request rate")]


async def test_schedule(autojump_clock: Clock) -> None:
    """Turns leave when they are due, faster by the speedup; a later one after its answer."""
    late = session(1, 2)
    turns = [
        Turn(prompt=turn.prompt, output_tokens=3, answer=turn.answer, due_s=due)
        for turn, due in zip(late.turns, (2.0, 2.2), strict=True)
    ]
    sessions = [
        Session(id=0, turns=session(0, 1, due_s=1.0).turns),
        Session(id=1, turns=turns),
        Session(id=2, turns=session(2, 1, due_s=6.0).turns),
    ]
    load = plan(loop=Scheduled(speedup=2))
    result = await measure(ONE_SECOND, load, Workload(name="trace", sessions=sessions))
    assert [record.scheduled_s for record in result.records] == pytest.approx([0.5, 1, 1.1, 3])
    assert sent_at(result) == pytest.approx([0.5, 1, 2, 3])


async def test_schedule_without_times(autojump_clock: Clock) -> None:
    """Sessions without due times do not fit a schedule, which is said."""
    with pytest.RaisesGroup(
        pytest.RaisesExc(ValueError, match="no due time"), flatten_subgroups=True
    ):
        await measure(talk("a"), plan(loop=Scheduled()), workload(1))


async def test_same_seed_same_schedule(autojump_clock: Clock) -> None:
    """The seed decides when requests come and which are cancelled."""

    async def scheduled(seed: int) -> list[tuple[float | None, str]]:
        load = plan(loop=Rated(rate=3), seed=seed, cancellation_rate=0.3)
        result = await measure(talk("a", first_s=0.1), load, workload(30))
        begin = result.records[0].scheduled_s or 0.0
        return [
            (round((record.scheduled_s or 0.0) - begin, 9), record.outcome)
            for record in result.records
        ]

    one = await scheduled(1)
    assert one == await scheduled(1)
    assert one != await scheduled(2)
    assert {outcome for _, outcome in one} == {"ok", "cancelled"}


# Warm-up, probes


async def test_warmup(autojump_clock: Clock) -> None:
    """Warm-up requests are tagged, over before the measured phase begins, and of other words."""
    replica = ScriptedReplica(ONE_SECOND)
    load = plan(loop=Closed(concurrency=2), warmup=Limits(requests=3))
    result = await measure(replica, load, workload(2))
    assert [record.phase for record in result.records] == ["warmup"] * 3 + ["profiling"] * 2
    assert max(record.ended_s or 9e9 for record in result.records[:3]) <= sent_at(result)[0]
    prompts = [body["messages"][0]["content"] for body in bodies(replica)]
    assert not set(prompts[:3]) & set(prompts[3:])
    assert result.duration_s == pytest.approx(1)
    assert len({record.request_id for record in result.records}) == 5


async def test_probes(autojump_clock: Clock) -> None:
    """Probes come at their rate on their own connections, before the load and beside it."""
    kinds: Counter[bytes] = Counter()

    async def serve(stream: Transport) -> None:
        while (request := await read_request(stream)) is not None:
            kinds[request.split(b" ")[1]] += 1
            steps: list[Step] = [answer(b"ok")] if request.startswith(b"GET") else ONE_SECOND
            for step in steps:
                assert not isinstance(step, Act)
                if isinstance(step, bytes):
                    await stream.send_all(step)
                else:
                    await trio.sleep(step)

    load = plan(probe_rate=10, probe_path="/healthz", probe_idle_s=1.05)
    result = await measure(serve, load, workload(3))
    assert len(result.idle_probes) == 11
    assert len(result.probes) == pytest.approx(30, abs=1)
    assert {probe.status for probe in (*result.probes, *result.idle_probes)} == {200}
    assert kinds[b"/healthz"] == len(result.probes) + len(result.idle_probes)
    assert sent_at(result)[0] == pytest.approx(1.05, abs=0.01)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([answer(b"", status=503)], "http_503"),
        ([Act.HANG], "timeout"),
        ([Act.RESET], "reset"),
        ([b"nonsense\r\n"], "invalid"),
    ],
)
async def test_failing_probes(script: list[Step], error: str, autojump_clock: Clock) -> None:
    """A probe that fails says how, and does not stop those after it."""
    async with memory_network() as network:
        network.serve(URL, ScriptedReplica(talk("a", first_s=15)))
        network.serve("http://admin", ScriptedReplica(script))
        load = plan(probe_rate=1, probe_path="http://admin/x?y=1", probe_idle_s=0.5)
        result = await run(load, workload(1), dialer=network)
        assert network.open == 0
    assert 15 <= len(result.probes) <= 16
    assert {probe.error for probe in result.probes} <= {error, "unfinished"}
    assert result.probes[0].error == error


# Stopping


async def test_stopped_by_hand(autojump_clock: Clock) -> None:
    """What was measured until then is there, the rest unfinished, no connection open."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_after, stop, 5.5)
        load = plan(loop=Closed(concurrency=2), limits=Limits(duration_s=100), probe_rate=5)
        result = await measure(ONE_SECOND, load, workload(50), stop=stop)
    assert result.was_cancelled
    outcomes = Counter(record.outcome for record in result.records)
    assert outcomes["unfinished"] == 2
    assert outcomes["ok"] + outcomes["unfinished"] == len(result.records)


async def test_stopped_while_paused(autojump_clock: Clock) -> None:
    """Think times, arrivals and due times do not hold up a stop."""
    far: list[tuple[Plan, Workload]] = [
        (plan(), workload(1, 2, delay_s=1e6)),
        (plan(loop=Rated(rate=1e-6)), workload(3)),
        (plan(loop=Scheduled()), workload(1, 1, due_s=1e6)),
        (plan(warmup=Limits(requests=5)), workload(1, 2, delay_s=1e6)),
    ]
    for load, work in far:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_after, stop, 5)
            result = await measure(talk("a"), load, work, stop=stop)
        assert result.was_cancelled
    assert trio.current_time() < 100


async def _set_after(event: trio.Event, seconds: float) -> None:
    await trio.sleep(seconds)
    event.set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupt(number: signal.Signals, autojump_clock: Clock) -> None:
    """Ctrl-C or SIGTERM stops the run, its result is returned; the handler is gone afterwards."""
    before = signal.getsignal(number)
    async with stop_on_interrupt() as stop, trio.open_nursery() as nursery:
        nursery.start_soon(_interrupt_after, 2.5, number)
        result = await measure(ONE_SECOND, plan(), workload(50), stop=stop)
    assert result.was_cancelled
    assert Counter(record.outcome for record in result.records) == {"ok": 2, "unfinished": 1}
    assert signal.getsignal(number) == before


async def test_second_interrupt(autojump_clock: Clock) -> None:
    """A second Ctrl-C while the first is still worked on ends everything."""
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        async with stop_on_interrupt() as stop:
            await _interrupt_after(1)
            await stop.wait()
            await _interrupt_after(1)
            await trio.sleep(10)


def test_run_alone() -> None:
    """Of what a nursery wraps, the error itself comes out; other groups stay."""

    async def fails(error: BaseException) -> None:
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                raise error

            nursery.start_soon(fail)

    for error in (ValueError("named"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            run_alone(partial(fails, error))
    with pytest.RaisesGroup(OSError):
        run_alone(partial(fails, OSError()))


async def _interrupt_after(seconds: float, number: signal.Signals = signal.SIGINT) -> None:
    await trio.sleep(seconds)
    os.kill(os.getpid(), number)


async def test_whole_answers_in_a_closed_loop(autojump_clock: Clock) -> None:
    """Answers that are not streamed go into the history as well."""
    replica = ScriptedReplica(whole("this was said"))
    await measure(replica, plan(streaming=False), workload(1, 2))
    assert bodies(replica)[1]["messages"][1]["content"] == "this was said"
    assert "stream" not in bodies(replica)[0]


def test_shapes_of_segments() -> None:
    """The rig's sessions repeat their answers: else the tests above prove nothing."""
    first, second = session(3, 2).turns
    assert second.prompt[0] == first.prompt[0]
    assert second.prompt[1] == Segment(first.answer, 3, "assistant")


@pytest.mark.parametrize(("requests", "told"), [(3, []), (4, [2]), (7, [3])])
async def test_repeated_sessions_are_told(
    autojump_clock: Clock, requests: int, told: list[int]
) -> None:
    """So often as they were sent: a round of which nothing was sent any more does not count."""
    limits = Limits(requests=requests)
    result = await measure(ONE_SECOND, plan(loop=Closed(concurrency=1), limits=limits), workload(3))
    found = [text for text in result.warnings if "times over" in text]
    assert [
        f"sent {times} times over" in text for times, text in zip(told, found, strict=True)
    ] == [True] * len(told)
