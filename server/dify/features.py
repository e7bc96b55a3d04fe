"""The features of an app: which are on, and which of those Triolet leaves out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.dify.report import Findings
from server.dify.shapes import items, mapping, text
from server.workflow.app import App

__all__ = ["feature_findings", "features_on"]

_LEFT_OUT: Final = {
    "speech_to_text": "speech is not turned into text here",
    "text_to_speech": "answers are not spoken here",
    "annotation_reply": "answers are not taken from annotations here",
    "more_like_this": "there is no `more like this` here",
    "external_data_tools": "variables are not filled from outside here",
}


def features_on(features: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of those that are switched on, sorted."""
    return tuple(sorted(name for name, value in features.items() if _is_on(value)))


def _is_on(value: Any) -> bool:
    if isinstance(value, Mapping):
        image = mapping(value.get("image"))
        return value.get("enabled") is True or image.get("enabled") is True
    if isinstance(value, list):
        return any(each.get("enabled", True) for each in value if isinstance(each, Mapping)) or any(
            not isinstance(each, Mapping) for each in value
        )
    return isinstance(value, str) and bool(value.strip())


def feature_findings(app: App, findings: Findings) -> None:
    """The app runs without them: each is a warning."""
    easy = app.mode in ("chat", "agent-chat", "completion")
    home = "model_config" if easy else "workflow.features"
    for name in features_on(app.features):
        place = f"{home}.{name}"
        if name in _LEFT_OUT:
            findings.add("warning", "feature", place, f"{name} is on: {_LEFT_OUT[name]}")
        elif name == "sensitive_word_avoidance":
            kind = text(mapping(app.features[name]).get("type")) or "unknown"
            message = f"texts are not moderated here (its type is {kind}): they pass unchecked"
            findings.add("warning", "moderation", place, message)
    for node in app.graph.nodes:
        _node_findings(node.type, node.data, node.place, findings)


def _node_findings(type: str, data: Mapping[str, Any], place: str, findings: Findings) -> None:
    if type == "trigger-plugin":
        message = "a plugin's events do not arrive here: run the app by hand or through the API"
        findings.add("warning", "trigger", place, message)
    elif type == "human-input":
        for number, method in enumerate(items(data.get("delivery_methods"))):
            found = mapping(method)
            if found.get("type") == "email" and found.get("enabled"):
                where = f"{place}.data.delivery_methods[{number}]"
                message = "no mail is sent: the form is answered through the API"
                findings.add("warning", "delivery", where, message)
    elif type == "knowledge-retrieval":
        _rerank(data, place, findings)


def _rerank(data: Mapping[str, Any], place: str, findings: Findings) -> None:
    config = mapping(data.get("multiple_retrieval_config"))
    model = mapping(config.get("reranking_model"))
    asked = config.get("reranking_enable") is True and text(model.get("model"))
    if asked and config.get("reranking_mode") != "weighted_score":
        message = "there is no rerank model here: passages stay in the order they are found in"
        findings.add("info", "rerank", f"{place}.data.multiple_retrieval_config", message)
