"""The replica as an ASGI 3 application: which path goes where, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import msgspec
import trio

from bench.replica import metrics, replies
from bench.replica.asgi import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_whole,
    until_disconnect,
)
from bench.replica.core import Core, Job, running, wait_for_all
from bench.replica.errors import RequestError, bad_value, model_not_found
from bench.replica.faults import FaultChange
from bench.replica.generate import Plan, plan_chat, plan_completion, serve
from bench.replica.requests import (
    MAX_EMBEDDING_INPUTS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Prompt,
    TokenizeRequest,
    decode,
    prompt_blocks,
    prompts,
)
from bench.replica.settings import ReplicaSettings
from bench.replica.simulated import SimulatedCore
from bench.replica.simulation import Simulation
from bench.replica.steady import SteadyCore
from bench.replica.tokenize import chat_ids, prompt_ids
from bench.replica.vectors import as_base64, vector

VERSION = "0+triolet.demo.simulation"
"""A version by PEP 440, since programs parse what an engine answers here."""

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


_FAULTS: Final = "/simulation/faults"


def create_app(settings: ReplicaSettings | None = None) -> Replica:
    """A replica as an ASGI application, to be served on Trio."""
    return Replica(settings or ReplicaSettings())


class Replica:
    """The application. Its engine is shared by all requests and lives as long as it does."""

    def __init__(self, settings: ReplicaSettings) -> None:
        self.settings = settings
        self.core, self._simulation = _core(settings)
        self._metrics = metrics.EngineMetrics(
            self.core, settings.model, old_names=settings.old_metric_names
        )
        self._created = int(time.time())
        self._crashed = trio.Event()
        self._routes = self._find_routes()

    def _find_routes(self) -> dict[str, dict[str, Handler]]:
        def shown(handler: Handler) -> dict[str, Handler]:
            return {"GET": handler, "HEAD": handler}

        routes: dict[str, dict[str, Handler]] = {
            "/health": shown(self._health),
            "/version": shown(self._version),
            "/metrics": shown(self._show_metrics),
            "/v1/models": shown(self._models),
            "/tokenize": {"POST": self._tokenize},
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/chat/completions/render": {"POST": self._render},
            "/v1/completions": {"POST": self._complete},
            "/v1/embeddings": {"POST": self._embed},
        }
        if self._simulation is not None:
            routes["/reset_prefix_cache"] = {"POST": self._reset_prefix_cache}
            routes[_FAULTS] = {**shown(self._show_faults), "POST": self._set_faults}
        return routes

    async def until_crash(self) -> float:
        """Wait for the next crash: the seconds until the replica is up again.

        A server may close its sockets meanwhile; one that does not answers 503.
        """
        await self._crashed.wait()
        assert self._simulation is not None
        return self._simulation.core.down_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speaks ASGI: `http` and `lifespan`; a websocket is closed."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._handler(scope)(scope, receive, send)
        except ClientGoneError:
            return  # Nobody is left to answer, and nothing has been started.
        except RequestError as error:
            await send_whole(
                send,
                error.body(),
                status=error.status,
                headers=error.headers,
                head_only=scope["method"] == "HEAD",
            )

    def _handler(self, scope: Scope) -> Handler:
        route = self._routes.get(scope["path"])
        if route is None:
            known = ", ".join(self._routes)
            message = f"There is nothing at {scope['path']}; this replica serves {known}."
            raise RequestError(HTTPStatus.NOT_FOUND, message)
        handler = route.get(scope["method"])
        if handler is None:
            allowed = ", ".join(route)
            message = f"{scope['path']} does not take {scope['method']}; use {allowed}."
            headers = ((b"allow", allowed.encode()),)
            raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, message, headers=headers)
        if self._simulation is not None and scope["path"] != _FAULTS:
            self._simulation.refuse_while_down()
        return handler

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_whole(send, b"")

    async def _version(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._show(scope, send, {"version": VERSION})

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        card = {
            "id": self.settings.model,
            "object": "model",
            "created": self._created,
            "owned_by": replies.FINGERPRINT,
            "root": self.settings.model,
            "parent": None,
            "max_model_len": self.settings.context_tokens,
            "permission": [],
            "simulation": True,
            "description": f"Triolet's demo replica {self.settings.name}: a simulation, not a "
            "language model.",
        }
        await self._show(scope, send, {"object": "list", "data": [card]})

    async def _show_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_whole(
            send,
            self._metrics.render(),
            content_type=metrics.CONTENT_TYPE.encode(),
            head_only=scope["method"] == "HEAD",
        )

    async def _show(self, scope: Scope, send: Send, document: object) -> None:
        body = msgspec.json.encode(document)
        await send_whole(send, body, head_only=scope["method"] == "HEAD")

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(await self._json_body(scope, receive), ChatRequest)
        self._check_model(request.model)
        if not request.messages:
            raise bad_value("messages is an empty list; give at least one message.", "messages")
        plan = await plan_chat(request, self.settings, self._identity(scope, "chatcmpl"))
        await self._serve(plan, receive, send)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(await self._json_body(scope, receive), CompletionRequest)
        self._check_model(request.model)
        plan = await plan_completion(request, self.settings, self._identity(scope, "cmpl"))
        await self._serve(plan, receive, send)

    async def _render(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The conversation as an engine would see it: what vLLM's router reads prefixes from."""
        request = decode(await self._json_body(scope, receive), ChatRequest)
        self._check_model(request.model)
        document = {
            "request_id": self._identity(scope, "chatcmpl").id,
            "token_ids": await chat_ids(request.messages, self.settings.context_tokens),
            "sampling_params": {},
            "model": self.settings.model,
        }
        await self._show(scope, send, document)

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(await self._json_body(scope, receive), TokenizeRequest)
        self._check_model(request.model)
        most = self.settings.context_tokens
        if request.messages is not None:
            ids = await chat_ids(request.messages, most)
        elif request.prompt is not None:
            ids = await prompt_ids(request.prompt, most)
        else:
            raise bad_value("give a prompt or messages to tokenize.", "prompt")
        document = {"count": len(ids), "max_model_len": most, "tokens": ids, "token_strs": None}
        await self._show(scope, send, document)

    async def _serve(self, plan: Plan, receive: Receive, send: Send) -> None:
        self._maybe_fail()
        await until_disconnect(receive, lambda: serve(plan, self.core, send))

    def _maybe_fail(self) -> None:
        if self._simulation is not None:
            self._simulation.refuse()

    async def _embed(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(await self._json_body(scope, receive), EmbeddingRequest)
        self._check_model(request.model)
        largest = self.settings.embedding_dimensions
        dimensions = largest if request.dimensions is None else request.dimensions
        if not 1 <= dimensions <= largest:
            message = f"dimensions = {dimensions}: this model gives 1 to {largest}."
            raise bad_value(message, "dimensions")
        inputs = prompts(request.input, MAX_EMBEDDING_INPUTS, "input")
        jobs = [await self._prefill_job(text) for text in inputs]
        self._maybe_fail()

        async def work() -> None:
            vectors = await _vectors(inputs, dimensions, request.encoding_format)
            with running(self.core, jobs) as runs:
                await wait_for_all(runs, jobs)
            usage = replies.Usage(sum(job.prompt_tokens for job in jobs), 0)
            identity = self._identity(scope, "embd")
            await send_whole(send, replies.embedding_document(identity, vectors, usage))

        await until_disconnect(receive, work)

    async def _prefill_job(self, text: Prompt) -> Job:
        blocks = await prompt_blocks(text, 1, self.settings.context_tokens)
        return Job(
            prompt_tokens=max(1, blocks.tokens), tokens=1, prompt=blocks.whole(), generates=False
        )

    async def _reset_prefix_cache(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._simulation is not None
        self._simulation.core.reset_cache()
        await send_whole(send, b"")

    async def _show_faults(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._simulation is not None
        await self._show(scope, send, self._simulation.state())

    async def _set_faults(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._simulation is not None
        change = decode(await self._json_body(scope, receive), FaultChange)
        self._simulation.change(change)
        await self._show(scope, send, self._simulation.state())
        if change.crash_s is not None:
            self.crash(change.crash_s)

    def crash(self, down_s: float) -> None:
        """Lose everything and be down for so long. Raises ValueError without a simulated engine."""
        if self._simulation is None:
            raise ValueError("only a replica with a profile can crash")
        self._simulation.core.crash(down_s)
        self._crashed.set()
        self._crashed = trio.Event()

    async def _json_body(self, scope: Scope, receive: Receive) -> bytes:
        given = header(scope, b"content-type")
        if given.partition(";")[0].strip().lower() != "application/json":
            message = f"The content type is {given or 'missing'!r}; only application/json is read."
            raise RequestError(HTTPStatus.BAD_REQUEST, message, param="content-type")
        return await read_body(receive, self.settings.max_body_bytes)

    def _check_model(self, model: str | None) -> None:
        if model and model != self.settings.model:
            raise model_not_found(model)

    def _identity(self, scope: Scope, prefix: str) -> replies.Identity:
        # The caller's own id is used where it sent one, so its logs and the answer agree.
        given = header(scope, b"x-request-id")[:128] or uuid4().hex
        return replies.Identity(f"{prefix}-{given}", int(time.time()), self.settings.model)


def _core(settings: ReplicaSettings) -> tuple[Core, Simulation | None]:
    if settings.profile is None:
        core = SteadyCore(settings.ttft_s, settings.tokens_per_s, settings.kv_cache_tokens)
        return core, None
    simulated = SimulatedCore(settings.profile, settings.faults, settings.seed)
    return simulated, Simulation(simulated, settings.seed)


async def _vectors(
    inputs: list[Prompt], dimensions: int, encoding_format: str
) -> list[list[float] | str]:
    made: list[list[float] | str] = []
    for text in inputs:
        numbers = vector(text, dimensions)
        made.append(as_base64(numbers) if encoding_format == "base64" else numbers)
        await trio.lowlevel.checkpoint()
    return made
