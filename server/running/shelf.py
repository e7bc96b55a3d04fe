"""The folder of knowledge bases, read when the first run looks something up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from server.knowledge.bases import KnowledgeBases
from server.workflow.node import NodeRun
from server.workflow.services import Passage, Query, ServiceFailed

__all__ = ["KnowledgeShelf"]

log: Final = logging.getLogger("triolet.knowledge")


class KnowledgeShelf:
    """`services.Knowledge` over `bases`, with what is in `folder` once it is needed."""

    def __init__(self, folder: str | None) -> None:
        self.bases = KnowledgeBases()
        self._folder = folder
        self._reading = trio.Lock()
        self._is_read = folder is None

    async def retrieve(self, query: Query, run: NodeRun) -> list[Passage]:
        """Best first. Raises `ServiceFailed`: no such base, or the folder cannot be read."""
        if not self._is_read:
            await self._read()
        return await self.bases.retrieve(query, run)

    async def fields(self, dataset_ids: Sequence[str], run: NodeRun) -> dict[str, str]:
        """See `services.Knowledge`."""
        if not self._is_read:
            await self._read()
        return await self.bases.fields(dataset_ids, run)

    async def _read(self) -> None:
        from server.knowledge.folder import load_folder

        async with self._reading:
            if self._is_read:
                return
            assert self._folder is not None
            try:
                loaded = await trio.to_thread.run_sync(
                    load_folder, self.bases, Path(self._folder), abandon_on_cancel=False
                )
            except OSError as exc:
                raise ServiceFailed(
                    f"knowledge.dir cannot be read: {self._folder}: {exc.strerror or exc}",
                    "KnowledgeNotFound",
                ) from exc
            finally:
                # What was read is there; a second reading would add it twice.
                self._is_read = bool(self.bases.names)
            for fault in loaded.faults:
                log.warning("left out of the knowledge: %s", fault)
            self._is_read = True
