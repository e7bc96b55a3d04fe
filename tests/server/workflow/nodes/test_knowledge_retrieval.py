"""The knowledge-retrieval node: its result, its filters, its errors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from server.workflow.node import NodeError, NodeRun, Result
from server.workflow.services import ModelFailed, Passage, Query, Usage
from tests.server.workflow.fakes import FakeRun, execute, node
from tests.server.workflow.scripted_models import Says, ScriptedModels


class FakeKnowledge:
    def __init__(self, *passages: Passage, fields: dict[str, str] | None = None) -> None:
        self._passages = list(passages)
        self._fields = fields or {}
        self.queries: list[Query] = []

    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        self.queries.append(query)
        return self._passages

    async def fields(self, dataset_ids: Sequence[str], run: NodeRun) -> dict[str, str]:
        return self._fields


PASSAGE = Passage(
    content="Trains are fast.",
    score=0.5,
    dataset_id="uuid",
    dataset_name="handbook",
    document_id="d",
    document_name="travel.md",
    segment_id="s",
    position=3,
    metadata={"year": 2024},
)
DATA: dict[str, Any] = {
    "query_variable_selector": ["start", "query"],
    "dataset_ids": ["uuid"],
    "retrieval_mode": "multiple",
    "multiple_retrieval_config": {"top_k": 6, "score_threshold": None, "reranking_enable": True},
}


async def retrieved(
    knowledge: FakeKnowledge, data: dict[str, Any], query: Any = "trains?", **given: Any
) -> tuple[Result, FakeRun]:
    run = FakeRun({"start": {"query": query, "year": "2024"}}, knowledge=knowledge, **given)
    return await execute(node("knowledge-retrieval", DATA | data), run), run


async def test_result_has_dify_s_shape() -> None:
    """All fields that prompts, answers and clients look for."""
    knowledge = FakeKnowledge(PASSAGE)
    result, _ = await retrieved(knowledge, {})
    assert result.outputs == {
        "result": [
            {
                "metadata": {
                    "_source": "knowledge",
                    "position": 1,
                    "dataset_id": "uuid",
                    "dataset_name": "handbook",
                    "document_id": "d",
                    "document_name": "travel.md",
                    "data_source_type": "upload_file",
                    "segment_id": "s",
                    "retriever_from": "workflow",
                    "score": 0.5,
                    "child_chunks": [],
                    "segment_hit_count": 0,
                    "segment_word_count": 16,
                    "segment_position": 3,
                    "segment_index_node_hash": hashlib.sha256(b"Trains are fast.").hexdigest(),
                    "doc_metadata": {"year": 2024},
                },
                "title": "travel.md",
                "files": [],
                "content": "Trains are fast.",
                "summary": None,
            }
        ]
    }
    assert result.inputs == {"query": "trains?"}
    assert knowledge.queries[0].top_k == 6
    assert knowledge.queries[0].score_threshold is None


async def test_threshold_and_single_mode() -> None:
    """A threshold is passed on; single mode has its own top_k."""
    knowledge = FakeKnowledge()
    several = {"multiple_retrieval_config": {"top_k": 2, "score_threshold": 0.4}}
    await retrieved(knowledge, several)
    await retrieved(knowledge, several | {"retrieval_mode": "single"})
    assert [(one.top_k, one.score_threshold) for one in knowledge.queries] == [(2, 0.4), (4, None)]


@pytest.mark.parametrize("query", [["a"], None, 5, {"a": 1}])
async def test_query_must_be_a_text(query: Any) -> None:
    """The error is Dify's."""
    with pytest.raises(NodeError, match=r"^Query variable is not string type\.$"):
        await retrieved(FakeKnowledge(), {}, query)


async def test_empty_query_is_an_error() -> None:
    """Nothing is looked up."""
    with pytest.raises(NodeError, match="Query is required"):
        await retrieved(FakeKnowledge(), {}, " ")


async def test_no_datasets_is_no_result() -> None:
    """An export whose knowledge was taken out runs all the same."""
    knowledge = FakeKnowledge(PASSAGE)
    result, _ = await retrieved(knowledge, {"dataset_ids": []})
    assert result.outputs == {"result": []}
    assert knowledge.queries == []


async def test_manual_filter_is_rendered() -> None:
    """Templates in its values are texts of this run."""
    knowledge = FakeKnowledge()
    conditions = [
        {"name": "year", "comparison_operator": "is", "value": "{{#start.year#}}"},
        {"name": "tag", "comparison_operator": "in", "value": ["a", "b"]},
        {"name": "x", "comparison_operator": "empty"},
    ]
    data = {
        "metadata_filtering_mode": "manual",
        "metadata_filtering_conditions": {"logical_operator": "or", "conditions": conditions},
    }
    await retrieved(knowledge, data)
    chosen = knowledge.queries[0].filter
    assert chosen is not None
    assert chosen["logical_operator"] == "or"
    assert [one["value"] for one in chosen["conditions"]] == ["2024", ["a", "b"], None]
    compiled = node("knowledge-retrieval", DATA | data)
    assert list(map(tuple, compiled.reads())) == [("start", "query"), ("start", "year")]


AUTOMATIC = {
    "metadata_filtering_mode": "automatic",
    "metadata_model_config": {"provider": "openai", "name": "gpt-4o", "mode": "chat"},
}


async def test_automatic_filter_is_asked_of_a_model() -> None:
    """Only fields and operators that there are count; its usage is the node's."""
    reply = (
        'Yes: ```json\n{"conditions": [{"name": "year", "comparison_operator": "=", "value": 2024},'
        '{"name": "gone", "comparison_operator": "=", "value": 1},'
        '{"name": "year", "comparison_operator": "like", "value": 1}]}\n```'
    )
    models, knowledge = ScriptedModels(reply), FakeKnowledge(PASSAGE, fields={"year": "2020"})
    result, _ = await retrieved(knowledge, AUTOMATIC, models=models)
    assert '{"year": "2020"}' in models.messages[0]["content"]
    assert models.messages[1]["content"] == "trains?"
    chosen = knowledge.queries[0].filter
    assert chosen is not None
    assert chosen["conditions"] == [{"name": "year", "comparison_operator": "=", "value": 2024}]
    assert result.usage == Usage(10, 5)


@pytest.mark.parametrize("reply", ["", "no", '{"conditions": []}', '{"conditions": 5}', "[1"])
async def test_model_that_finds_no_filter_filters_nothing(reply: str) -> None:
    """All documents are searched then."""
    knowledge = FakeKnowledge(PASSAGE, fields={"year": "2020"})
    await retrieved(knowledge, AUTOMATIC, models=ScriptedModels(reply))
    assert knowledge.queries[0].filter is None


async def test_failing_model_fails_the_node() -> None:
    """It is an error of the node, for its error strategy."""
    models = ScriptedModels(Says(failure=ModelFailed("no replica", "ModelError")))
    with pytest.raises(ModelFailed):
        await retrieved(FakeKnowledge(fields={"year": "1"}), AUTOMATIC, models=models)
