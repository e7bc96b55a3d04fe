"""PDF files, by PDFium."""

from __future__ import annotations

from typing import Any

__all__ = ["pdf_text"]


def pdf_text(data: bytes) -> str:
    """The text of all pages, one after the other. Scanned pages have none."""
    import pypdfium2  # type: ignore[import-untyped]

    with pypdfium2.PdfDocument(data) as document:
        return "".join(_page(document[number]) for number in range(len(document)))


def _page(page: Any) -> str:
    text_page = page.get_textpage()
    try:
        return str(text_page.get_text_range())
    finally:
        text_page.close()
        page.close()
