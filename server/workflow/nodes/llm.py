"""The llm node: a prompt out of variables, a model's answer as it streams."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from server.workflow.context import Context, read_context
from server.workflow.history import history_text, read_memory
from server.workflow.model_call import (
    failed_call,
    read_model,
    recorded_prompts,
    token_metadata,
    usage_dict,
)
from server.workflow.node import NodeError, NodeRun, Result, Task
from server.workflow.prompts import (
    ChatPrompt,
    CompletionPrompt,
    query_messages,
    query_text,
    read_prompt,
    require,
    with_files,
)
from server.workflow.reading import Reader
from server.workflow.services import (
    ChatCall,
    Completion,
    Message,
    ModelFacts,
    ModelFailed,
    Usage,
)
from server.workflow.streaming import SeparatedText, TaggedText
from server.workflow.structured import Mismatch, instructed, read_output_schema
from server.workflow.values import File, Value
from server.workflow.variables import MISSING, Selector, Variables
from server.workflow.vision import decode_base64, load_files, read_vision

__all__ = ["Llm"]

_NO_PROMPT: Final = (
    "No prompt found in the LLM configuration. "
    "Please ensure a prompt is properly configured before proceeding."
)


class _Asked(msgspec.Struct):
    """What a run asks, and its records so far."""

    call: ChatCall
    facts: ModelFacts
    inputs: dict[str, Value]
    process_data: dict[str, Value]
    context: Context = Context()


class Llm(Task):
    """`reasoning_format`, `structured_output`, memory, context and vision as exports have them."""

    type = "llm"
    work = "model"
    retries = True

    def read(self, data: Reader) -> None:
        self._model = read_model(data)
        self._prompt, self._jinja = read_prompt(data)
        self._memory = read_memory(data)
        context = data.table("context")
        self._context = context.selector("variable_selector") if context.flag("enabled") else ()
        self._vision = read_vision(data)
        self._schema = read_output_schema(data)
        self._separated = data.text("reasoning_format") == "separated"

    def reads(self) -> Iterable[Selector]:
        yield from self._prompt.selectors
        if self._memory is not None:
            yield from self._memory.query.selectors if self._memory.query else [("sys", "query")]
        if self._prompt.uses_jinja:
            yield from self._jinja.selectors
        if self._context:
            yield self._context
        if self._vision.enabled:
            yield self._vision.selector
        yield from self._model.selectors

    def streams(self) -> Iterable[str]:
        return ("text",)

    async def execute(self, run: NodeRun) -> Result:
        asked = await self._asked(run)
        output = SeparatedText(run) if self._separated else TaggedText(run)
        try:
            completion = await self._answer(asked, run, output)
            text, reasoning = output.finish(completion)
            run.close("text")
            usage = completion.usage
            structured: Any = MISSING
            if self._schema is not None:
                structured, more = await self._structured(asked, completion, run)
                usage += more
        except ModelFailed as failure:
            raise failed_call(failure, asked.inputs, asked.process_data) from failure
        outputs: dict[str, Value] = {
            "text": text,
            "reasoning_content": reasoning,
            "usage": usage_dict(usage, completion),
            "finish_reason": completion.finish_reason,
        }
        if structured is not MISSING:
            outputs["structured_output"] = structured
        files = await _kept_images(completion, run)
        if files:
            outputs["files"] = files
        return self._result(asked, completion, usage, outputs)

    # What is asked

    async def _asked(self, run: NodeRun) -> _Asked:
        variables = run.variables
        inputs = self._inputs(variables)
        context = self._read_context(variables, inputs)
        parameters = self._model.parameters(variables)
        facts = self._model.facts(run)
        inputs |= self._model.identity
        record: dict[str, Value] = {"model_mode": self._model.ref.mode}
        jinja_values = self._jinja_values(variables, inputs)
        call = ChatCall(model=self._model.ref, parameters=parameters)
        asked = _Asked(call, facts, inputs, record, context)
        if isinstance(self._prompt, CompletionPrompt):
            call.prompt = await self._completion_prompt(self._prompt, asked, run, jinja_values)
        else:
            call.messages = await self._messages(self._prompt, asked, run, jinja_values)
        self._check_schema(asked)
        self._ask_for_schema(asked)
        record["prompts"] = _recorded(call)
        record |= self._model.identity
        return asked

    def _inputs(self, variables: Variables) -> dict[str, Value]:
        inputs = require(self._prompt.selectors, variables)
        if self._memory is not None and self._memory.query is not None:
            asked = require(self._memory.query.selectors, variables)
            inputs |= {name: value for name, value in asked.items() if value != ""}
        return inputs

    def _jinja_values(self, variables: Variables, inputs: dict[str, Value]) -> dict[str, Value]:
        if not self._prompt.uses_jinja:
            return {}
        values = self._jinja.values(variables)
        inputs |= values
        return values

    def _read_context(self, variables: Variables, inputs: dict[str, Value]) -> Context:
        if not self._context:
            return Context()
        value = variables.get(self._context)
        context = Context() if value is MISSING else read_context(value)
        if context.text:
            inputs["#context#"] = context.text
        return context

    async def _messages(
        self,
        prompt: ChatPrompt,
        asked: _Asked,
        run: NodeRun,
        jinja_values: dict[str, Value],
    ) -> list[Message]:
        variables, services = run.variables, run.run.services
        messages = await prompt.messages(
            variables, asked.context.text, services.jinja, jinja_values
        )
        if self._memory is not None:
            messages += self._memory.choose(run.run.history, asked.facts, asked.call.parameters)
            messages += query_messages(self._memory, variables)
        files = self._vision.files(variables)
        if files:
            asked.inputs["#files#"] = [file.as_dict() for file in files]
        messages = with_files(messages, files)
        loaded, left_out = await load_files(
            messages, services.files, asked.facts, self._vision.detail
        )
        if left_out:
            asked.process_data["files_left_out"] = left_out
        if not loaded:
            raise NodeError(_NO_PROMPT, "NoPromptFoundError", inputs=asked.inputs)
        return loaded

    async def _completion_prompt(
        self,
        prompt: CompletionPrompt,
        asked: _Asked,
        run: NodeRun,
        jinja_values: dict[str, Value],
    ) -> str:
        histories = ""
        if self._memory is not None:
            chosen = self._memory.choose(run.run.history, asked.facts, asked.call.parameters)
            histories = history_text(chosen, self._memory)
        text = await prompt.prompt(
            run.variables,
            asked.context.text,
            run.run.services.jinja,
            jinja_values,
            histories=histories,
            query=query_text(self._memory, run.variables),
        )
        if not text:
            raise NodeError(_NO_PROMPT, "NoPromptFoundError", inputs=asked.inputs)
        return text

    # Its answer

    def _check_schema(self, asked: _Asked) -> None:
        """What is no schema is found before a model works for it."""
        if self._schema is not None:
            try:
                self._schema.compiled()
            except Mismatch as mismatch:
                raise _unfit(mismatch, asked) from None

    def _ask_for_schema(self, asked: _Asked) -> None:
        """By a `response_format` where the engine takes one, in words where it does not."""
        schema, call = self._schema, asked.call
        if schema is None:
            return
        call.parameters = {
            name: value
            for name, value in call.parameters.items()
            if name not in ("response_format", "json_schema", "format")
        }
        if call.prompt is not None:
            call.prompt = f"{call.prompt}\n\n{schema.instruction}"
            call.response_format = None
        elif asked.facts.json_schema:
            call.response_format = schema.response_format
        else:
            call.response_format = None
            call.messages = instructed(list(call.messages), schema.instruction)

    async def _answer(
        self, asked: _Asked, run: NodeRun, output: TaggedText | SeparatedText
    ) -> Completion:
        models = run.run.services.models
        try:
            return await models.chat(asked.call, run, output)
        except ModelFailed:
            if asked.call.response_format is None or self._schema is None:
                raise
            asked.facts = self._model.facts(run)
            if asked.facts.json_schema:
                raise
        # It was refused for its response_format, before a word was said.
        self._ask_for_schema(asked)
        asked.process_data["prompts"] = _recorded(asked.call)
        return await models.chat(asked.call, run, output)

    async def _structured(
        self, asked: _Asked, completion: Completion, run: NodeRun
    ) -> tuple[Value, Usage]:
        """The value, and the tokens of asking once more if the first answer did not fit."""
        schema = self._schema
        assert schema is not None, "there is nothing to fit"
        try:
            return await schema.read(completion.text), Usage()
        except Mismatch as mismatch:
            correction = schema.correction(mismatch)
        call = _corrected(asked.call, completion.text, correction)
        again = await run.run.services.models.chat(call, run)
        asked.process_data["correction"] = _recorded(call)[-1]
        try:
            return await schema.read(again.text), again.usage
        except Mismatch as mismatch:
            raise _unfit(mismatch, asked) from None

    def _result(
        self, asked: _Asked, completion: Completion, usage: Usage, outputs: dict[str, Value]
    ) -> Result:
        record = asked.process_data
        record["usage"] = outputs["usage"]
        record["finish_reason"] = completion.finish_reason
        record["served_by"] = completion.model
        if completion.usage_estimated:
            record["usage_estimated"] = True
        metadata = token_metadata(usage)
        if asked.context.resources:
            metadata["retriever_resources"] = list(asked.context.resources)
        return Result(
            inputs=asked.inputs,
            process_data=record,
            outputs=outputs,
            metadata=metadata,
            usage=usage,
        )


def _unfit(mismatch: Mismatch, asked: _Asked) -> NodeError:
    return NodeError(
        mismatch.told, "LLMNodeError", inputs=asked.inputs, process_data=asked.process_data
    )


def _recorded(call: ChatCall) -> list[Value]:
    if call.prompt is not None:
        return recorded_prompts([{"role": "user", "content": call.prompt}])
    return recorded_prompts(call.messages)


def _corrected(call: ChatCall, answer: str, correction: str) -> ChatCall:
    """The same call, its answer, and what is wrong with it."""
    if call.prompt is not None:
        prompt = f"{call.prompt}\n\n{answer}\n\n{correction}"
        return msgspec.structs.replace(call, prompt=prompt)
    talk = [
        *call.messages,
        {"role": "assistant", "content": answer or " "},
        {"role": "user", "content": correction},
    ]
    return msgspec.structs.replace(call, messages=talk)


async def _kept_images(completion: Completion, run: NodeRun) -> list[File]:
    kept = []
    for number, url in enumerate(completion.images, 1):
        head, _, data = url.partition(",")
        mime_type = head.removeprefix("data:").partition(";")[0] or "image/png"
        try:
            content = await decode_base64(data)
        except ValueError:
            continue
        name = f"image_{number}.{mime_type.rpartition('/')[2]}"
        kept.append(run.run.services.files.keep(content, name=name, mime_type=mime_type))
    return kept
