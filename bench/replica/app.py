"""The replica as an ASGI 3 application: which path goes where, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple
from uuid import uuid4

import msgspec
import trio

from bench.replica import metrics, replies
from bench.replica.asgi import (
    Application,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_whole,
    until_disconnect,
)
from bench.replica.engine import Engine, Job
from bench.replica.errors import RequestError, bad_value, model_not_found
from bench.replica.generate import Plan, plan_chat, plan_completion, serve
from bench.replica.pace import Pace, SteadyPace
from bench.replica.requests import (
    MAX_EMBEDDING_INPUTS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Prompt,
    count_prompt,
    decode,
    prompts,
)
from bench.replica.settings import ReplicaSettings
from bench.replica.vectors import as_base64, vector

VERSION = "0+triolet.demo.simulation"
"""A version by PEP 440, since programs parse what an engine answers here."""

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Route(NamedTuple):
    methods: tuple[str, ...]
    handler: Handler


def create_app(settings: ReplicaSettings | None = None, pace: Pace | None = None) -> Application:
    """A demo replica as an ASGI application, to be served on Trio.

    `pace` replaces the steady pace that `settings` describe.
    """
    settings = settings or ReplicaSettings()
    pace = pace or SteadyPace(settings.ttft_s, settings.tokens_per_s)
    return Replica(settings, Engine(pace, settings.kv_cache_tokens))


class Replica:
    """The application. Its engine is shared by all requests and lives as long as it does."""

    def __init__(self, settings: ReplicaSettings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self._metrics = metrics.EngineMetrics(engine, settings.model)
        self._created = int(time.time())
        read, write = ("GET", "HEAD"), ("POST",)
        self._routes = {
            "/health": Route(read, self._health),
            "/version": Route(read, self._version),
            "/metrics": Route(read, self._show_metrics),
            "/v1/models": Route(read, self._models),
            "/v1/chat/completions": Route(write, self._chat),
            "/v1/completions": Route(write, self._complete),
            "/v1/embeddings": Route(write, self._embed),
        }

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
        if scope["method"] not in route.methods:
            allowed = ", ".join(route.methods)
            message = f"{scope['path']} does not take {scope['method']}; use {allowed}."
            headers = ((b"allow", allowed.encode()),)
            raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, message, headers=headers)
        return route.handler

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
            "max_model_len": self.settings.max_model_len,
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
        plan = plan_chat(request, self.settings, self._identity(scope, "chatcmpl"))
        await self._serve(plan, receive, send)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(await self._json_body(scope, receive), CompletionRequest)
        self._check_model(request.model)
        plan = plan_completion(request, self.settings, self._identity(scope, "cmpl"))
        await self._serve(plan, receive, send)

    async def _serve(self, plan: Plan, receive: Receive, send: Send) -> None:
        await until_disconnect(receive, lambda: serve(plan, self.engine, send))

    async def _embed(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(await self._json_body(scope, receive), EmbeddingRequest)
        self._check_model(request.model)
        largest = self.settings.embedding_dimensions
        dimensions = largest if request.dimensions is None else request.dimensions
        if not 1 <= dimensions <= largest:
            message = f"dimensions = {dimensions}: this model gives 1 to {largest}."
            raise bad_value(message, "dimensions")
        inputs = prompts(request.input, MAX_EMBEDDING_INPUTS, "input")
        prompt_tokens = 0
        for text in inputs:
            prompt_tokens += count_prompt([text], 0, 0, self.settings.max_model_len)
            await trio.lowlevel.checkpoint()

        async def work() -> None:
            with self.engine.sequence(_prefill_job(prompt_tokens)) as running:
                vectors = await _vectors(inputs, dimensions, request.encoding_format)
                await running.prefill()
            identity = self._identity(scope, "embd")
            await send_whole(send, replies.embedding_document(identity, vectors, prompt_tokens))

        await until_disconnect(receive, work)

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


def _prefill_job(prompt_tokens: int) -> Job:
    return Job(prompt_tokens=prompt_tokens, pieces=iter(()), limit=1)


async def _vectors(
    inputs: list[Prompt], dimensions: int, encoding_format: str
) -> list[list[float] | str]:
    made: list[list[float] | str] = []
    for text in inputs:
        numbers = vector(text, dimensions)
        made.append(as_base64(numbers) if encoding_format == "base64" else numbers)
        await trio.lowlevel.checkpoint()
    return made
