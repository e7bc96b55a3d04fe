"""A small document of each kind that needs a library: reading one makes it load all it uses."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

__all__ = ["read_all"]


def read_all() -> None:
    """Read one of each. A library that is missing, or refuses, says so again when it is needed."""
    for read in (_word, _excel, _web, _pdf):
        with contextlib.suppress(Exception):
            read()


def _made(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _word() -> None:
    import docx

    from server.sandbox.document_text.office import docx_text

    document = docx.Document()
    document.add_paragraph("a")
    document.add_table(rows=1, cols=1).cell(0, 0).text = "b"
    docx_text(_made(document.save))


def _excel() -> None:
    import openpyxl  # type: ignore[import-untyped]

    from server.sandbox.document_text.office import xlsx_text

    book = openpyxl.Workbook()
    book.active.append(["a", 1])
    xlsx_text(_made(book.save))


def _web() -> None:
    from server.sandbox.document_text.mail import eml_text
    from server.sandbox.document_text.markup import html_text

    html_text(b"<p>a</p>")
    eml_text(b"Content-Type: text/plain; charset=utf-8\n\na")


def _pdf() -> None:
    import pypdfium2  # type: ignore[import-untyped]

    from server.sandbox.document_text.pdf import pdf_text

    document = pypdfium2.PdfDocument.new()
    document.new_page(10, 10)
    pdf_text(_made(document.save))
