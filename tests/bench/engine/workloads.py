"""Small random workloads and engines for the tests, and a driver that runs either on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

from hypothesis import strategies as st

from bench.engine import Profile
from bench.workload.model import Segment

BLOCK = 16


class Ask(NamedTuple):
    """One turn: what it adds to the conversation, and when."""

    new_tokens: int
    output_tokens: int
    pause_s: float
    """From the end of the turn before it; of a first turn: from the start."""


class Talk(NamedTuple):
    """A session: it begins with one of the shared prefixes."""

    prefix: int
    turns: tuple[Ask, ...]


class Event(NamedTuple):
    """Something done to an engine at a time."""

    at_s: float
    kind: str
    value: float


PREFIX_TOKENS = (0, 16, 40, 100, 7)


def profiles() -> st.SearchStrategy[Profile]:
    return st.builds(
        Profile,
        name=st.just("test"),
        step_s=st.sampled_from((0.0, 0.00113)),
        sequence_s=st.sampled_from((0.0, 0.000117)),
        weights_s=st.sampled_from((0.00731, 0.0213)),
        token_s=st.sampled_from((0.0000217, 0.00091)),
        attention_s=st.sampled_from((0.0, 1.3e-7, 1.1e-5)),
        context_s=st.sampled_from((0.0, 3.1e-8, 7.7e-6)),
        expert_weights_s=st.sampled_from((0.0, 0.0071)),
        expert_share=st.sampled_from((0.0, 0.0625)),
        link_s=st.sampled_from((0.0, 1.7e-6)),
        request_s=st.sampled_from((0.0, 0.00713)),
        request_token_s=st.sampled_from((0.0, 2.51e-6)),
        kv_tokens=st.integers(23, 80).map(lambda blocks: blocks * BLOCK + 5),
        max_num_seqs=st.integers(1, 8),
        max_num_batched_tokens=st.sampled_from((8, 24, 64, 100, 512)),
        async_scheduling=st.booleans(),
        reserve_prompt=st.booleans(),
    )


def asks(max_pause_s: float = 0.4) -> st.SearchStrategy[Ask]:
    pauses = st.one_of(st.just(0.0), st.floats(1e-4, max_pause_s))
    return st.builds(Ask, st.integers(1, 70), st.integers(1, 60), pauses)


def talks() -> st.SearchStrategy[list[Talk]]:
    """Sessions; at most 360 tokens long, so that each turn fits into the smallest memory."""
    turns = st.lists(asks(), min_size=1, max_size=2).map(tuple)
    prefix = st.integers(0, len(PREFIX_TOKENS) - 1)
    return st.lists(st.builds(Talk, prefix, turns), min_size=1, max_size=12)


def first_prompt(talk: Talk) -> tuple[Segment, ...]:
    tokens = PREFIX_TOKENS[talk.prefix]
    return (Segment(1000 + talk.prefix, tokens),) if tokens else ()


Make = Callable[[tuple[Segment, ...], int, int], Any]


def drive(
    engine: Any,
    make: Make,
    sessions: list[Talk],
    events: Collection[Event] = (),
    *,
    watch_s: float | None = None,
    look: tuple[float, Callable[[list[Any]], None]] | None = None,
    follow: tuple[int, list[float]] | None = None,
) -> list[Any]:
    """Run `engine` until nothing is left to do; returns its sequences, turn by turn.

    `engine.told_end` is called by the engine's callback. An event aborts a sequence by number, or
    does what it is called to the engine. `watch_s`: advance it as often as that besides. `look`: a
    time, and what is then called with all first turns. `follow`: a session, and a list for the
    times at which its tokens are seen by one who sleeps until they are due.
    """
    made: dict[tuple[int, int], Any] = {}
    todo: list[tuple[float, int, Callable[[float], object]]] = []
    count = 0

    def at(time_s: float, call: Callable[[float], object]) -> None:
        nonlocal count
        count += 1
        heappush(todo, (time_s, count, call))

    def begin(number: int, turn: int, history: tuple[Segment, ...]) -> Callable[[float], object]:
        ask = sessions[number].turns[turn]
        key = 10_000 + 100 * number + 10 * turn
        sequence = make((*history, Segment(key, ask.new_tokens)), ask.output_tokens, key + 1)
        made[number, turn] = sequence
        owners[sequence] = (
            number,
            turn,
            (*history, Segment(key, ask.new_tokens), Segment(key + 1, ask.output_tokens)),
        )
        return lambda now_s: engine.submit(sequence, now_s)

    owners: dict[Any, tuple[int, int, tuple[Segment, ...]]] = {}

    def ended(sequence: Any) -> None:
        number, turn, history = owners[sequence]
        if turn + 1 < len(sessions[number].turns):
            pause_s = sessions[number].turns[turn + 1].pause_s
            call = begin(number, turn + 1, history)
            if pause_s == 0.0:
                call(sequence.finished_s)
            else:
                at(sequence.finished_s + pause_s, call)

    engine.told_end = ended
    for number, talk in enumerate(sessions):
        at(talk.turns[0].pause_s, begin(number, 0, first_prompt(talk)))
    for event in events:
        at(event.at_s, partial(_do, engine, event, made))
    if look is not None:
        firsts = [made[number, 0] for number in range(len(sessions))]
        at(look[0], lambda now_s: look[1](firsts))
    if follow is not None:
        number, seen = follow
        followed = made[number, 0]

        def wake(now_s: float) -> None:
            engine.advance(now_s)
            if followed.state != "new" and engine.tokens_made(followed, now_s) > len(seen):
                seen.append(now_s)
            if len(seen) < followed.output_tokens:
                due_s = engine.due_s(followed, len(seen), now_s)
                assert due_s > now_s or engine.tokens_made(followed, now_s) > len(seen)
                at(due_s, wake)

        at(sessions[number].turns[0].pause_s, wake)
    ticks = 0
    while True:
        next_s = engine.next_s()
        soonest_s = min(next_s, todo[0][0] if todo else math.inf)
        if watch_s is not None and ticks * watch_s < soonest_s < math.inf:
            engine.advance(ticks * watch_s)
            ticks += 1
            continue
        if todo and todo[0][0] <= next_s:
            time_s, _, call = heappop(todo)
            call(time_s)
        elif next_s == math.inf:
            break
        else:
            engine.advance(next_s)
    return [made[key] for key in sorted(made)]


def _do(engine: Any, event: Event, made: dict[tuple[int, int], Any], now_s: float) -> None:
    if event.kind == "abort":
        keys = sorted(key for key in made if made[key].state != "new")
        if keys:
            engine.abort(made[keys[int(event.value) % len(keys)]], now_s)
    elif event.kind == "slow_down":
        engine.slow_down(0.5 + event.value / 4, now_s)
    elif event.kind == "stall":
        engine.stall(now_s + event.value / 10, now_s)
    else:
        engine.crash(event.value / 10, now_s)
