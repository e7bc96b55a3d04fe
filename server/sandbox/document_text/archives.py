"""Documents that are ZIP files of XML: PowerPoint, OpenDocument text, EPUB."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote
from xml.etree import ElementTree

from server.sandbox.document_text.markup import html_text
from server.sandbox.worker import Failed

__all__ = ["checked", "epub_text", "odt_text", "pptx_text"]

_MOST_ENTRIES: Final = 20_000
_MOST_UNPACKED: Final = 256 << 20
_DRAWING: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_TEXT: Final = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"


def checked(data: bytes) -> bytes:
    """The same, if it unpacks to a reasonable size. `zipfile` reads no more of an entry than its
    head says, so the heads can be believed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise Failed(f"the document has more than {_MOST_ENTRIES} parts")
    if sum(entry.file_size for entry in entries) > _MOST_UNPACKED:
        raise Failed(f"the document unpacks to more than {_MOST_UNPACKED >> 20} MiB")
    return data


def pptx_text(data: bytes) -> str:
    """The paragraphs of all slides, in order; an empty line between slides."""
    with zipfile.ZipFile(io.BytesIO(checked(data))) as archive:
        slides = sorted(
            (int(found.group(1)), name)
            for name in archive.namelist()
            if (found := re.fullmatch(r"ppt/slides/slide(\d{1,6})\.xml", name))
        )
        texts = ["\n".join(_paragraphs(archive.read(name))) for _, name in slides]
    return "\n\n".join(text for text in texts if text)


def _paragraphs(slide: bytes) -> Iterator[str]:
    for paragraph in _tree(slide).iter(f"{_DRAWING}p"):
        text = "".join(run.text or "" for run in paragraph.iter(f"{_DRAWING}t"))
        if text.strip():
            yield text


def odt_text(data: bytes) -> str:
    """The paragraphs and headings, in order."""
    with zipfile.ZipFile(io.BytesIO(checked(data))) as archive:
        root = _tree(archive.read("content.xml"))
    blocks = (node for node in root.iter() if node.tag in (f"{_TEXT}p", f"{_TEXT}h"))
    return "\n".join(_written(block) for block in blocks).strip()


def _written(node: ElementTree.Element) -> str:
    signs = {f"{_TEXT}tab": "\t", f"{_TEXT}line-break": "\n", f"{_TEXT}s": " "}
    parts = [node.text or ""]
    for child in node:
        parts.append(signs.get(child.tag) or _written(child))
        parts.append(child.tail or "")
    return "".join(parts)


def epub_text(data: bytes) -> str:
    """The chapters in the order of the book."""
    with zipfile.ZipFile(io.BytesIO(checked(data))) as archive:
        names = set(archive.namelist())
        chapters = [html_text(archive.read(name)) for name in _spine(archive) if name in names]
    return "\n".join(chapter for chapter in chapters if chapter)


def _spine(archive: zipfile.ZipFile) -> list[str]:
    container = _tree(archive.read("META-INF/container.xml"))
    root = container.find(".//{*}rootfile")
    path = unquote(root.get("full-path", "") if root is not None else "").lstrip("/")
    if not path:
        raise Failed("the book does not say where its contents are")
    package = _tree(archive.read(path))
    places = {item.get("id"): item.get("href", "") for item in package.findall(".//{*}item")}
    refs = [places.get(ref.get("idref"), "") for ref in package.findall(".//{*}itemref")]
    folder = posixpath.dirname(path)
    return [posixpath.normpath(posixpath.join(folder, unquote(ref))) for ref in refs if ref]


def _tree(data: bytes) -> ElementTree.Element:
    """XML without entities of its own: those can grow without end."""
    if b"<!ENTITY" in data:
        raise Failed("the document declares XML entities, which are not read")
    return ElementTree.fromstring(data)
