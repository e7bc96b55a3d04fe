"""The JSON Schema of app files, for editors that complete and check YAML. Pure."""

from __future__ import annotations

from typing import Any, Final, get_args

from server.dify.dsl import NEWEST
from server.dify.schema_nodes import MODEL, NODE_KEYS, TEXT
from server.workflow.app import Mode
from server.workflow.nodes import NODES

__all__ = ["app_schema"]

_ID: Final = {
    "type": ["string", "integer"],
    "description": "Letters, digits and _: placeholders name it, {{#ask.text#}}.",
}

_COMMON: Final[dict[str, Any]] = {
    "title": {"type": ["string", "null"], "description": "What people call it."},
    "desc": {"type": ["string", "null"], "description": "What it is for."},
    "error_strategy": {
        "enum": ["fail-branch", "default-value", "none", "", None],
        "description": "When it fails: leave by fail-branch, or give default_value out.",
    },
    "default_value": {
        "type": ["array", "null"],
        "description": "What it gives out when it fails: [{key, type, value}].",
    },
    "retry_config": {
        "type": ["object", "null"],
        "description": "Try again: retry_enabled, max_retries, retry_interval in milliseconds.",
    },
}

_VARIABLE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "value_type": {
            "description": "Its type; string unless told.",
            "anyOf": [{"enum": ["string", "number", "secret", "object", "array[string]"]}, {}],
        },
        "value": {"description": "What it begins with."},
        "description": {"type": ["string", "null"]},
    },
}


def app_schema() -> dict[str, Any]:
    """Draft 2020-12, complete in itself."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Triolet app",
        "description": "An app: a workflow, a chat, an agent. Dify's exports have this format.",
        "type": "object",
        "required": ["app"],
        "properties": {
            "kind": {"enum": ["app", "graph"], "description": "Always app."},
            "version": {
                "type": ["string", "number"],
                "description": f"Of the format: {NEWEST!r} is the newest.",
            },
            "app": _about(),
            "workflow": _workflow(),
            "model_config": _model_config(),
            "dependencies": {"type": ["array", "null"], "description": "Plugins; not installed."},
        },
        "$defs": {"node": _node(), "edge": _edge(), "variable": _VARIABLE, "features": _features()},
    }


def _about() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["mode"],
        "properties": {
            "name": {"type": "string", "description": "An import replaces the app of this name."},
            "mode": {
                "enum": list(get_args(Mode)),
                "description": "workflow and advanced-chat have a graph; the others a prompt.",
            },
            "description": {"type": ["string", "null"]},
        },
    }


def _workflow() -> dict[str, Any]:
    variables = {"type": ["array", "null"], "items": {"$ref": "#/$defs/variable"}}
    return {
        "type": "object",
        "required": ["graph"],
        "properties": {
            "graph": {
                "type": "object",
                "required": ["nodes"],
                "properties": {
                    "nodes": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                    "edges": {"type": ["array", "null"], "items": {"$ref": "#/$defs/edge"}},
                },
            },
            "features": {"$ref": "#/$defs/features"},
            "environment_variables": {**variables, "description": "Read as {{#env.NAME#}}."},
            "conversation_variables": {
                **variables,
                "description": "Kept with a conversation; read as {{#conversation.NAME#}}.",
            },
        },
    }


def _node() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["id", "data"],
        "properties": {
            "id": _ID,
            "parentId": {
                "type": ["string", "integer", "null"],
                "description": "The iteration or loop that it stands in.",
            },
            "data": {
                "type": "object",
                "properties": {
                    "type": {
                        "description": "What it does.",
                        "anyOf": [{"enum": [*NODES, ""]}, {"type": "string"}],
                    },
                    **_COMMON,
                },
                "allOf": [
                    {
                        "if": {"properties": {"type": {"const": type}}, "required": ["type"]},
                        "then": {key: value for key, value in keys.items() if key != "type"},
                    }
                    for type, keys in NODE_KEYS.items()
                ],
            },
        },
    }


def _edge() -> dict[str, Any]:
    end = {"type": ["string", "integer"]}
    return {
        "type": "object",
        "required": ["source", "target"],
        "properties": {
            "source": {**end, "description": "The id of the node that it leaves."},
            "target": {**end, "description": "The id of the node that it leads to."},
            "sourceHandle": {
                "type": ["string", "boolean", "integer", "null"],
                "description": "Of a branch: a case, a class, an action, false, fail-branch.",
            },
        },
    }


def _features() -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "properties": {
            "opening_statement": {
                "type": ["string", "null"],
                "description": "How a conversation begins.",
            },
            "suggested_questions": {"type": ["array", "null"], "items": {"type": "string"}},
            "retriever_resource": {
                "type": ["object", "null"],
                "description": "enabled: whether answers name their sources.",
            },
            "file_upload": {"type": ["object", "null"], "description": "Files with a message."},
        },
    }


def _model_config() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "Of a chat, agent-chat or completion app.",
        "required": ["model"],
        "properties": {
            "model": MODEL,
            "pre_prompt": {
                **TEXT,
                "description": "The instruction; {{name}} stands for a field of user_input_form.",
            },
            "prompt_type": {"enum": ["simple", "advanced", None]},
            "user_input_form": {
                "type": ["array", "null"],
                "description": "Fields: [{text-input: {variable, label, required}}].",
            },
            "agent_mode": {
                "type": ["object", "null"],
                "description": "strategy (function_call, react), max_iteration, tools.",
            },
            "dataset_configs": {
                "type": ["object", "null"],
                "description": "Knowledge bases, under datasets.datasets, and top_k.",
            },
            "opening_statement": {"type": ["string", "null"]},
        },
    }
