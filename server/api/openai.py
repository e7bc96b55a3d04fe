"""The relay: model calls in OpenAI's (and Anthropic's) API, answered by the replicas of a pool."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final
from urllib.parse import quote

import trio

from balancer.catalog import Catalog
from balancer.decisions import Decision, Decisions
from balancer.dispatch import CancelReason, Dispatch, Request, Trace
from balancer.errors import BalancerError, ConnectionLost
from balancer.pool import Pool
from balancer.prompt import Prompt
from balancer.wire.http1 import Head
from balancer.wire.pump import Sink
from server.api.call import ENDPOINTS, Endpoint, ModelCall, passed_headers, read_call
from server.api.respond import ClientLeft, read_body, respond_error, respond_json
from server.api.standing import read_standing
from server.edge.exchange import EXTENSION, Exchange, Receive, Scope, Send
from server.errors import ApiError, RelayedError, error_event, from_balancer
from server.observe.record import Hedged, Record

__all__ = ["RelayApi"]

Headers = list[tuple[bytes, bytes]]

log = logging.getLogger("triolet.relay")

_OFF_LOOP_BYTES: Final = 1_048_576
"""Above this the model's name is written into a body in a thread. Reading the body is not: the
decoder keeps the interpreter's lock, so a thread would hold the loop all the same, for about 0.6
(one long string) to 1.6 ms (numbers) per MiB.
"""


class RelayApi:
    """Every relayed path, and `/v1/models`."""

    def __init__(
        self, catalog: Catalog, *, body_bytes: int, decisions: Decisions | None = None
    ) -> None:
        """`decisions` keeps what is to be told of each call."""
        self._catalog = catalog
        self._body_bytes = body_bytes
        self._decisions = Decisions() if decisions is None else decisions
        self._live: set[Dispatch] = set()
        self._writers = trio.CapacityLimiter(2)

    @property
    def in_flight(self) -> int:
        """Model calls being served now."""
        return len(self._live)

    def end_all(self, reason: CancelReason = "shutdown") -> None:
        """End every call now: streams get an error event, the others an error."""
        for dispatch in tuple(self._live):
            dispatch.cancel(reason)

    async def relay(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one model call."""
        record.is_call = True
        endpoint = ENDPOINTS[scope["path"]]
        answering = _Answering(send, scope["extensions"].get(EXTENSION), record, endpoint)
        try:
            body = await read_body(receive, self._body_bytes)
            call = read_call(endpoint, scope["headers"], body)
            dispatch = self._dispatch(scope, record, call, answering)
            await self._run(dispatch, record, answering, receive)
        except ApiError as error:
            await self._fail(answering, error)
        except (ClientLeft, ConnectionLost):
            record.outcome = "client_gone"

    def _dispatch(
        self, scope: Scope, record: Record, call: ModelCall, answering: _Answering
    ) -> Dispatch:
        pool = self._find(call.model)
        record.model = pool.model
        headers = scope["headers"]
        return Dispatch(
            self._chain(pool),
            partial(self._make_request, scope, record, call),
            answering,
            ask=Prompt(call.body, headers, streams=call.stream),
            standing=read_standing(headers, pool.tiers, pool.tiers[0], record.started),
            now=record.started,
        )

    def _chain(self, pool: Pool) -> list[Pool]:
        """The pool asked for and those that it falls back to, none twice."""
        chain = [pool]
        for model in pool.settings.fallback:
            other = self._catalog.find(model)
            if other is not None and other not in chain:
                chain.append(other)
        return chain

    async def _fail(self, answering: _Answering, error: ApiError) -> None:
        try:
            await answering.fail(error)
        except ConnectionLost:
            log.debug("the client left before it could be told: %s", error)

    async def _make_request(
        self, scope: Scope, record: Record, call: ModelCall, pool: Pool
    ) -> Request:
        """What goes to the replica; writing the name into a large body is done in a thread."""
        if _name_at(pool) == call.model or len(call.body) <= _OFF_LOOP_BYTES:
            return _request(scope, record, call, pool)
        return await trio.to_thread.run_sync(
            _request, scope, record, call, pool, limiter=self._writers
        )

    def _find(self, model: str) -> Pool:
        pool = self._catalog.find(model)
        if pool is None:
            known = ", ".join(sorted(self._catalog.pools)) or "none"
            raise ApiError(
                404,
                f"the model {model!r} does not exist here; the models are: {known}",
                code="model_not_found",
                param="model",
            )
        return pool

    async def _run(
        self, dispatch: Dispatch, record: Record, answering: _Answering, receive: Receive
    ) -> None:
        self._live.add(dispatch)
        try:
            await answering.run(dispatch, receive)
        except ConnectionLost:
            raise
        except BalancerError as error:
            raise from_balancer(error) from error
        finally:
            self._live.discard(dispatch)
            _note(record, dispatch.trace)
            self._explain(record, dispatch)
        if dispatch.cancel_reason == "client_gone":
            record.outcome = "client_gone"
        elif dispatch.cancel_reason == "shutdown" and not answering.ended:
            raise ApiError(503, "the server is shutting down", type="server_error", code="shutdown")

    def _explain(self, record: Record, dispatch: Dispatch) -> None:
        decision = Decision.of(record.request_id, dispatch.pool.policy, dispatch.trace)
        if decision is not None:
            record.decision = decision
            self._decisions.keep(decision)

    async def models(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/models`: every pool's model."""
        data = [_model(pool) for pool in self._catalog.pools.values()]
        await respond_json(send, record, 200, {"object": "list", "data": data})

    async def model(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/models/{model}`."""
        try:
            pool = self._find(scope["path"].removeprefix("/v1/models/"))
        except ApiError as error:
            await respond_error(send, record, error)
        else:
            await respond_json(send, record, 200, _model(pool))


def _model(pool: Pool) -> dict[str, object]:
    now = trio.current_time()
    return {
        "id": pool.model,
        "object": "model",
        "created": 0,
        "owned_by": pool.owned_by,
        "replicas": len(pool.replicas),
        "replicas_up": sum(replica.up(now) for replica in pool.replicas),
    }


def _request(scope: Scope, record: Record, call: ModelCall, pool: Pool) -> Request:
    name = _name_at(pool)
    body = call.body if name == call.model else call.body_for(name)
    query: bytes = scope["query_string"]
    target = scope["path"].encode() + (b"?" + query if query else b"")
    headers = passed_headers(scope["headers"], record.request_id)
    return Request("POST", target, headers, body, stream=call.stream)


def _name_at(pool: Pool) -> str:
    """What the pool's replicas call its model."""
    return pool.model if pool.served_model is None else pool.served_model


def _note(record: Record, trace: Trace) -> None:
    record.model = trace.model
    record.replica = trace.replica
    record.attempts = trace.attempts
    record.failures = trace.failures
    record.queued_s = trace.queued_s
    record.ttft_s = trace.ttft_s
    record.itl_s = trace.itl_s
    record.stream = trace.stream
    record.events = trace.events
    record.usage = trace.usage
    record.put_backs = trace.put_backs
    record.fell_back_from = trace.fell_back_from
    if trace.hedged:
        won: Hedged = "second" if trace.hedge_won else "first"
        record.hedge = "none" if trace.first_at is None else won


_DROPPED: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
        b"x-triolet-replica",
        b"x-triolet-attempts",
        b"x-triolet-model",
        b"x-triolet-fell-back-from",
        b"server-timing",
    }
)


class _Answering:
    """The client's side of one call: `balancer.dispatch.Client` over ASGI."""

    __slots__ = ("_endpoint", "_record", "_send", "_started", "_stream", "_trace", "ended", "sink")

    def __init__(
        self, send: Send, exchange: Exchange | None, record: Record, endpoint: Endpoint
    ) -> None:
        self._send = send
        self._record = record
        self._endpoint = endpoint
        self._started = False
        self._stream = False
        self._trace: Trace | None = None
        self.ended = False
        self.sink: Sink | None = exchange

    async def run(self, dispatch: Dispatch, receive: Receive) -> None:
        """Run it, cancelled when the client leaves."""
        self._trace = dispatch.trace
        exchange = self.sink
        if isinstance(exchange, Exchange):
            exchange.on_gone = lambda: dispatch.cancel("client_gone")
            if exchange.gone:
                dispatch.cancel("client_gone")
            try:
                await dispatch.run()
            finally:
                exchange.on_gone = None  # or the two would keep each other alive
        else:
            await _run_watched(dispatch, receive)

    async def start(self, head: Head, trace: Trace, data: bytes, *, end: bool) -> None:
        self._started, self._stream = True, trace.stream
        self._record.status = head.status
        headers = _answer_headers(head.headers, keep_length=not trace.stream)
        headers += self._own_headers(trace)
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})
        self.ended = end
        await self._send({"type": "http.response.body", "body": data, "more_body": not end})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes) -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def fail(self, error: ApiError) -> None:
        """Tell the client: by an error answer, or in-band if a stream has begun.

        Any other answer that has begun is left unended: its server breaks the connection off, and
        the client sees that it is not whole.
        """
        self._record.outcome = error.kind
        if not self._started:
            own = self._own_headers(self._trace) if self._trace is not None else []
            own = [header for header in own if header[0] != b"x-request-id"]
            if isinstance(error, RelayedError):
                own += _answer_headers(error.replica_headers, keep_length=False)
            await respond_error(self._send, self._record, error, self._endpoint.dialect, own)
        elif self._stream and not self.ended:
            await self.finish(error_event(error, self._endpoint.dialect))

    def _own_headers(self, trace: Trace) -> Headers:
        headers = [
            (b"x-request-id", self._record.request_id.encode()),
            (b"x-triolet-attempts", b"%d" % trace.attempts),
            (b"server-timing", _timing(trace)),
        ]
        if trace.replica is not None:
            headers.append((b"x-triolet-replica", trace.replica.encode()))
        if trace.fell_back_from:
            headers.append((b"x-triolet-model", _ascii(trace.model)))
            headers.append((b"x-triolet-fell-back-from", _ascii(", ".join(trace.fell_back_from))))
        return headers


def _ascii(models: str) -> bytes:
    """For a header: a model's name may be in any script."""
    return quote(models, safe="/:@+, ").encode()


def _timing(trace: Trace) -> bytes:
    """Server-Timing in ms: waiting for a replica, the replica's first event, and all the rest."""
    queued = trace.queued_s * 1000
    if trace.first_at is None or trace.sent_at is None:
        return b"queue;dur=%.2f" % queued
    upstream = (trace.first_at - trace.sent_at) * 1000
    overhead = (trace.first_at - trace.started) * 1000 - queued - upstream
    return b"queue;dur=%.2f, upstream;dur=%.2f, overhead;dur=%.2f" % (queued, upstream, overhead)


def _answer_headers(headers: Headers, *, keep_length: bool) -> Headers:
    """The replica's headers that go on to the client."""
    return [
        header
        for header in headers
        if header[0] not in _DROPPED and (keep_length or header[0] != b"content-length")
    ]


async def _run_watched(dispatch: Dispatch, receive: Receive) -> None:
    """The same under a server that tells a client's leaving only through `receive`."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        dispatch.cancel("client_gone")

    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            await dispatch.run()
        except BalancerError as exc:
            failure = exc
        nursery.cancel_scope.cancel("the call is over")
    if failure is not None:
        raise failure
