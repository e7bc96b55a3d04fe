"""knowledge-retrieval: passages of knowledge bases that bear on a question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from server.workflow.agents.parameters import model_of
from server.workflow.app import ModelRef
from server.workflow.json_text import object_in
from server.workflow.node import NodeError, NodeRun, Result, Task, Work
from server.workflow.reading import Reader
from server.workflow.services import ChatCall, Passage, Query, Usage
from server.workflow.template import Template
from server.workflow.values import Value
from server.workflow.variables import Selector

__all__ = ["KnowledgeRetrieval"]

DEFAULT_TOP_K: Final = 4
_MOST_TOP_K: Final = 100
_OPERATORS: Final = (
    *("contains", "not contains", "start with", "end with", "is", "is not", "empty", "not empty"),
    *("in", "not in", "=", "≠", ">", "<", "≥", "≤", "before", "after"),
)

_ASK_FILTER: Final = """\
You narrow a search. Each document that is searched carries these fields, here with an example of \
a value:
{fields}

Read the question and decide which documents it can only be about. Reply with JSON alone, without \
any other word:
{{"conditions": [{{"name": "<field>", "comparison_operator": "<operator>", "value": "<value>"}}]}}
Operators are: {operators}.
Name a field only if the question clearly calls for it; if it calls for none, reply \
{{"conditions": []}}.\
"""


class KnowledgeRetrieval(Task):
    type = "knowledge-retrieval"
    work: ClassVar[Work] = "none"
    """Its parts take slots: a hung model must not hold up those who only look something up."""

    def read(self, data: Reader) -> None:
        self._query = data.selector("query_variable_selector")
        self._datasets = tuple(map(str, data.items("dataset_ids")))
        several = data.table("multiple_retrieval_config")
        single = data.text("retrieval_mode") == "single"
        top_k = DEFAULT_TOP_K if single else several.whole("top_k", DEFAULT_TOP_K)
        self._top_k = min(max(top_k, 1), _MOST_TOP_K)
        threshold = None if single else several.value("score_threshold")
        self._threshold = None if threshold is None else several.number("score_threshold", 0.0)
        self._weights = dict(several.table("weights").data)
        self._filtering = data.text("metadata_filtering_mode", "disabled")
        self._filter = _Filter(data.table("metadata_filtering_conditions"))
        self._model = ModelRef("", "")
        self._parameters: dict[str, Any] = {}
        if self._filtering == "automatic":
            model = data.table("metadata_model_config")
            self._model = model_of(model.data, model.place)
            self._parameters = dict(model.table("completion_params").data)

    def reads(self) -> Iterable[Selector]:
        if self._query:
            yield self._query
        if self._filtering == "manual":
            yield from self._filter.selectors()

    @property
    def dataset_ids(self) -> tuple[str, ...]:
        """For the import's report."""
        return self._datasets

    async def execute(self, run: NodeRun) -> Result:
        text = run.variables.get(self._query) if self._query else None
        if not isinstance(text, str):
            raise NodeError("Query variable is not string type.", "KnowledgeRetrievalNodeError")
        inputs: dict[str, Value] = {"query": text}
        if not text.strip():
            raise NodeError("Query is required.", "KnowledgeRetrievalNodeError", inputs=inputs)
        if not self._datasets:
            return Result(outputs={"result": []}, inputs=inputs)
        chosen, usage = await self._chosen(text, run)
        query = Query(
            text=text,
            dataset_ids=self._datasets,
            top_k=self._top_k,
            score_threshold=self._threshold,
            filter=chosen,
            weights=self._weights,
        )
        async with run.in_slot("io") as part:
            passages = await run.run.services.knowledge.retrieve(query, part)
        return Result(
            outputs={"result": [_item(number, one) for number, one in enumerate(passages, 1)]},
            inputs=inputs,
            process_data={} if chosen is None else {"filter": chosen},
            usage=usage,
        )

    async def _chosen(self, text: str, run: NodeRun) -> tuple[dict[str, Any] | None, Usage | None]:
        """The conditions on the documents' metadata in this run."""
        if self._filtering == "manual":
            return self._filter.rendered(run), None
        if self._filtering != "automatic":
            return None, None
        async with run.in_slot("io") as part:
            fields = await run.run.services.knowledge.fields(self._datasets, part)
        if not fields:
            return None, None
        told = _ASK_FILTER.format(
            fields=json.dumps(fields, ensure_ascii=False), operators=", ".join(_OPERATORS)
        )
        messages = [{"role": "system", "content": told}, {"role": "user", "content": text}]
        call = ChatCall(model=self._model, messages=messages, parameters=self._parameters)
        async with run.in_slot("model") as part:
            completion = await run.run.services.models.chat(call, part)
        return _conditions(await object_in(completion.text), fields), completion.usage


class _Filter:
    """Conditions that the author wrote."""

    def __init__(self, table: Reader) -> None:
        self._logic = table.text("logical_operator", "and")
        self._conditions = [
            (
                one.text("name"),
                one.text("comparison_operator"),
                Template(found) if isinstance(found := one.value("value"), str) else found,
            )
            for one in table.tables("conditions")
        ]

    def selectors(self) -> Iterable[Selector]:
        for _, _, value in self._conditions:
            if isinstance(value, Template):
                yield from value.selectors

    def rendered(self, run: NodeRun) -> dict[str, Any] | None:
        if not self._conditions:
            return None
        conditions = [
            {
                "name": name,
                "comparison_operator": sign,
                "value": value.text(run.variables) if isinstance(value, Template) else value,
            }
            for name, sign, value in self._conditions
        ]
        return {"logical_operator": self._logic, "conditions": conditions}


def _conditions(found: dict[str, Any] | None, fields: dict[str, str]) -> dict[str, Any] | None:
    """Those that make sense of what the model said; None if there is none: then all is searched."""
    listed = (found or {}).get("conditions")
    known = [
        {name: one.get(name) for name in ("name", "comparison_operator", "value")}
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
        and one.get("name") in fields
        and one.get("comparison_operator") in _OPERATORS
    ]
    return {"logical_operator": "and", "conditions": known} if known else None


def _item(number: int, passage: Passage) -> dict[str, Value]:
    return {
        "metadata": {
            "_source": "knowledge",
            "position": number,
            "dataset_id": passage.dataset_id,
            "dataset_name": passage.dataset_name,
            "document_id": passage.document_id,
            "document_name": passage.document_name,
            "data_source_type": "upload_file",
            "segment_id": passage.segment_id,
            "retriever_from": "workflow",
            "score": passage.score,
            "child_chunks": [],
            "segment_hit_count": 0,
            "segment_word_count": len(passage.content),
            "segment_position": passage.position,
            "segment_index_node_hash": hashlib.sha256(passage.content.encode()).hexdigest(),
            "doc_metadata": passage.metadata,
        },
        "title": passage.document_name,
        "files": [],
        "content": passage.content,
        "summary": None,
    }
