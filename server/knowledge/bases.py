"""`services.Knowledge`, in memory: bases by name, each an index of words.

Datasets of exports are ids of another system. The app's bindings say which base each stands for;
without one, a base of the id's own name counts.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import trio

from server.knowledge.filters import Fits, compile_filter
from server.knowledge.index import Document, Index, Segment
from server.knowledge.splitting import DEFAULT_TOKENS, split
from server.workflow.node import NodeRun
from server.workflow.services import Passage, Query, ServiceFailed

__all__ = ["KnowledgeBases"]

MOST_CHARACTERS: Final = 50_000_000
"""Of all documents together; texts and index take about ten bytes a character."""

_AT_ONCE: Final = 2_000
"""Entries that a search may go through on the loop: well under a millisecond."""

_MOST_PASSAGES: Final = 100


class _Base:
    def __init__(self) -> None:
        self.index = Index()
        self.documents: dict[str, Document] = {}


class KnowledgeBases:
    """Documents in, passages out. `add` and `remove` may be called from threads."""

    def __init__(self, most_characters: int = MOST_CHARACTERS) -> None:
        self._most = most_characters
        self._characters = 0
        self._sizes: dict[str, int] = {}
        self._bases: dict[str, _Base] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return sorted(self._bases)

    @property
    def characters(self) -> int:
        """Of all documents that are kept."""
        return self._characters

    def documents(self, base: str) -> list[Document]:
        """Of one base, in the order in which they came; none of a base that is not there."""
        found = self._bases.get(base)
        return list(found.documents.values()) if found else []

    def create(self, base: str) -> None:
        """A base without documents yet; nothing if it is there."""
        with self._lock:
            self._bases.setdefault(base, _Base())

    def add(
        self,
        base: str,
        name: str,
        text: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        separator: str = "\n\n",
        most_tokens: int = DEFAULT_TOKENS,
    ) -> str:
        """Cut a document into segments and index them; its id. Blocking: about 1 s for two million
        characters. Raises `ServiceFailed` if there is no room."""
        pieces = split(text, separator=separator, most_tokens=most_tokens)
        document = Document(
            id=str(uuid.uuid4()), name=name, metadata={"document_name": name} | dict(metadata or {})
        )
        with self._lock:
            self._book(document.id, len(text))
            home = self._bases.setdefault(base, _Base())
            home.documents[document.id] = document
            for position, content in enumerate(pieces, 1):
                home.index.add(
                    Segment(
                        id=f"{document.id}-{position}",
                        document=document,
                        position=position,
                        content=content,
                    )
                )
        return document.id

    def _book(self, document_id: str, characters: int) -> None:
        if self._characters + characters > self._most:
            raise ServiceFailed(
                f"the knowledge bases are full: {self._most} characters in all", "KnowledgeFull"
            )
        self._characters += characters
        self._sizes[document_id] = characters

    def remove(self, base: str, document_id: str) -> bool:
        """Forget a document; whether it was there. Blocking: the base is indexed anew."""
        with self._lock:
            home = self._bases.get(base)
            if home is None or document_id not in home.documents:
                return False
            home.index = home.index.without(document_id)
            del home.documents[document_id]
            self._characters -= self._sizes.pop(document_id)
            return True

    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        """See `services.Knowledge`. A threshold is compared with scores of 0 to 1."""
        fits = compile_filter(query.filter)
        most = min(max(query.top_k, 1), _MOST_PASSAGES)
        found: list[Passage] = []
        for dataset_id in dict.fromkeys(query.dataset_ids):
            name, base = self._base(dataset_id, run)
            for score, segment in await _search(base.index, query.text, most, fits):
                found.append(_passage(score, segment, dataset_id, name))
        found.sort(key=lambda passage: -passage.score)
        least = query.score_threshold or 0.0
        return [passage for passage in found[:most] if passage.score >= least]

    async def fields(self, dataset_ids: Sequence[str], run: NodeRun) -> dict[str, str]:
        """See `services.Knowledge`."""
        found: dict[str, str] = {}
        for dataset_id in dataset_ids:
            _, base = self._base(dataset_id, run)
            for document in base.documents.values():
                for name, value in document.metadata.items():
                    if name not in found:
                        found[name] = str(value)[:80]
                if len(found) > 100:
                    return found
        return found

    def _base(self, dataset_id: str, run: NodeRun) -> tuple[str, _Base]:
        bound = run.run.app.bindings.knowledge
        name = bound.get(dataset_id) or bound.get("*") or dataset_id
        base = self._bases.get(name)
        if base is None:
            known = ", ".join(self.names[:20]) or "none"
            raise ServiceFailed(
                f"there is no knowledge base {name!r}: bind knowledge:{dataset_id} to one that is "
                f"here ({known})",
                "KnowledgeBaseNotFound",
            )
        return name, base


async def _search(
    index: Index, text: str, most: int, fits: Fits | None
) -> list[tuple[float, Segment]]:
    """At once if it is quick, else in a thread."""

    def search() -> list[tuple[float, Segment]]:
        wanted = None if fits is None else lambda segment: fits(segment.document.metadata)
        return index.search(text, most, wanted)

    if index.work(text) <= _AT_ONCE:
        return search()
    return await trio.to_thread.run_sync(search, abandon_on_cancel=True)


def _passage(score: float, segment: Segment, dataset_id: str, name: str) -> Passage:
    return Passage(
        content=segment.content,
        score=round(score, 6),
        dataset_id=dataset_id,
        dataset_name=name,
        document_id=segment.document.id,
        document_name=segment.document.name,
        segment_id=segment.id,
        position=segment.position,
        metadata=dict(segment.document.metadata),
    )
