"""agent: a model that works with tools until it has an answer.

It holds no slot of its own (`work` is "none"): an agent is a container of model calls and tools.
With a "model" slot it would keep one for as long as its slowest tool, and a tool that is a workflow
would wait for a slot that its own agent holds. Its model calls stand in the pool's admission, its
tools side by side are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

import msgspec

from server.workflow.agents.function_calling import call_functions
from server.workflow.agents.parameters import Parameter, model_of, parameters_of
from server.workflow.agents.react import think_and_act
from server.workflow.agents.servers import SERVER_KEYS, servers_of
from server.workflow.agents.steps import Steps
from server.workflow.agents.toolset import ToolEntry, entries_of, tools_for
from server.workflow.agents.work import Findings, Voice, Work
from server.workflow.app import ModelRef
from server.workflow.context import read_context
from server.workflow.history import read_memory
from server.workflow.model_call import NodeModel, usage_dict
from server.workflow.node import NodeError, NodeRun, Result, Task
from server.workflow.node import Work as Kind
from server.workflow.reading import Reader
from server.workflow.services import Message, ModelFailed
from server.workflow.variables import Selector
from server.workflow.vision import files_in, load_files, read_vision

__all__ = ["Agent"]

MOST_ROUNDS: Final = 99
DEFAULT_ROUNDS: Final = 10


class Agent(Task):
    type = "agent"
    work: ClassVar[Kind] = "none"

    def read(self, data: Reader) -> None:
        self._told = parameters_of(data)
        place = f"{data.place}.agent_parameters"
        self._strategy = data.text("agent_strategy_name", "function_calling")
        self._unsupported = _unsupported(data, self._strategy)
        self._memory = read_memory(data)
        self._vision = read_vision(data)
        self._entries: tuple[ToolEntry, ...] = ()
        self._model = NodeModel(ModelRef("", ""), {})
        if self._unsupported:
            return
        constant = data.table("agent_parameters")
        self._entries = entries_of(_constant(constant, "tools") or [], f"{place}.tools")
        model = _constant(constant, "model")
        ref = model_of(model, f"{place}.model")
        parameters = Reader(model, f"{place}.model").table("completion_params")
        self._model = NodeModel(ref, parameters.data)

    def reads(self) -> Iterable[Selector]:
        yield from self._model.selectors
        if self._vision.enabled:
            yield self._vision.selector
        for parameter in self._told.values():
            yield from parameter.selectors()
        for entry in self._entries:
            yield from entry.selectors()

    def streams(self) -> Iterable[str]:
        return ("text",)

    @property
    def model(self) -> ModelRef:
        """For the import's report."""
        return self._model.ref

    @property
    def entries(self) -> Sequence[ToolEntry]:
        """Its tools, for the import's report."""
        return self._entries

    async def execute(self, run: NodeRun) -> Result:
        if self._unsupported:
            raise NodeError(self._unsupported, "AgentStrategyNotSupported")
        inputs = self._inputs(run)
        work = await self._work(run, inputs)
        findings = await self._answered(work)
        run.close("text")
        return self._result(work, findings, inputs)

    def _inputs(self, run: NodeRun) -> dict[str, Any]:
        """What it was told, without the model and the tools."""
        return {
            name: parameter.value(run.variables)
            for name, parameter in self._told.items()
            if name not in ("model", "tools")
        }

    async def _work(self, run: NodeRun, inputs: dict[str, Any]) -> Work:
        tools = await tools_for(self._entries, servers_of(inputs), run)
        parameters = self._model.parameters(run.variables)
        return Work(
            run=run,
            model=self._model.ref,
            parameters=parameters,
            instruction=self._text(run, "instruction"),
            context=read_context(inputs.get("context")).text,
            history=self._history(run, parameters),
            question=await self._question(run, inputs),
            tools=tools,
            rounds=_rounds(inputs.get("maximum_iterations")),
            steps=Steps(run),
            voice=Voice(run),
        )

    def _history(self, run: NodeRun, parameters: dict[str, Any]) -> list[Message]:
        """What fits into half of what the model reads: tools and their results need the rest."""
        if self._memory is None:
            return []
        facts = self._model.facts(run)
        if facts.context_tokens:
            facts = msgspec.structs.replace(facts, context_tokens=facts.context_tokens // 2)
        return self._memory.choose(run.run.history, facts, parameters)

    async def _question(self, run: NodeRun, inputs: dict[str, Any]) -> Message:
        query = self._text(run, "query")
        files = [*self._vision.files(run.variables), *files_in(inputs.get("files"))]
        if not files:
            return {"role": "user", "content": query}
        message: Message = {"role": "user", "content": [*files, {"type": "text", "text": query}]}
        facts, services = self._model.facts(run), run.run.services
        loaded, _ = await load_files([message], services.files, facts, self._vision.detail)
        return loaded[0] if loaded else {"role": "user", "content": query}

    def _text(self, run: NodeRun, name: str) -> str:
        parameter = self._told.get(name, Parameter(""))
        return parameter.text(run.variables)

    async def _answered(self, work: Work) -> Findings:
        facts = self._model.facts(work.run)
        in_text = _in_text(self._strategy) or work.model.mode == "completion"
        if in_text or (len(work.tools) and not facts.tools):
            return await think_and_act(work)
        try:
            return await call_functions(work)
        except ModelFailed:
            # The pool has learned from the refusal that this engine takes no tools.
            if not facts.tools or self._model.facts(work.run).tools or work.voice.text:
                raise
        return await think_and_act(work)

    def _result(self, work: Work, findings: Findings, inputs: dict[str, Any]) -> Result:
        log = work.steps.latest(self.id)
        return Result(
            inputs={name: value for name, value in inputs.items() if name not in SERVER_KEYS},
            outputs={
                "text": work.voice.text,
                "files": findings.files,
                "json": [*log, {"data": []}],
                "usage": usage_dict(findings.usage) | {"latency": round(findings.latency_s, 3)},
            },
            metadata={"agent_log": log} | _resources(inputs),
            usage=findings.usage,
        )


def _resources(inputs: dict[str, Any]) -> dict[str, Any]:
    """The passages of knowledge in the context, as clients show them."""
    found = read_context(inputs.get("context")).resources
    return {"retriever_resources": list(found)} if found else {}


def _constant(table: Reader, name: str) -> Any:
    found = table.data.get(name)
    return found["value"] if isinstance(found, dict) and "value" in found else found


def _in_text(strategy: str) -> bool:
    """Whether a strategy of this name thinks and acts in plain text."""
    plain = strategy.lower()
    return "react" in plain or "cot" in plain


def _unsupported(data: Reader, strategy: str) -> str:
    """Why this agent cannot run; empty if it can."""
    if data.value("agent_node_kind") or data.value("agent_binding"):
        return "agents of Dify's own runtime (version 2 of the node) do not run here"
    plain = strategy.lower().replace("-", "_")
    if _in_text(plain) or "function" in plain or plain in ("router", "auto", ""):
        return ""
    provider = data.text("agent_strategy_provider_name")
    return (
        f"the agent strategy {strategy!r} of {provider or 'an unknown plugin'} is not supported; "
        "those of function calling and ReAct are"
    )


def _rounds(given: Any) -> int:
    try:
        rounds = int(given)
    except (TypeError, ValueError, OverflowError):
        rounds = DEFAULT_ROUNDS
    return min(max(rounds, 1), MOST_ROUNDS)
