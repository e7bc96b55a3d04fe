"""One measured request: what is written down of good answers, odd ones and all failures."""

from __future__ import annotations

from email.utils import formatdate
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from balancer.wire.memory import memory_network
from bench.load.plan import Limits
from bench.load.record import Record
from bench.load.runner import run
from tests.balancer.scripted import (
    DONE,
    STREAM_HEAD,
    Act,
    ScriptedReplica,
    Step,
    answer,
    chunk,
    stream,
)
from tests.bench.load.rig import (
    FINISH,
    ROLE,
    URL,
    bodies,
    measure,
    paced,
    plan,
    said,
    talk,
    usage,
    whole,
    workload,
)

Clock = trio.testing.MockClock


async def one(script: list[Step], **changes: Any) -> Record:
    """The record of one request against this script."""
    result = await measure(script, plan(**changes))
    assert len(result.records) == 1
    return result.records[0]


async def test_healthy_stream(autojump_clock: Clock) -> None:
    """Times of head and chunks, the server's usage, cached and reasoning tokens."""
    details: dict[str, Any] = {
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    record = await one(talk("a", " b", " c", prompt=9, **details))
    assert (record.outcome, record.error, record.status) == ("ok", None, 200)
    assert record.content_s == pytest.approx([0.5, 0.6, 0.7])
    assert record.head_s == pytest.approx(0.0)
    assert record.first_answer_s == pytest.approx(0.5)
    assert (record.sent_s, record.ended_s) == pytest.approx((0.0, 0.7))
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (9, 3, 4)
    assert (record.reasoning_tokens, record.counted_output_tokens) == (1, 3)
    assert (record.asked_input_tokens, record.asked_output_tokens) == (5, 3)
    assert record.scheduled_s is None


async def test_whole_answer(autojump_clock: Clock) -> None:
    """An answer that is not streamed has one moment: its end."""
    record = await one(whole("three more words"), streaming=False)
    assert (record.outcome, record.streamed) == ("ok", False)
    assert record.content_s == [record.ended_s] == pytest.approx([0.5])
    assert (record.input_tokens, record.output_tokens, record.counted_output_tokens) == (7, 2, 3)


async def test_empty_deltas(autojump_clock: Clock) -> None:
    """A role chunk, empty deltas and keep-alives are not the first token."""
    empty = said(content="")
    script = paced(ROLE, b": ping\n\n", empty, said(content="x"), FINISH, usage(), DONE)
    record = await one(script)
    assert record.outcome == "ok"
    assert record.content_s == pytest.approx([0.8])


async def test_reasoning_before_the_answer(autojump_clock: Clock) -> None:
    """Reasoning is the first token; the first answer comes later. Both fields are known."""
    thoughts = [said(reasoning_content="hm"), said(reasoning=" so")]
    record = await one(paced(*thoughts, said(content="yes"), FINISH, DONE))
    assert record.content_s == pytest.approx([0.5, 0.6, 0.7])
    assert record.first_answer_s == pytest.approx(0.7)
    assert record.counted_output_tokens == 3


async def test_tool_calls(autojump_clock: Clock) -> None:
    """A tool's name and arguments are text; an empty call is not."""
    name = said(tool_calls=[{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}])
    more = said(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}])
    nothing = said(tool_calls=[{"index": 0, "function": {"arguments": ""}}])
    record = await one(paced(name, nothing, more, FINISH, DONE))
    assert record.outcome == "ok"
    assert record.content_s == pytest.approx([0.5, 0.7])
    assert record.first_answer_s == pytest.approx(0.5)


async def test_refusal_and_completions(autojump_clock: Clock) -> None:
    """A refusal is text; so is the `text` of the completions endpoint."""
    assert (await one(paced(said(refusal="no"), FINISH, DONE))).outcome == "ok"
    event = b'data: {"choices":[{"text":"abc","finish_reason":"length"}]}\n\n'
    replica = ScriptedReplica(paced(event, DONE))
    result = await measure(replica, plan(endpoint_type="completions"))
    assert result.records[0].content_s == pytest.approx([0.5])
    assert replica.requests[0].startswith(b"POST /v1/completions ")
    assert isinstance(bodies(replica)[0]["prompt"], str)


async def test_several_events_at_once(autojump_clock: Clock) -> None:
    """Events read together came together; CRLF and split events are read as well."""
    together = said(content="a") + said(content=" b")
    crlf = said(content=" c").replace(b"\n", b"\r\n")
    half = said(content=" d")
    script: list[Step] = [STREAM_HEAD, 0.5, chunk(together), 0.1, chunk(crlf), chunk(half[:20])]
    script += [0.1, chunk(half[20:] + FINISH + DONE), b"0\r\n\r\n"]
    record = await one(script)
    assert record.content_s == pytest.approx([0.5, 0.5, 0.6, 0.7])
    assert record.counted_output_tokens == 4


async def test_several_tokens_per_chunk(autojump_clock: Clock) -> None:
    """The server's count is kept beside the client's; the first chunk's own size is known."""
    bundle = said(content="four little words here"), said(content=" and two")
    record = await one(paced(*bundle, FINISH, usage(output=6), DONE))
    assert len(record.content_s) == 2
    assert (record.output_tokens, record.counted_output_tokens) == (6, 6)
    assert record.first_chunk_tokens == 4


async def test_usage_of_every_chunk(autojump_clock: Clock) -> None:
    """A first chunk with usage says itself how many tokens it holds; the last usage counts."""
    first = b'data: {"choices":[{"delta":{"content":"abc"}}],"usage":{"completion_tokens":2}}\n\n'
    record = await one(paced(first, said(content="d"), FINISH, usage(output=3), DONE))
    assert (record.first_chunk_tokens, record.output_tokens) == (2, 3)


async def test_no_usage(autojump_clock: Clock) -> None:
    """Without usage the server's counts stay unknown; the client's is there."""
    record = await one(paced(said(content="a"), said(content=" b"), FINISH, DONE))
    assert (record.outcome, record.input_tokens, record.output_tokens) == ("ok", None, None)
    assert record.counted_output_tokens == 2


async def test_stream_options_refused(autojump_clock: Clock) -> None:
    """A target that does not know stream_options is asked without, which the result says."""
    refusal = answer(b'{"error":{"message":"unknown field stream_options"}}', status=400)
    replica = ScriptedReplica([refusal], talk("a"), talk("b"))
    result = await measure(replica, plan(), workload(2))
    assert [record.outcome for record in result.records] == ["ok", "ok"]
    assert ["stream_options" in body for body in bodies(replica)] == [True, False, False]
    assert [note for note in result.warnings if "stream_options" in note]


async def test_lost_after_stream_options_were_refused(autojump_clock: Clock) -> None:
    """What the first answer said is not taken for the second one's."""
    refusal = answer(b'{"error":{"message":"unknown field stream_options"}}', status=400)
    result = await measure(ScriptedReplica([refusal], [Act.CLOSE]))
    record = result.records[0]
    assert (record.error, record.status, record.head_s) == ("reset", None, None)


CUT_500 = b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\nboom"
COMPRESSED = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")

FAILURES: dict[str, tuple[list[Step], str]] = {
    "429": ([answer(b'{"error":{"message":"slow down"}}', status=429)], "http_429"),
    "500 without a body": ([answer(b"", status=500)], "http_500"),
    "500 cut short": ([CUT_500, Act.CLOSE], "http_500"),
    "500 that never ends": ([CUT_500, Act.HANG], "http_500"),
    "compressed": ([COMPRESSED, chunk(b"\x1f\x8b\x08"), b"0\r\n\r\n"], "invalid"),
    "closed at once": ([Act.CLOSE], "reset"),
    "reset while it thinks": ([0.2, Act.RESET], "reset"),
    "died half-way": ([STREAM_HEAD, chunk(said(content="a")), 0.1, Act.CLOSE], "cut"),
    "reset half-way": ([STREAM_HEAD, chunk(said(content="a")), 0.1, Act.RESET], "cut"),
    "no [DONE], no finish": (stream(said(content="a")), "cut"),
    "no text at all": (stream(ROLE, FINISH, DONE), "empty"),
    "not HTTP": ([b"SSH-2.0-OpenSSH_9\r\n"], "invalid"),
    "not SSE": ([answer(b"<html>", content_type=b"text/html")], "invalid"),
    "not streamed": ([answer(b'{"choices":[{"message":{"content":"a"}}]}')], "invalid"),
    "not JSON": (stream(said(content="a"), b"data: {oops\n\n"), "invalid"),
    "wrong type": (stream(b'data: {"choices":[{"delta":{"content":7}}]}\n\n'), "invalid"),
    "endless event": (stream(b"data: " + b"x" * 1_100_000), "invalid"),
    "in-band error": (
        stream(said(content="a"), b'data: {"error":{"message":"boom"}}\n\n'),
        "in_band",
    ),
    "error as JSON": ([answer(b'{"error":"boom"}')], "in_band"),
    "vLLM's error object": (stream(b'data: {"object":"error","message":"boom"}\n\n'), "in_band"),
    "silence": ([STREAM_HEAD, chunk(said(content="a")), Act.HANG], "timeout"),
    "no answer": ([Act.HANG], "timeout"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_failures(name: str, autojump_clock: Clock) -> None:
    """Every failure has its kind, its end and a message; it never counts as a success."""
    script, kind = FAILURES[name]
    record = await one(script, request_timeout_s=5)
    assert (record.outcome, record.error) == ("error", kind)
    assert record.ended_s is not None
    assert record.error_message


async def test_failed_whole_answers(autojump_clock: Clock) -> None:
    """The same for answers that are not streamed."""
    for body, kind in (
        (b'{"choices":[{"message":{"content":""}}]}', "empty"),
        (b'{"choices":[]}', "invalid"),
        (b"hello", "invalid"),
        (b'{"error":{"message":"boom"}}', "in_band"),
    ):
        record = await one([answer(body)], streaming=False)
        assert (record.outcome, record.error) == ("error", kind)
        assert record.content_s == []


async def test_refused_connection(autojump_clock: Clock) -> None:
    """Nobody listens: an error of its own kind, and the next session is tried all the same."""
    result = await measure(None, plan(), workload(3))
    assert [record.error for record in result.records] == ["connect"] * 3
    assert result.records[0].error_message is not None
    assert "nothing listens" in result.records[0].error_message


@pytest.mark.parametrize("date", [False, True])
async def test_retry_after(date: bool, autojump_clock: Clock) -> None:
    """Seconds, as a number or as a date; the request is not repeated."""
    value = formatdate(usegmt=True) if date else "7"
    script: list[Step] = [answer(b"busy", status=503, headers=[b"retry-after: " + value.encode()])]
    replica = ScriptedReplica(script)
    result = await measure(replica)
    record = result.records[0]
    assert (record.error, record.error_message) == ("http_503", "busy")
    assert record.retry_after_s == (0 if date else 7)
    assert len(replica.requests) == 1


async def test_done_and_then_cut_off(autojump_clock: Clock) -> None:
    """After [DONE] nothing is missing, whatever becomes of the connection."""
    script: list[Step] = [STREAM_HEAD, chunk(said(content="a") + DONE), 0.1, Act.RESET]
    assert (await one(script)).outcome == "ok"


async def test_done_without_an_end(autojump_clock: Clock) -> None:
    """After [DONE] the body's end is awaited for a moment only; the answer is whole."""
    script: list[Step] = [STREAM_HEAD, chunk(said(content="a") + DONE), Act.HANG]
    record = await one(script, request_timeout_s=60)
    assert (record.outcome, record.status) == ("ok", 200)
    assert trio.current_time() < 5


async def test_end_after_done_keeps_the_connection(autojump_clock: Clock) -> None:
    """The last chunk may come by itself after [DONE]: the connection is used again."""
    replica = ScriptedReplica(
        [STREAM_HEAD, chunk(said(content="a") + DONE), 0.2, b"0\r\n\r\n"],
    )
    result = await measure(replica, plan(), workload(3))
    assert [record.outcome for record in result.records] == ["ok"] * 3
    assert replica.connections == 1


@pytest.mark.parametrize("count", [-2, 10**400])
async def test_impossible_usage(count: int, autojump_clock: Clock) -> None:
    """A count that cannot be one is as none: no negative tokens, no report lost."""
    used = b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n'
    used = used.replace(b"%d", str(count).encode())
    record = await one(paced(said(content="a"), said(content=" b"), FINISH + used + DONE))
    assert (record.outcome, record.input_tokens, record.output_tokens) == ("ok", None, None)
    assert record.counted_output_tokens == 2


@pytest.mark.parametrize(
    ("timing", "queue_s"),
    [("queue;dur=1.2.3", 0.0012), ("queue;dur=.", None), ("queue;dur=" + "9" * 400, None)],
)
async def test_malformed_queue_time(
    timing: str, queue_s: float | None, autojump_clock: Clock
) -> None:
    """A header nobody can read does not end the run."""
    head = STREAM_HEAD.replace(b"\r\n\r\n", f"\r\nserver-timing: {timing}\r\n\r\n".encode())
    record = await one([head, *talk("a")[1:]])
    assert (record.outcome, record.queue_s) == ("ok", queue_s)


async def test_what_is_sent(autojump_clock: Clock) -> None:
    """The request line, ids, the user's headers and fields, no secret in the result."""
    replica = ScriptedReplica(talk("a"))
    sent = plan(
        headers=(("Authorization", "Bearer secret"), ("X-Team", "blue")),
        extra_inputs={"ignore_eos": True, "temperature": 0},
        session_header="x-session",
    )
    result = await measure(replica, sent, workload(1, 2))
    head = replica.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    lines = dict(line.split(": ", 1) for line in head[1:])
    assert head[0] == "POST /v1/chat/completions HTTP/1.1"
    assert lines["authorization"] == "Bearer secret"
    assert lines["x-team"] == "blue"
    assert lines["x-request-id"] == result.records[0].request_id
    ids = {lines["x-correlation-id"], lines["x-session-affinity"], lines["x-session"]}
    assert len(ids) == 1
    body = bodies(replica)[0]
    assert (body["model"], body["stream"], body["max_tokens"]) == ("m", True, 3)
    assert body["stream_options"] == {"include_usage": True}
    assert (body["ignore_eos"], body["temperature"]) == (True, 0)
    assert b"secret" not in msgspec.json.encode(result)
    again = replica.requests[1].decode()
    assert f"x-correlation-id: {lines['x-correlation-id']}" in again
    assert f"x-request-id: {lines['x-request-id']}" not in again
    assert replica.connections == 1


async def test_what_the_target_says(autojump_clock: Clock) -> None:
    """Replica and queue time from the headers; a header named by the user wins."""
    headers = b"x-triolet-replica: http://r1\r\nserver-timing: queue;dur=12.5, upstream;dur=9\r\n"
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nx-mine: r2\r\n" + headers + b"\r\n")
    script = [head, *talk("a")[1:]]
    record = await one(script)
    assert (record.replica, record.queue_s) == ("http://r1", 0.0125)
    assert (await one(script, replica_header="X-Mine")).replica == "r2"


async def test_connection_closed_while_kept(autojump_clock: Clock) -> None:
    """A kept connection that proves closed at once is replaced and counted; a later loss is not."""
    for pause_s, errors in ((0.0, [None, None]), (0.2, [None, "reset"])):
        scripts: list[list[Step]] = [talk("a"), [pause_s, Act.CLOSE], talk("b")]
        result = await measure(ScriptedReplica(*scripts), plan(), workload(2))
        assert [record.error for record in result.records] == errors
        said_so = any("had been closed by the target" in text for text in result.warnings)
        assert said_so == (errors[1] is None)


async def test_connections_not_kept(autojump_clock: Clock) -> None:
    """Without keep-alive each request has a connection of its own, and says so."""
    replica = ScriptedReplica(talk("a"))
    await measure(replica, plan(keep_connections=False), workload(2))
    assert replica.connections == 2
    assert b"connection: close\r\n" in replica.requests[0]


async def test_planned_cancellation(autojump_clock: Clock) -> None:
    """A request that is cancelled on purpose is that, closes its connection and ends its turn."""
    replica = ScriptedReplica([STREAM_HEAD, chunk(said(content="a")), Act.HANG])
    result = await measure(replica, plan(cancellation_rate=1.0, cancellation_delay_s=2.0))
    record = result.records[0]
    assert (record.outcome, record.error) == ("cancelled", None)
    assert record.ended_s == pytest.approx(2.0)
    assert replica.left_at == pytest.approx([2.0])


@pytest.mark.parametrize("at_s", [0.1, 0.5, 1.0, 1.45, 2.0])
async def test_cancelled_in_any_phase(at_s: float, autojump_clock: Clock) -> None:
    """Cancelled while it connects, waits or streams: nothing stays open, the record unfinished."""
    script: list[Step] = [0.4, *paced(*[said(content="a")] * 9, first_s=0.4, gap_s=0.2)]
    async with memory_network() as network:
        network.serve(URL, ScriptedReplica(script), connect_s=0.3)
        stop = trio.Event()
        results = []
        async with trio.open_nursery() as nursery:

            async def go() -> None:
                results.append(await run(plan(), workload(), dialer=network, stop=stop))

            nursery.start_soon(go)
            await trio.sleep(at_s)
            stop.set()
        assert network.open == 0
    (result,) = results
    assert result.was_cancelled
    (record,) = result.records
    assert (record.outcome, record.ended_s) == ("unfinished", None)
    assert record.counted_output_tokens == len(record.content_s)


async def test_requests_over_several_targets(autojump_clock: Clock) -> None:
    """Requests go round the URLs; or sessions stay at theirs."""
    for strategy, expected in (("round_robin", [2, 2]), ("session", [4, 0])):
        replicas = [ScriptedReplica(talk("a")), ScriptedReplica(talk("a"))]
        async with memory_network() as network:
            for number, replica in enumerate(replicas):
                network.serve(f"http://r{number}", replica)
            load = plan(urls=("http://r0", "http://r1/v1"), url_strategy=strategy)
            await run(load, workload(1, 4), dialer=network)
        assert [len(replica.requests) for replica in replicas] == expected


async def test_real_sockets() -> None:
    """Over real sockets: a server that answers and leaves, and a port where nobody listens."""
    async with trio.open_nursery() as nursery:
        served = await nursery.start(partial(trio.serve_tcp, _serve_once, 0, host="127.0.0.1"))
        port = served[0].socket.getsockname()[1]
        load = plan(urls=(f"http://127.0.0.1:{port}",), limits=Limits(requests=2))
        result = await run(load, workload())
        assert [record.outcome for record in result.records] == ["ok", "ok"]
        nursery.cancel_scope.cancel()
    result = await run(load, workload())
    assert [record.error for record in result.records] == ["connect", "connect"]


async def _serve_once(stream_: trio.SocketStream) -> None:
    await stream_.receive_some(65_536)
    body = b"".join(step for step in talk("a", " b") if isinstance(step, bytes))
    await stream_.send_all(body)
