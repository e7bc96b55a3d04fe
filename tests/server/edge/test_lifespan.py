"""The lifespan protocol: apps that speak it, that do not, that refuse, and that fail at it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from server.edge.exchange import ASGIApp, Receive, Scope, Send
from server.edge.lifespan import Lifespan, LifespanFailed
from tests.server.edge.loopback import GET, PATIENCE_S, answer, serving


async def start_and_stop(app: ASGIApp) -> Lifespan:
    """Run an app's whole lifespan."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            lifespan = Lifespan(app)
            await lifespan.start(nursery)
            await lifespan.stop()
    return lifespan


class Supporting:
    """An app that speaks the protocol and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await answer(send, 200, scope["state"]["greeting"])
            return
        for _ in range(2):
            message = await receive()
            self.told.append(message["type"])
            scope["state"]["greeting"] = b"hi"
            await send({"type": message["type"] + ".complete"})


async def test_an_app_is_told_of_both_ends() -> None:
    """startup and shutdown, once each, in that order; its scope is as ASGI has it."""
    app = Supporting()
    lifespan = await start_and_stop(app)
    assert app.told == ["lifespan.startup", "lifespan.shutdown"]
    assert app.scopes[0]["type"] == "lifespan"
    assert app.scopes[0]["asgi"]["version"] == "3.0"
    assert lifespan.state == {"greeting": b"hi"}


async def test_state_reaches_every_exchange_as_a_copy() -> None:
    """What startup put into the state is there in each scope; what an exchange adds is its own."""
    app = Supporting()
    state: dict[str, Any] = {}
    async with (
        serving(app, state=state, lifespan=True) as served,
        await served.connect() as client,
    ):
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer()).body == b"hi"
            assert "mine" not in app.scopes[-1]["state"]
            app.scopes[-1]["state"]["mine"] = 1
    assert state == {"greeting": b"hi"}
    assert app.told == ["lifespan.startup", "lifespan.shutdown"]


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError(scope["type"])


async def raises_after_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise KeyError("path")


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def returns_after_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


@pytest.mark.parametrize("app", [raises, raises_after_reading, returns, returns_after_reading])
async def test_an_app_without_lifespan_is_served_without(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Raising or returning says: not supported. That is no error and not worth a warning."""
    await start_and_stop(app)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("then", ["return", "raise"])
async def test_an_app_may_refuse_to_start(then: str) -> None:
    """startup.failed: the start raises, with the app's own words, whatever the app does next."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})
        if then == "raise":
            raise OSError("no disk")

    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE_S), pytest.raises(LifespanFailed, match="startup: no disk"):
            await Lifespan(app).start(nursery)


async def test_an_app_may_fail_to_stop() -> None:
    """shutdown.failed is told too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "still writing"})

    async with trio.open_nursery() as nursery:
        lifespan = Lifespan(app)
        await lifespan.start(nursery)
        with trio.fail_after(PATIENCE_S), pytest.raises(LifespanFailed, match="still writing"):
            await lifespan.stop()


async def test_an_app_that_dies_between_start_and_stop(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is logged when it happens, and stopping does not wait for a dead app."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("background work failed")

    await start_and_stop(app)
    assert [record.getMessage() for record in caplog.records] == ["the app's lifespan failed"]


async def test_an_app_that_fails_while_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    """It raises instead of answering: that is logged, and the server stops all the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("could not save")

    await start_and_stop(app)
    assert [record.getMessage() for record in caplog.records] == ["the app's lifespan failed"]


async def test_an_app_that_answers_before_it_reads() -> None:
    """Odd, but it has said that it is ready; it can still be stopped."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await trio.lowlevel.checkpoint()
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        await send({"type": "lifespan.shutdown.complete"})

    await start_and_stop(app)


async def test_stopping_is_bounded(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """An app that never finishes its shutdown is not waited for without end, and told of."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        lifespan = Lifespan(app)
        await lifespan.start(nursery)
        started = trio.current_time()
        await lifespan.stop(limit_s=3.0)
        assert trio.current_time() - started == pytest.approx(3.0)
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "the app did not finish its shutdown within 3 s"
    ]


async def test_startup_may_take_its_time(autojump_clock: trio.testing.MockClock) -> None:
    """Loading a model takes minutes: the start waits for it."""
    ready: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await trio.sleep(300)
        ready.append(trio.current_time())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with trio.open_nursery() as nursery:
        lifespan = Lifespan(app)
        await lifespan.start(nursery)
        assert ready
        await lifespan.stop()
