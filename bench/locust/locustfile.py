"""Chat streaming under Locust: locust -f bench/locust/locustfile.py --headless -H URL -u 20 -t 1m

Locust itself sees a stream end where its head has come. So a request makes several entries:

- `first byte`: until the answer's head (Locust's own measurement);
- `first text`: until the first chunk with text, which is what others call time to first token;
- `full`: until the end of the stream; the one entry to count requests and failures by;
- `between tokens`: the answer's mean time between two tokens;
- `output tokens`: not a time, but the answer's length, so that its average can be read.

An answer that is cut off or empty, or holds an error, is a failure, and has no times at all.
Settings are in bench/locust/settings.py.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

# The project needs not be installed where Locust is: this directory's parents hold it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gevent  # type: ignore[import-untyped]
from gevent.event import Event  # type: ignore[import-untyped]
from locust import (  # type: ignore[import-not-found]
    HttpUser,
    constant,
    events,
    task,
)
from locust.exception import StopUser  # type: ignore[import-not-found]

from bench.locust.answer import Answer, AnswerFailed
from bench.locust.settings import read_settings
from bench.locust.talk import Talk

SETTINGS = read_settings(os.environ)
_KIND = "SSE"


class _Course:
    """What the users of one process have in common: the warm-up's end, and the last request."""

    def __init__(self) -> None:
        self.sessions = itertools.count()
        self._requests = self._cold = self._here = 0
        self._warm = Event()

    def begin(self, users: int) -> None:
        """A test with so many users starts: all counts anew."""
        self._requests = SETTINGS.requests
        self._cold = self._here = users
        self._warm.clear()

    def user_is_warm(self, runner: Any) -> None:
        """Wait until every user has warmed up; what was measured by then is dropped."""
        self._cold -= 1
        if self._cold <= 0 and not self._warm.is_set():
            runner.stats.reset_all()
            self._warm.set()
        self._warm.wait()

    def take(self) -> bool:
        """Whether there is one more request to send."""
        if not SETTINGS.requests:
            return True
        self._requests -= 1
        return self._requests >= 0

    def user_leaves(self, runner: Any) -> None:
        """The last one ends the run, from outside the users, which it stops."""
        self._here -= 1
        if self._here <= 0:
            gevent.spawn(runner.quit)


_course = _Course()


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _begin(environment: Any, **_: Any) -> None:
    _course.begin(environment.runner.target_user_count)


class ChatUser(HttpUser):  # type: ignore[misc]
    """One user: session after session, each turn sent when the answer before it is complete."""

    host = "http://127.0.0.1:8746"
    wait_time = constant(0)

    def on_start(self) -> None:
        """Warm up, and wait for the others."""
        if SETTINGS.api_key:
            self.client.headers["authorization"] = f"Bearer {SETTINGS.api_key}"
        if not SETTINGS.warmup:
            return
        for _ in range(SETTINGS.warmup):
            self._turn(Talk(SETTINGS, next(_course.sessions)), "warm-up")
        _course.user_is_warm(self.environment.runner)

    @task  # type: ignore[untyped-decorator]
    def session(self) -> None:
        """One session, ended early if a turn fails: what follows would repeat an answer's half."""
        number = next(_course.sessions)
        talk = Talk(SETTINGS, number)
        for turn in range(SETTINGS.turns):
            if turn and SETTINGS.think_s:
                time.sleep(SETTINGS.think_s)
            if not _course.take():
                _course.user_leaves(self.environment.runner)
                raise StopUser
            if not self._turn(talk, f"session-{number}"):
                return

    def _turn(self, talk: Talk, session: str) -> bool:
        """Send one request and report what came of it; whether it succeeded."""
        answer = Answer()
        began_s = time.perf_counter()
        try:
            self._ask(talk, session, answer)
        except (AnswerFailed, OSError) as error:
            self._fire("full", None, error)
            return False
        self._succeeded(answer, began_s, time.perf_counter())
        talk.hear(answer.text)
        return True

    def _ask(self, talk: Talk, session: str, answer: Answer) -> None:
        """Raises AnswerFailed, or the OSError that requests makes of a lost connection."""
        with self.client.post(
            SETTINGS.path,
            json=talk.ask(),
            headers={"accept": "text/event-stream", "x-session-affinity": session},
            name="first byte",
            stream=True,
            timeout=SETTINGS.timeout_s,
            catch_response=True,
        ) as response:
            try:
                _read(response, answer)
            except (AnswerFailed, OSError) as error:
                # Locust would count a failed request's time as well.
                response.request_meta["response_time"] = None
                response.failure(error)
                raise

    def _succeeded(self, answer: Answer, began_s: float, ended_s: float) -> None:
        if answer.first_text_s is not None:
            self._fire("first text", (answer.first_text_s - began_s) * 1e3)
        if answer.itl_s is not None:
            self._fire("between tokens", answer.itl_s * 1e3)
        self._fire("output tokens", float(answer.tokens))
        self._fire("full", (ended_s - began_s) * 1e3)

    def _fire(self, name: str, value: float | None, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type=_KIND,
            name=name,
            response_time=value,
            response_length=0,
            exception=error,
            context={},
        )


def _read(response: Any, answer: Answer) -> None:
    if response.error:
        raise response.error
    if response.status_code != 200:
        raise AnswerFailed(f"status {response.status_code}")
    for line in response.iter_lines():
        answer.line(line, time.perf_counter())
    answer.finish()
