"""The tables, code blocks and documents in a markdown text. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["MOST_CELLS", "code_blocks", "csv_of", "json_of", "tables_of", "unwrapped"]

_RULE: Final = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?")
_LONGEST_RULE: Final = 4_000
MOST_CELLS: Final = 1_000_000
_CELL: Final = re.compile(r"(?<!\\)\|")
_FENCE: Final = re.compile(r"(`{3,}|~{3,})\s*([\w+#.-]*)[^\n]*")


def unwrapped(text: str) -> str:
    """Without the reasoning before it and the fence around it that models are fond of."""
    text = re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    lines = text.splitlines()
    opened = len(lines) > 2 and lines[0].strip() in ("```markdown", "```md", "```")
    return "\n".join(lines[1:-1]) if opened and lines[-1].strip() == "```" else text


def tables_of(text: str) -> list[list[list[str]]]:
    """Each table as its rows, the head first. Rows are as long as the head. Raises `ValueError` for
    tables that fill the memory: a short row has all the cells of a long head."""
    lines = text.splitlines()
    found, number, cells = [], 0, 0
    while number + 1 < len(lines):
        if "|" in lines[number] and _is_rule(lines[number + 1]):
            end = number + 2
            while end < len(lines) and "|" in lines[end]:
                end += 1
            cells += (lines[number].count("|") + 1) * (end - number - 1)
            if cells > MOST_CELLS:
                raise ValueError(f"the tables have more than {MOST_CELLS} cells")
            found.append(_rows([lines[number], *lines[number + 2 : end]]))
            number = end
        else:
            number += 1
    return found


def _is_rule(line: str) -> bool:
    """Whether it is the line under a table's head."""
    plain = line.strip()
    return "-" in plain and len(plain) <= _LONGEST_RULE and _RULE.fullmatch(plain) is not None


def _rows(lines: list[str]) -> list[list[str]]:
    rows = [_cells(line) for line in lines]
    width = len(rows[0])
    return [(row + [""] * width)[:width] for row in rows]


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(inner)]


def csv_of(rows: list[list[str]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


def json_of(rows: list[list[str]], *, lines: bool) -> str:
    """An object for each row, by the head; a line for each, or one list."""
    head, *body = rows
    found: list[dict[str, Any]] = [dict(zip(head, row, strict=True)) for row in body]
    if lines:
        return "\n".join(json.dumps(item, ensure_ascii=False) for item in found)
    return json.dumps(found, ensure_ascii=False, indent=2)


def code_blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and the source of each fenced block."""
    fence, language, block = "", "", list[str]()
    for line in text.splitlines():
        opened = _FENCE.fullmatch(line.strip())
        if not fence and opened:
            fence, language, block = opened[1], opened[2].lower(), []
        elif fence and line.strip().startswith(fence) and not line.strip().strip("`~"):
            yield language, "\n".join(block)
            fence = ""
        elif fence:
            block.append(line)
