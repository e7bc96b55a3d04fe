"""An export, or a file of our own in the same format, as an app with a report. Pure.

    app, report = read_app(open("assistant.yml", "rb").read())
    report.is_runnable, report.findings

Any version from 0.1 is read, all modes of apps. Nothing is run and nothing fetched.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Any, Final, get_args

import msgspec

from server.dify.declared import form_inputs, read_variables, start_inputs
from server.dify.easy_apps import easy_features, easy_graph
from server.dify.graph_reading import FoundGraph, read_graph
from server.dify.needs import Offers, report_of
from server.dify.report import Findings, Report
from server.dify.yaml_reading import Document, DslError, Limits, read_yaml
from server.workflow.app import App, Bindings, GraphSpec, InputSpec, Mode, VariableSpec
from server.workflow.reading import GraphError, Reader

__all__ = ["NEWEST", "DslError", "Limits", "Offers", "app_digest", "app_id", "read_app"]

NEWEST: Final = "0.7.0"
"""The newest version of the format that was known when this was written."""

_READING: Final = 1
"""Counted up when the same file is read into another app than before: kept apps are read anew."""

_NO_BINDINGS: Final = Bindings()
_NO_OFFERS: Final = Offers()
_NAMESPACE: Final = uuid.UUID("6f7a1c1e-3f5b-4b8e-9d53-7b1f0c6f2a11")
_SITE: Final = ("icon", "icon_type", "icon_background", "use_icon_as_answer_icon")
_MOST_OF_A_NAME: Final = 255


def read_app(
    data: bytes | str,
    bindings: Bindings = _NO_BINDINGS,
    offers: Offers = _NO_OFFERS,
    *,
    name: str | None = None,
    limits: Limits | None = None,
) -> tuple[App, Report]:
    """Read a file. `offers` is what this server has to meet the app's needs; `name` goes over the
    file's. Raises `DslError`, which names the place and, where it is known, the line."""
    document = read_yaml(data, limits)
    try:
        return _Reading(document, bindings, offers, name).app(_bytes(data))
    except (DslError, GraphError) as exc:
        line = document.line_of(exc.place)
        raise DslError(exc.place, exc.message, line) from None


def app_digest(data: bytes, bindings: Bindings, name: str | None = None) -> str:
    """Of a file and its bindings: the same for the same, in hexadecimal."""
    told = msgspec.json.encode([_READING, name, bindings], order="deterministic")
    return hashlib.sha256(told + b"\0" + data).hexdigest()


def app_id(mode: str, name: str) -> str:
    """A UUID by mode and name: an export that is imported again replaces the app that it was."""
    return str(uuid.uuid5(_NAMESPACE, f"{mode}:{name}"))


def _bytes(data: bytes | str) -> bytes:
    return data if isinstance(data, bytes) else data.encode()


class _Reading:
    """One file while it is read."""

    def __init__(
        self, document: Document, bindings: Bindings, offers: Offers, name: str | None
    ) -> None:
        if not isinstance(document.value, dict):
            raise DslError("", "an app is a mapping with `app:` and `workflow:` in it")
        self._document = document
        self._root = Reader(document.value, "")
        self._bindings = bindings
        self._offers = offers
        self._name = name
        self._findings = Findings()

    def app(self, data: bytes) -> tuple[App, Report]:
        self._check_kind()
        about = self._root.table("app")
        if not about.data:
            raise DslError("app", "the name and the mode of the app are missing: `app:`")
        mode = _mode(about, self._root)
        name = (self._name or about.text("name") or "unnamed")[:_MOST_OF_A_NAME]
        body = self._easy(mode) if mode in _EASY else self._workflow()
        app = App(
            id=app_id(mode, name),
            name=name,
            mode=mode,
            graph=body.graph.spec,
            description=about.text("description"),
            inputs=body.inputs,
            environment=body.environment,
            conversation=body.conversation,
            features=body.features,
            bindings=self._bindings,
            version=self._version(),
            digest=app_digest(data, self._bindings, self._name),
            site={key: about.data[key] for key in _SITE if about.data.get(key) is not None},
        )
        report = report_of(app, body.graph, self._root, self._offers, self._findings)
        return app, _with_lines(report, self._document)

    def _check_kind(self) -> None:
        kind = self._root.text("kind")
        if kind == "rag_pipeline":
            raise DslError("kind", "this is a knowledge pipeline; only apps are imported")
        if kind not in ("", "app", "graph"):
            message = f"the kind is {kind!r}; it is read as an app"
            self._findings.add("info", "kind", "kind", message)

    def _version(self) -> str:
        found = self._root.value("version", "0.1.0")
        if not isinstance(found, str):
            message = "the version is a number and not a text: write it in quotes"
            self._findings.add("info", "version", "version", message)
        version = str(found)[:50]
        numbers = _numbers(version)
        if numbers is None:
            message = f"{version!r} is no version: read as the newest that is known, {NEWEST}"
            self._findings.add("warning", "version", "version", message)
        elif numbers > (_numbers(NEWEST) or ()):
            message = f"version {version} is newer than {NEWEST}: what is new in it is not read"
            self._findings.add("warning", "version", "version", message)
        return version

    def _workflow(self) -> _Body:
        workflow = self._root.table("workflow")
        if not workflow.data:
            raise DslError("workflow", "an app of this mode has its graph under `workflow:`")
        graph = workflow.table("graph")
        if not graph.data:
            raise DslError("workflow.graph", "there is no graph")
        found = read_graph(graph, self._findings)
        found.spec = _with_knowledge(found.spec, self._bindings)
        if not found.spec.nodes:
            raise DslError("workflow.graph.nodes", "there are no nodes")
        return _Body(
            graph=found,
            inputs=start_inputs(found.spec.nodes, self._findings),
            features=dict(workflow.table("features").data),
            environment=read_variables(
                workflow, "environment_variables", self._bindings.environment
            ),
            conversation=read_variables(workflow, "conversation_variables", {}),
        )

    def _easy(self, mode: Mode) -> _Body:
        config = self._root.table("model_config")
        if not config.data:
            message = f"an app of the mode {mode} has its settings under `model_config:`"
            raise DslError("model_config", message)
        inputs = form_inputs(config, self._findings)
        graph = easy_graph(mode, config, inputs, self._findings)
        return _Body(
            graph=FoundGraph(graph, {}, 0, 0), inputs=inputs, features=easy_features(config)
        )


class _Body(msgspec.Struct, kw_only=True):
    """What a `workflow` and a `model_config` both come to."""

    graph: FoundGraph
    inputs: tuple[InputSpec, ...]
    features: dict[str, Any]
    environment: tuple[VariableSpec, ...] = ()
    conversation: tuple[VariableSpec, ...] = ()


_EASY: Final = frozenset({"chat", "agent-chat", "completion"})


def _mode(about: Reader, root: Reader) -> Mode:
    found = about.text("mode")
    for mode in get_args(Mode):
        if found == mode:
            return mode  # type: ignore[no-any-return]
    if not found:
        raise DslError("app.mode", f"the mode is missing: one of {', '.join(get_args(Mode))}")
    raise DslError("app.mode", f"apps of the mode {found!r} are not read here"[:200])


def _with_knowledge(graph: GraphSpec, bindings: Bindings) -> GraphSpec:
    """Exports drop the ids of knowledge bases that are gone; such a node is bound by its own id."""
    nodes = tuple(
        msgspec.structs.replace(node, data={**node.data, "dataset_ids": [node.id]})
        if node.type == "knowledge-retrieval"
        and node.id in bindings.knowledge
        and not node.data.get("dataset_ids")
        else node
        for node in graph.nodes
    )
    return GraphSpec(nodes, graph.edges)


_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?")


def _numbers(version: str) -> tuple[int, ...] | None:
    found = _VERSION.match(version)
    return None if found is None else tuple(int(part or 0) for part in found.groups())


def _with_lines(report: Report, document: Document) -> Report:
    findings = tuple(
        msgspec.structs.replace(each, line=document.line_of(each.place)) for each in report.findings
    )
    return msgspec.structs.replace(report, findings=findings)
