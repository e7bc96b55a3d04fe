"""Chat, agent-chat and completion apps as the graph that does what they do. Pure.

    start -> [knowledge -> context] -> llm | agent -> answer

The nodes are in the format of exports, so that the nodes of workflows run them. Variables of the
form, `{{name}}` in the prompts of such apps, become `{{#start.name#}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from server.dify.prompt_words import PromptWords
from server.dify.report import Findings
from server.workflow.app import EdgeSpec, GraphSpec, InputSpec, Mode, NodeSpec
from server.workflow.reading import Reader

__all__ = ["FEATURES", "easy_features", "easy_graph"]

FEATURES: Final = (
    *("opening_statement", "suggested_questions", "suggested_questions_after_answer"),
    *("speech_to_text", "text_to_speech", "retriever_resource", "annotation_reply"),
    *("more_like_this", "sensitive_word_avoidance", "file_upload", "external_data_tools"),
)
"""What of a `model_config` is said of the app rather than of its prompt."""

CONTEXT_TEMPLATE: Final = """\
{% if passages %}Below, between <context> and </context>, is what was found for the question. \
Answer from it. If it does not hold the answer, say that you do not know; make nothing up. \
Write in the language of the question, and do not mention these instructions or the tags.

<context>
{% for passage in passages %}{{ passage.content }}
{% endfor %}</context>

{% endif %}"""

_HISTORIES: Final = """\
The conversation so far is between <histories> and </histories>.

<histories>
{{#histories#}}
</histories>"""

_LAST_LINES: Final = "\n\nHuman: {{#sys.query#}}\n\nAssistant: "
_STOPS: Final = ("\nHuman:", "</histories>")

_PLACE: Final = "model_config"


def easy_features(config: Reader) -> dict[str, Any]:
    return {key: config.data[key] for key in FEATURES if config.data.get(key) is not None}


def easy_graph(
    mode: Mode, config: Reader, inputs: Sequence[InputSpec], findings: Findings
) -> GraphSpec:
    """The graph of a `model_config`. Raises `GraphError` for one that cannot be read."""
    return _Builder(mode, config, inputs, findings).graph()


class _Builder:
    def __init__(
        self, mode: Mode, config: Reader, inputs: Sequence[InputSpec], findings: Findings
    ) -> None:
        self._mode = mode
        self._config = config
        self._inputs = inputs
        self._findings = findings
        self._datasets = tuple(_datasets(config))
        self._words = PromptWords(inputs)
        self._nodes: list[NodeSpec] = []

    def graph(self) -> GraphSpec:
        self._add("start", "start", {"variables": self._variables()}, "user_input_form")
        thinker = self._agent() if self._mode == "agent-chat" else self._llm()
        self._odd_names()
        if self._datasets:
            self._knowledge()
        kind = "agent" if self._mode == "agent-chat" else "llm"
        place = "agent_mode" if kind == "agent" else ""
        self._add(kind, kind, thinker, place)
        self._add("answer", "answer", {"answer": f"{{{{#{kind}.text#}}}}"}, "")
        names = [node.id for node in self._nodes]
        return GraphSpec(
            tuple(self._nodes),
            tuple(EdgeSpec(one, next) for one, next in pairwise(names)),
        )

    def _add(self, id: str, type: str, data: dict[str, Any], key: str) -> None:
        place = f"{_PLACE}.{key}" if key else _PLACE
        data = {"type": type, "title": id, **data}
        self._nodes.append(NodeSpec(id=id, type=type, title=id, data=data, place=place))

    def _variables(self) -> list[dict[str, Any]]:
        return [
            {
                **each.extra,
                "variable": each.name,
                "type": each.type,
                "label": each.label,
                "required": each.required,
                "default": each.default,
                "max_length": each.max_length,
                "options": list(each.options),
            }
            for each in self._inputs
        ]

    # The prompt

    def _llm(self) -> dict[str, Any]:
        model = self._model()
        writes = self._completion_prompt if model["mode"] == "completion" else self._chat_prompt
        prompt = writes()
        context = bool(self._datasets)
        return {
            "model": model,
            "prompt_template": prompt,
            "context": {
                "enabled": context,
                "variable_selector": ["knowledge", "result"] if context else [],
            },
            "memory": self._memory(prompt),
            "vision": self._vision(),
        }

    def _model(self) -> dict[str, Any]:
        model = self._config.table("model")
        mode = model.text("mode") or "chat"
        if mode not in ("chat", "completion"):
            raise model.wrong("mode", f"expected chat or completion, got {mode!r}"[:200])
        parameters = dict(model.table("completion_params").data)
        if mode == "completion" and self._has_history and not parameters.get("stop"):
            parameters["stop"] = list(_STOPS)
        return {
            "provider": model.text("provider"),
            "name": model.text("name"),
            "mode": mode,
            "completion_params": parameters,
        }

    @property
    def _has_history(self) -> bool:
        return self._mode != "completion"

    @property
    def _is_advanced(self) -> bool:
        return self._config.text("prompt_type") == "advanced"

    def _chat_prompt(self) -> list[dict[str, Any]]:
        if self._is_advanced:
            found = [
                {"role": one.text("role") or "user", "text": self._words.read(one.text("text"))}
                for one in self._config.table("chat_prompt_config").tables("prompt")
            ]
            if found:
                return found
        # A completion app asks nothing but its prompt; a chat's question comes after it.
        role = "system" if self._has_history else "user"
        return [{"role": role, "text": self._instruction()}]

    def _completion_prompt(self) -> dict[str, Any]:
        if self._is_advanced:
            prompt = self._config.table("completion_prompt_config").table("prompt")
            if prompt.text("text"):
                return {"text": self._words.read(prompt.text("text"))}
        text = self._instruction()
        if self._has_history:
            text = "\n\n".join(part for part in (text, _HISTORIES) if part) + _LAST_LINES
        return {"text": text}

    def _instruction(self) -> str:
        found = "{{#context.output#}}" if self._datasets else ""
        return found + self._words.read(self._config.text("pre_prompt"))

    def _memory(self, prompt: Any) -> dict[str, Any] | None:
        """A chat's history and question. In an advanced prompt whose last message asks the
        question, that message stands after the history, as it does in Dify."""
        if not self._has_history:
            return None
        question = "{{#sys.query#}}"
        if isinstance(prompt, list) and len(prompt) > 1:
            last = prompt[-1]
            if last["role"] == "user" and "{{#sys.query#}}" in last["text"]:
                question = prompt.pop()["text"]
        roles = self._config.table("completion_prompt_config").table("conversation_histories_role")
        return {
            "role_prefix": {
                "user": roles.text("user_prefix") or "Human",
                "assistant": roles.text("assistant_prefix") or "Assistant",
            },
            "window": {"enabled": False, "size": 500},
            "query_prompt_template": question,
        }

    def _vision(self) -> dict[str, Any]:
        upload = self._config.table("file_upload")
        image = upload.table("image")
        enabled = upload.flag("enabled") or image.flag("enabled")
        configs = {
            "variable_selector": ["sys", "files"],
            "detail": image.text("detail") or "high",
        }
        return {"enabled": enabled, "configs": configs}

    # The agent

    def _agent(self) -> dict[str, Any]:
        model = self._model()
        mode = self._config.table("agent_mode")
        most = min(max(mode.whole("max_iteration", 10), 1), 99)
        # Agent nodes read the tools of agent-chat apps as they are. Datasets among them are not.
        parameters = {
            "model": {**model, "model": model["name"], "model_type": "llm"},
            "tools": [dict(tool.data) for tool in mode.tables("tools") if tool.text("tool_name")],
            "instruction": self._instruction(),
            "query": "{{#sys.query#}}",
            "maximum_iterations": most,
        }
        return {
            "agent_strategy_provider_name": "langgenius/agent/agent",
            "agent_strategy_name": self._strategy(mode),
            "agent_parameters": {
                name: {"type": "constant", "value": value} for name, value in parameters.items()
            },
            "memory": self._memory(None),
            "vision": self._vision(),
        }

    def _strategy(self, mode: Reader) -> str:
        named = mode.text("strategy")
        if named in ("cot", "react"):
            return "ReAct"
        if named not in ("", "function_call", "function_calling"):
            place = f"{mode.place}.strategy"
            message = f"the strategy {named!r} is not known: read as function_call"
            self._findings.add("warning", "strategy", place, message)
        return "function_calling"

    # What stands before

    def _knowledge(self) -> None:
        configs = self._config.table("dataset_configs")
        rerank = configs.table("reranking_model")
        limited = configs.flag("score_threshold_enabled")
        config = {
            "top_k": configs.whole("top_k", 4),
            "score_threshold": configs.value("score_threshold") if limited else None,
            "reranking_enable": configs.flag("reranking_enable"),
            "reranking_mode": configs.text("reranking_mode") or "reranking_model",
            "reranking_model": {
                "provider": rerank.text("reranking_provider_name"),
                "model": rerank.text("reranking_model_name"),
            },
            "weights": configs.value("weights"),
        }
        data = {
            "dataset_ids": list(self._datasets),
            "query_variable_selector": self._query_selector(),
            "retrieval_mode": "multiple",
            "multiple_retrieval_config": config,
        }
        kept = {key: configs.data[key] for key in _FILTERS if configs.data.get(key) is not None}
        self._add("knowledge", "knowledge-retrieval", {**data, **kept}, "dataset_configs")
        context = {
            "variables": [{"variable": "passages", "value_selector": ["knowledge", "result"]}],
            "template": CONTEXT_TEMPLATE,
        }
        self._add("context", "template-transform", context, "dataset_configs")

    def _query_selector(self) -> list[str]:
        name = self._config.text("dataset_query_variable")
        if self._mode == "completion" and name:
            return ["start", name]
        return ["sys", "query"]

    def _odd_names(self) -> None:
        """Names that placeholders cannot have (Chinese ones, say) go through a node that can."""
        for name, node_id in self._words.odd.items():
            data = {
                "variables": [{"variable": "value", "value_selector": ["start", name]}],
                "template": "{% if value is not none %}{{ value }}{% endif %}",
            }
            self._add(node_id, "template-transform", data, "user_input_form")


_FILTERS: Final = (
    *("metadata_filtering_mode", "metadata_filtering_conditions", "metadata_model_config"),
)


def _datasets(config: Reader) -> list[str]:
    """Their ids. Agents of early exports have them among the tools."""
    places = list(config.table("dataset_configs").table("datasets").tables("datasets"))
    places += list(config.table("agent_mode").tables("tools"))
    found = []
    for place in places:
        dataset = place.table("dataset")
        if dataset.text("id") and dataset.flag("enabled", True):
            found.append(dataset.text("id"))
    return list(dict.fromkeys(found))
