"""Knowledge bases out of a folder: each folder in it is a base, each text file a document.

    knowledge/handbook/travel.md      the document "travel.md" of the base "handbook"

A file may begin with metadata, as YAML between two lines of three dashes. Blocking: call it in a
thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from server.dify.yaml_reading import DslError, Limits, read_yaml
from server.knowledge.bases import KnowledgeBases
from server.workflow.services import ServiceFailed

__all__ = ["Loaded", "load_folder"]

SUFFIXES: Final = frozenset({".md", ".markdown", ".mdx", ".txt", ".text", ".rst", ".csv", ".json"})
MOST_FILES: Final = 20_000
MOST_FILE_BYTES: Final = 10 * 1024 * 1024
_MOST_HEAD: Final = 20_000
_HEAD_LIMITS: Final = Limits(values=2_000, all_characters=100_000, depth=10)


class Loaded(msgspec.Struct, kw_only=True):
    """What came of it."""

    documents: int = 0
    faults: list[str] = []
    """Files that were left out, and why."""


def load_folder(bases: KnowledgeBases, folder: Path) -> Loaded:
    """Add all that is there. A file that cannot be read is left out and named. Raises OSError if
    there is no such folder, `ServiceFailed` if there is no room."""
    loaded = Loaded()
    for home in sorted(path for path in folder.iterdir() if path.is_dir()):
        if home.name.startswith("."):
            continue
        bases.create(home.name)
        for path in _files(home):
            if loaded.documents >= MOST_FILES:
                raise ServiceFailed(f"{folder} holds more than {MOST_FILES} files", "KnowledgeFull")
            fault = _add(bases, home, path)
            if fault:
                loaded.faults.append(fault)
            else:
                loaded.documents += 1
    return loaded


def _files(home: Path) -> Iterator[Path]:
    """Text files below it, but for hidden ones and what links lead to."""
    for path in sorted(home.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(home).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and not path.is_symlink():
            yield path


def _add(bases: KnowledgeBases, home: Path, path: Path) -> str:
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            return f"{path}: larger than {MOST_FILE_BYTES} bytes"
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return f"{path}: {error}"
    metadata, body = _parted(text)
    bases.add(home.name, str(path.relative_to(home)), body, {"source": "folder"} | metadata)
    return ""


def _parted(text: str) -> tuple[dict[str, Any], str]:
    """The metadata that a text begins with, and the text itself."""
    end = text.find("\n---", 4, _MOST_HEAD) if text.startswith("---\n") else -1
    if end < 0:
        return {}, text
    try:
        found = read_yaml(text[4:end], _HEAD_LIMITS).value
    except DslError:
        return {}, text
    if not isinstance(found, dict):
        return {}, text
    body = text[end + 4 :].partition("\n")[2]
    return {str(name): _plain(value) for name, value in found.items()}, body


def _plain(value: Any) -> Any:
    """Anything deep as text."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [str(item) for item in value[:100]]
    return "" if value is None else str(value)[:1000]
