"""A loop over epoll and a heap of timers, for the two ends of a measurement.

Both the fake replica and the load client must cost far less than any proxy between them, so they
run on callbacks alone: no tasks, no streams, no buffers that nobody asked for.
"""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

READ: Final = select.EPOLLIN | select.EPOLLRDHUP
WRITE: Final = select.EPOLLOUT


class PollLoop:
    """Calls a handler when its descriptor is ready, and callbacks at their time.

    Times are `time.perf_counter()` seconds.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._epoll_fd = [self._epoll.fileno()]
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def watch(self, fd: int, handler: Callable[[int], None], events: int = READ) -> None:
        """Call `handler(ready_events)` whenever `fd` is ready for one of `events`."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on a watched descriptor."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def call_at(self, due_s: float, callback: Callable[[], None]) -> None:
        """Call back once, at `due_s` or as soon after it as the loop comes to it."""
        heappush(self._timers, (due_s, next(self._order), callback))

    def turn(self, longest_s: float) -> None:
        """Wait for the next event or timer, at most `longest_s`, and handle what is ready."""
        for fd, events in self._ready(longest_s):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
        now = time.perf_counter()
        timers = self._timers
        while timers and timers[0][0] <= now:
            heappop(timers)[2]()

    def _ready(self, longest_s: float) -> list[tuple[int, int]]:
        if not self._timers:
            return self._epoll.poll(longest_s)
        wait_s = min(longest_s, self._timers[0][0] - time.perf_counter())
        if wait_s > 0:
            # epoll_wait rounds up to milliseconds, which would gather the timers of many streams
            # into one tick; select keeps microseconds.
            select.select(self._epoll_fd, (), (), wait_s)
        return self._epoll.poll(0)

    def close(self) -> None:
        """Close the epoll descriptor; the watched descriptors are their owners'."""
        self._epoll.close()
