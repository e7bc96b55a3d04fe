"""What the load client's tests share: scripted answers, short workloads, a run in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import trio

from balancer.wire.memory import memory_network
from bench.load.plan import Closed, Plan
from bench.load.result import RunResult
from bench.load.runner import run
from bench.workload.model import Segment, Session, Turn, Workload, segment_key
from tests.balancer.scripted import DONE, STREAM_HEAD, ScriptedReplica, Step, answer, chunk

URL = "http://replica:8000"
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'


def said(**delta: Any) -> bytes:
    """One event of a chat stream with this delta."""
    return b"data: " + msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"


def usage(prompt: int = 7, output: int = 3, **more: Any) -> bytes:
    """The event with the usage."""
    counts = {"prompt_tokens": prompt, "completion_tokens": output, **more}
    return b"data: " + msgspec.json.encode({"choices": [], "usage": counts}) + b"\n\n"


def paced(*events: bytes, first_s: float = 0.5, gap_s: float = 0.1) -> list[Step]:
    """A stream: its head at once, the first event after `first_s`, the others `gap_s` apart."""
    steps: list[Step] = [STREAM_HEAD]
    for index, event in enumerate(events):
        steps += [gap_s if index else first_s, chunk(event)]
    return [*steps, b"0\r\n\r\n"]


def talk(*words: str, first_s: float = 0.5, gap_s: float = 0.1, **used: Any) -> list[Step]:
    """A whole healthy stream of these words, one token each."""
    events = [said(content=word) for word in words]
    counts = {"prompt": 7, "output": len(words), **used}
    return [
        *paced(*events, first_s=first_s, gap_s=gap_s)[:-1],
        chunk(FINISH + usage(**counts) + DONE),
        b"0\r\n\r\n",
    ]


def whole(text: str | None = "one two", delay_s: float = 0.5, **message: Any) -> list[Step]:
    """An answer that is not streamed."""
    document = {
        "choices": [{"message": {"content": text, **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    return [delay_s, answer(msgspec.json.encode(document))]


def session(number: int = 0, turns: int = 1, **changes: Any) -> Session:
    """Turns that carry the history; `changes` are for every turn."""
    prompt: tuple[Segment, ...] = ()
    made: list[Turn] = []
    for index in range(turns):
        prompt += (Segment(segment_key("user", number, index), 5),)
        key = segment_key("answer", number, index)
        made.append(Turn(prompt=prompt, output_tokens=3, answer=key, **changes))
        prompt += (Segment(key, 3, "assistant"),)
    return Session(id=number, turns=made)


def workload(sessions: int = 1, turns: int = 1, **changes: Any) -> Workload:
    """So many sessions of so many turns."""
    return Workload(
        name="test", sessions=[session(number, turns, **changes) for number in range(sessions)]
    )


def plan(**changes: Any) -> Plan:
    """One session at a time against the one replica."""
    given: dict[str, Any] = {"urls": (URL,), "model": "m", "loop": Closed(concurrency=1)}
    return Plan(**given | changes)


async def measure(
    replica: Callable[..., Awaitable[None]] | Sequence[Step] | None,
    load: Plan | None = None,
    work: Workload | None = None,
    *,
    stop: trio.Event | None = None,
) -> RunResult:
    """A run against one replica (None: nobody listens). At its end no connection may be open."""
    async with memory_network() as network:
        if replica is not None:
            network.serve(URL, replica if callable(replica) else ScriptedReplica(replica))
        result = await run(load or plan(), work or workload(), dialer=network, stop=stop)
        assert network.open == 0, "a connection was left open"
        return result


def bodies(replica: ScriptedReplica) -> list[Any]:
    """The JSON bodies a replica was sent."""
    return [msgspec.json.decode(request.partition(b"\r\n\r\n")[2]) for request in replica.requests]
