"""One module per type of node. A type's module is imported when a graph first needs it."""

from __future__ import annotations

import importlib
from typing import Final

from server.workflow.app import NodeSpec
from server.workflow.node import GraphError, Node

__all__ = ["NODES", "make_node", "node_class"]

NODES: Final[dict[str, str]] = {
    "start": "start:Start",
    "end": "end:End",
    "answer": "answer:Answer",
    "llm": "llm:Llm",
    "question-classifier": "question_classifier:QuestionClassifier",
    "parameter-extractor": "parameter_extractor:ParameterExtractor",
    "if-else": "if_else:IfElse",
    "code": "code:Code",
    "template-transform": "template_transform:TemplateTransform",
    "http-request": "http_request:HttpRequest",
    "tool": "tool:ToolNode",
    "iteration": "iteration:Iteration",
    "iteration-start": "container_start:ContainerStart",
    "loop": "loop:Loop",
    "loop-start": "container_start:ContainerStart",
    "loop-end": "loop_end:LoopEnd",
    "variable-aggregator": "variable_aggregator:VariableAggregator",
    "assigner": "assigner:Assigner",
    "list-operator": "list_operator:ListOperator",
    "document-extractor": "document_extractor:DocumentExtractor",
    "agent": "agent:Agent",
    "knowledge-retrieval": "knowledge_retrieval:KnowledgeRetrieval",
    "human-input": "human_input:HumanInput",
    "trigger-webhook": "triggers:Webhook",
    "trigger-schedule": "triggers:Schedule",
    "trigger-plugin": "triggers:Plugin",
}
"""Each type and where its class is, below this package. `server.dify` has renamed old names."""


def node_class(type: str) -> type[Node] | None:
    """The class of a type of node; None if there is no such type."""
    where = NODES.get(type)
    if where is None:
        return None
    module, name = where.split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)  # type: ignore[no-any-return]


def make_node(spec: NodeSpec) -> Node:
    """Compile one node. Raises `GraphError`."""
    found = node_class(spec.type)
    if found is None:
        raise GraphError(spec.place or spec.id, f"there is no node of type {spec.type!r}")
    return found(spec)
