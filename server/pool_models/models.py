"""`services.Models` over the pools of a catalog."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

import msgspec
import trio

from balancer.admission import Standing
from balancer.catalog import Catalog
from balancer.dispatch import Dispatch, Request, Trace
from balancer.errors import BalancerError
from balancer.pool import Pool
from balancer.prompt import Prompt
from server.pool_models.body import Body, make_body
from server.pool_models.failures import model_failed
from server.pool_models.learned import Refusals
from server.pool_models.reading import Reading
from server.workflow.app import ModelRef
from server.workflow.model_names import Choice, ModelNames
from server.workflow.node import NodeRun
from server.workflow.services import (
    ChatCall,
    Completion,
    ModelFacts,
    ModelFailed,
    Receiver,
    Usage,
)
from server.workflow.tokens import TokenRatios, estimate_messages, estimate_tokens

__all__ = ["PoolModels"]

log = logging.getLogger("triolet.models")

_SESSION: Final = b"x-session-id"
_TOLD_MOST: Final = 1_000
"""Things that are said once in the log; then all may be said again."""


class PoolModels:
    """The models served here.

    `facts` says by model name what the configuration knows of one; how much it reads is what its
    replicas list, where that is not configured. `on_call` is told of each call when it is over,
    whatever became of it.
    """

    def __init__(
        self,
        catalog: Catalog,
        names: ModelNames,
        *,
        facts: Mapping[str, ModelFacts] | None = None,
        on_call: Callable[[Trace, NodeRun], None] | None = None,
    ) -> None:
        self._catalog = catalog
        self._names = names
        self._facts = dict(facts or {})
        self._on_call = on_call
        self._ratios = TokenRatios()
        self._refusals = Refusals()
        self._told: set[tuple[str, ...]] = set()
        self._numbers = itertools.count(1)
        self.dropped: Counter[str] = Counter()
        """How often each parameter was given that engines are not told of; a thousand of them."""
        self.in_flight = 0

    async def chat(
        self, call: ChatCall, run: NodeRun, receiver: Receiver | None = None
    ) -> Completion:
        """As `services.Models` says. The run's conversation, or else the run, is the session by
        which the balancer finds the replica that still knows the prompt's beginning."""
        started = trio.current_time()
        pool = self._pool(call.model, run)
        body = make_body(call)
        self._note_dropped(body, pool)
        reading = Reading(receiver)
        dispatch = self._dispatch(pool, body, call, run, reading, started)
        self.in_flight += 1
        try:
            await dispatch.run()
        except BalancerError as error:
            self._refusals.learn(dispatch.pool.model, call, error, trio.current_time())
            raise model_failed(error, dispatch.pool.model) from error
        finally:
            self.in_flight -= 1
            if self._on_call is not None:
                self._on_call(dispatch.trace, run)
        return self._completion(call, reading, dispatch.trace)

    def facts(self, model: ModelRef, run: NodeRun) -> ModelFacts:
        """Of the model that stands for this one; of one that is not here the careful guess."""
        choice = self._choose(model, run)
        if choice is None:
            return ModelFacts()
        name = choice.model
        known = self._facts.get(name, ModelFacts())
        if known.context_tokens is None:
            known = msgspec.structs.replace(known, context_tokens=self._listed_tokens(name))
        features = self._refusals.apply(known, name, trio.current_time())
        ratio = self._ratios.of(name)
        return msgspec.structs.replace(known, **features, tokens_per_estimate=ratio)

    def _listed_tokens(self, model: str) -> int | None:
        """The least of what the pool's replicas say of themselves; None if none does."""
        pool = self._catalog.find(model)
        if pool is None:
            return None
        name = _name_at(pool)
        listed = (replica.context_tokens.get(name) for replica in pool.replicas)
        return min((tokens for tokens in listed if tokens), default=None)

    # Which pool

    def _choose(self, ref: ModelRef, run: NodeRun) -> Choice | None:
        return self._names.choose(ref, run.run.app.bindings, self._catalog.pools)

    def _pool(self, ref: ModelRef, run: NodeRun) -> Pool:
        choice = self._choose(ref, run)
        if choice is None:
            raise ModelFailed(
                f"model {ref.key!r} is not served here; name the one that stands for it under "
                f'[models]: "{ref.key}" = "{self._example()}" ({self._served()})',
                "ModelNotExistError",
            )
        pool = self._catalog.find(choice.model)
        if pool is None:
            where = "the app's bindings" if choice.how == "binding" else "[models]"
            raise ModelFailed(
                f"model {choice.model!r}, which {where} name for {ref.key!r} by the key "
                f"{choice.key!r}, is not served here ({self._served()})",
                "ModelNotExistError",
            )
        if choice.how == "only model" and self._is_new("only", ref.key, choice.model):
            log.warning(
                "%s goes to %r, the only model here; to choose, name it under [models]",
                ref.key,
                choice.model,
            )
        return pool

    def _example(self) -> str:
        return min(self._catalog.pools, default="MODEL")

    def _served(self) -> str:
        served = sorted(self._catalog.pools)
        if not served:
            return "no model is served here"
        more = f" and {len(served) - 20} more" if len(served) > 20 else ""
        return f"served are: {', '.join(served[:20])}{more}"

    def _chain(self, pool: Pool) -> list[Pool]:
        """The pool and those that it falls back to, none twice."""
        chain = [pool]
        for model in pool.settings.fallback:
            other = self._catalog.find(model)
            if other is not None and other not in chain:
                chain.append(other)
        return chain

    # The call

    def _dispatch(
        self,
        pool: Pool,
        body: Body,
        call: ChatCall,
        run: NodeRun,
        reading: Reading,
        now: float,
    ) -> Dispatch:
        session = (run.run.conversation_id or run.run.id).encode()
        request_id = f"{quote(run.run.id, safe='')[:64]}-{next(self._numbers):x}"
        headers = [
            (b"content-type", b"application/json"),
            (b"x-request-id", request_id.encode()),
        ]

        async def make_request(pool: Pool) -> Request:
            content = body.for_model(_name_at(pool))
            return Request("POST", body.target, headers, content, stream=call.stream)

        return Dispatch(
            self._chain(pool),
            make_request,
            reading,
            ask=Prompt(body.for_model(_name_at(pool)), [(_SESSION, session)], streams=call.stream),
            standing=Standing(run.run.tier, now, run.run.deadline),
            now=now,
        )

    def _note_dropped(self, body: Body, pool: Pool) -> None:
        for name in body.dropped:
            if name[:64] in self.dropped or len(self.dropped) < _TOLD_MOST:
                self.dropped[name[:64]] += 1
            if self._is_new("dropped", pool.model, name[:64]):
                log.warning(
                    "the parameter %r is not one that engines take, or not with that value; model "
                    "%r is not told of it",
                    name[:64],
                    pool.model,
                )

    def _is_new(self, *what: str) -> bool:
        if len(self._told) >= _TOLD_MOST:
            self._told.clear()
        is_new = what not in self._told
        self._told.add(what)
        return is_new

    # Its answer

    def _completion(self, call: ChatCall, reading: Reading, trace: Trace) -> Completion:
        answer = reading.answer
        text, reasoning = answer.text, answer.reasoning
        counted = trace.usage
        prompt = counted.prompt_tokens
        output = counted.completion_tokens
        estimate = _estimated(call) if prompt is None or _is_plain(call) else 0
        ratio = self._ratios.of(trace.model)
        if prompt is not None and estimate:
            self._ratios.learn(trace.model, estimate, prompt)
        usage = Usage(
            round(estimate * ratio) if prompt is None else prompt,
            round(estimate_tokens(text + reasoning) * ratio) if output is None else output,
            counted.cached_tokens or 0,
        )
        estimated = prompt is None or output is None
        if estimated and self._is_new("usage", trace.model):
            log.warning("model %r says nothing of its usage: it is estimated", trace.model)
        return Completion(
            text=text,
            reasoning=reasoning,
            tool_calls=answer.tool_calls,
            finish_reason=answer.finish_reason,
            usage=usage,
            usage_estimated=estimated,
            images=answer.images,
            model=trace.model,
            ttft_s=trace.ttft_s if call.stream else None,
            elapsed_s=trio.current_time() - trace.started,
        )


def _name_at(pool: Pool) -> str:
    """What the pool's replicas call its model."""
    return pool.model if pool.served_model is None else pool.served_model


def _estimated(call: ChatCall) -> int:
    if call.prompt is not None:
        return estimate_tokens(call.prompt)
    return estimate_messages(call.messages)


def _is_plain(call: ChatCall) -> bool:
    """Whether it is text alone: only then does its count tell how the model splits text."""
    return not call.tools and all(
        isinstance(message.get("content"), str) for message in call.messages
    )
