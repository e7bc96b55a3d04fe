"""A markdown text as a Word document. Blocking: call it in a thread."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["MOST_CHARACTERS", "MOST_PARAGRAPHS", "MOST_PIECES", "docx_of"]

MOST_CHARACTERS: Final = 200_000
MOST_PARAGRAPHS: Final = 5_000
"""Cells of tables count too. Each takes 0.1 ms, and the square of their number."""

MOST_PIECES: Final = 20_000
"""Pieces of text of one look, 50 µs each."""

_PARAGRAPHS: Final = frozenset({"inline", "fence", "code_block", "hr"})


def docx_of(text: str, template: bytes | None = None) -> bytes:
    """Headings, paragraphs with bold, italic, code and links, lists, quotes, tables, code blocks
    and rules. Images are named, not fetched. Takes two seconds at most. Raises ImportError without
    the extra `documents`, ValueError for what is beyond a limit."""
    import docx
    from markdown_it import MarkdownIt

    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"a Word document is made of at most {MOST_CHARACTERS} characters")
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    _check(tokens)
    document = docx.Document(io.BytesIO(template) if template else None)
    _Writer(document).write(tokens)
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def _check(tokens: list[Token]) -> None:
    if sum(token.type in _PARAGRAPHS for token in tokens) > MOST_PARAGRAPHS:
        raise ValueError(f"a Word document has at most {MOST_PARAGRAPHS} paragraphs and cells")
    if sum(len(token.children or ()) for token in tokens) > MOST_PIECES:
        raise ValueError(f"a Word document has at most {MOST_PIECES} pieces of text")


class _Writer:
    def __init__(self, document: Any) -> None:
        self._document = document
        self._lists: list[str] = []
        self._quoted = 0
        self._heading = 0
        self._rows: list[list[Token]] | None = None
        self._styles: dict[str, str | None] = {}

    def write(self, tokens: list[Token]) -> None:
        for token in tokens:
            handle = getattr(self, f"_on_{token.type}", None)
            if handle is not None:
                handle(token)

    def _on_heading_open(self, token: Token) -> None:
        self._heading = int(token.tag[1])

    def _on_heading_close(self, token: Token) -> None:
        self._heading = 0

    def _on_bullet_list_open(self, token: Token) -> None:
        self._lists.append("List Bullet")

    def _on_ordered_list_open(self, token: Token) -> None:
        self._lists.append("List Number")

    def _on_bullet_list_close(self, token: Token) -> None:
        self._lists.pop()

    _on_ordered_list_close = _on_bullet_list_close

    def _on_blockquote_open(self, token: Token) -> None:
        self._quoted += 1

    def _on_blockquote_close(self, token: Token) -> None:
        self._quoted -= 1

    def _on_hr(self, token: Token) -> None:
        self._document.add_paragraph("―" * 20)

    def _on_fence(self, token: Token) -> None:
        run = self._document.add_paragraph().add_run(token.content.rstrip("\n"))
        run.font.name = "Courier New"

    _on_code_block = _on_fence

    def _on_table_open(self, token: Token) -> None:
        self._rows = []

    def _on_tr_open(self, token: Token) -> None:
        if self._rows is not None:
            self._rows.append([])

    def _on_table_close(self, token: Token) -> None:
        rows, self._rows = self._rows or [], None
        width = max(map(len, rows), default=0)
        if not width:
            return
        table = self._document.add_table(rows=len(rows), cols=width)
        if "Table Grid" in self._document.styles:
            table.style = "Table Grid"
        for number, (made, row) in enumerate(zip(table.rows, rows, strict=True)):
            for cell, inline in zip(made.cells, row, strict=False):
                self._inline(cell.paragraphs[0], inline, bold=number == 0)

    def _on_inline(self, token: Token) -> None:
        if self._rows is not None:
            if self._rows:
                self._rows[-1].append(token)
        elif self._heading:
            self._inline(self._paragraph(f"Heading {self._heading}"), token)
        else:
            self._inline(self._paragraph(self._paragraph_style()), token)

    def _paragraph_style(self) -> str:
        if self._lists:
            depth = min(len(self._lists), 3)
            return self._lists[-1] + (f" {depth}" if depth > 1 else "")
        return "Quote" if self._quoted else ""

    def _paragraph(self, style: str) -> Any:
        """A new one; plain if the template lacks the style. Asking for a style by its name each
        time would take most of the time."""
        if style not in self._styles:
            known = style and style in self._document.styles
            self._styles[style] = self._document.styles[style].style_id if known else None
        paragraph = self._document.add_paragraph()
        if self._styles[style] is not None:
            paragraph._p.style = self._styles[style]
        return paragraph

    def _inline(self, paragraph: Any, token: Token, *, bold: bool = False) -> None:
        strong, emphasised, link = bold, False, ""
        for child in token.children or []:
            if child.type in ("strong_open", "strong_close"):
                strong = bold or child.type == "strong_open"
            elif child.type in ("em_open", "em_close"):
                emphasised = child.type == "em_open"
            elif child.type == "link_open":
                link = str(child.attrGet("href") or "")
            elif child.type == "link_close":
                paragraph.add_run(f" ({link})" if link else "")
            else:
                run = paragraph.add_run(_text(child))
                run.bold, run.italic = strong or None, emphasised or None
                if child.type == "code_inline":
                    run.font.name = "Courier New"


def _text(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return "\n" if token.type == "hardbreak" else " "
    if token.type == "image":
        return f"[{token.content}]"
    return token.content
