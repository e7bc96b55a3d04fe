"""HTML as text."""

from __future__ import annotations

import importlib.util
import re
from typing import Final

from server.sandbox.document_text.encoding import decoded

__all__ = ["html_text", "text_of_html"]

_SILENT: Final = ("script", "style", "noscript", "template")
_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}charset=["']?([A-Za-z0-9_.:-]{1,40})""", re.I)


def html_text(data: bytes) -> str:
    """What is read on the page: no tags, no scripts, no empty lines. A charset that the page names
    is believed, if it fits."""
    named = _CHARSET.search(data[:4096])
    if named:
        try:
            return text_of_html(data.decode(named.group(1).decode()))
        except (LookupError, UnicodeDecodeError):
            pass
    return text_of_html(decoded(data))


def text_of_html(page: str) -> str:
    """The same for a page that is text already."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, _parser())
    for tag in soup(_SILENT):
        tag.decompose()
    lines = (line.strip() for line in soup.get_text("\n").splitlines())
    return "\n".join(line for line in lines if line)


def _parser() -> str:
    return "lxml" if importlib.util.find_spec("lxml") else "html.parser"
