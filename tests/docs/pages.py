"""The documentation as the tests read it: pages, their sections, tables, links and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Link", "anchors", "code_blocks", "links", "pages", "rows", "section", "ticked"]

ROOT = Path(__file__).resolve().parents[2]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[\[[^\]]*\]\])*\]\(([^)\s]+)\)")


class Link(NamedTuple):
    """Where a page points: `target` as it is written."""

    page: Path
    target: str


def pages() -> list[Path]:
    """Every page of the documentation."""
    top = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    return top + sorted((ROOT / "docs").rglob("*.md"))


def section(page: Path, *headings: str) -> str:
    """The text below these headings, each within the one before, up to the next of its level."""
    text = page.read_text(encoding="utf-8")
    for heading in headings:
        for found in _HEADING.finditer(text):
            if found[2].strip() == heading:
                level = len(found[1])
                end = re.search(rf"^#{{1,{level}}} ", text[found.end() :], re.MULTILINE)
                text = text[found.end() :][: end.start() if end else None]
                break
        else:
            raise AssertionError(f"{page.name} has no heading {heading!r}")
    return text


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row in `text`, without headings and rules."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        is_heading = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if line.startswith("| ") and not is_heading:
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            yield [cell.strip() for cell in cells]


def ticked(text: str) -> list[str]:
    """What stands in backticks, outside code blocks."""
    return re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks in that language."""
    text = page.read_text(encoding="utf-8")
    return [body for name, body in _FENCED.findall(text) if name == language]


def links(page: Path) -> list[Link]:
    """Every link on the page, outside code blocks."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return [Link(page, target) for target in _LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """The fragments that headings of the page can be reached by."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return {_slug(heading) for _, heading in _HEADING.findall(text)}


def _slug(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")
