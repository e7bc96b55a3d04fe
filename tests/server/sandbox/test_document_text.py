"""The text of documents: kinds, encodings, and files that are meant to hurt."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping

import pytest

from server.sandbox import Sandbox, SandboxOptions
from server.sandbox.document_text import READERS, reader_of
from server.sandbox.document_text.archives import checked
from server.sandbox.document_text.encoding import decoded
from server.sandbox.options import CallLimits
from server.sandbox.worker import Failed
from tests.server.sandbox.watching import keeps_time, outcome


def read(data: bytes, name: str, mime_type: str | None = None) -> str:
    """In this process: the data is ours."""
    return str(reader_of(name, mime_type)(data))


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


TEXTS = {
    "utf-8": "grün 你好 🎉",
    "utf-8-sig": "grün",
    "utf-16": "grün 你好",
    "utf-16-le": "plain letters",
    "utf-16-be": "plain letters",
    "utf-32": "grün",
    "gb18030": "你好世界、这是一个测试。今天天气很好、我们去公园。",
    "gbk": "合同编号 甲方与乙方签订本协议。",
    "shift_jis": "これはテストです。日本語の文章を読みます。",
    "big5": "這是繁體中文的測試文章、內容很短。",
    "euc_kr": "안녕하세요 이것은 한국어 문장입니다",
    "cp1252": "Crème brûlée für zwölf €",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_encodings_are_told(encoding: str) -> None:
    """By mark, by validity, by what they would read as."""
    assert decoded(TEXTS[encoding].encode(encoding)) == TEXTS[encoding]


def test_broken_utf8_stays_utf8() -> None:
    """A bad byte does not turn a whole text into another encoding."""
    assert decoded("größer und schöner über alles, äöüß".encode() + b"\xff") == (
        "größer und schöner über alles, äöüß\ufffd"
    )
    assert decoded(b"") == ""


def test_kinds_are_told_by_extension_then_by_mime_type() -> None:
    """As in Dify; other text types are text."""
    assert read(b"x", "A.TXT", "application/pdf") == "x"
    assert read(b"{}", "noname", "application/json; charset=utf-8") == "{}"
    assert read(b"x", "a.unheard", "text/x-anything") == "x"
    for name, mime, says in (
        ("a.exe", None, "Unsupported Extension Type: .exe"),
        ("", "image/png", "Unsupported MIME type: image/png"),
        ("", None, "Unable to determine file type"),
    ):
        with pytest.raises(Failed, match=says) as caught:
            reader_of(name, mime)
        assert caught.value.type == "UnsupportedFileTypeError"
    assert len(READERS) >= 75


PLAIN = [
    ("a.json", b'{"a":["\xc3\xa9"]}', '{\n  "a": [\n    "é"\n  ]\n}'),
    ("a.yaml", b"b: [1, {c: x}]\na: 2\n---\nz", "b:\n- 1\n- c: x\na: 2\n--- z\n...\n"),
    ("a.properties", b"# c\na=1\nb : 2\n\nc", "# c\na: 1\nb: 2\n\nc: "),
    ("a.csv", b'a,"b\nc"\n1,2', "| a | b c |\n| - | --- |\n| 1 | 2 |\n"),
    ("a.tsv", b"a\tb\n", "| a | b |\n| - | - |\n"),
    ("a.csv", b"", ""),
    (
        "a.html",
        b"<html><head><title>T</title><style>s</style></head><body><p>a <b>b</b></p>"
        b"<script>x</script><div>c&amp;d</div>",
        "T\na\nb\nc&d",
    ),
    ("a.html", "<meta charset=gbk><p>你好".encode("gbk"), "你好"),
    (
        "a.vtt",
        b"WEBVTT\n\nNOTE x\n\n1\n00:01.000 --> 00:02.000\n<v Ann>Hi <i>you</i>\n\n"
        b"00:02.000 --> 00:03.000\n<v Ann>there\n\n00:03.000 --> 00:04.000\nno voice\n",
        'Ann "Hi you there"\n "no voice"',
    ),
    (
        "a.srt",
        b"1\r\n00:00:01,0 --> 00:00:02,0\r\nHello\r\nyou\r\n\r\n2\r\n00 --> 01\r\nBye",
        "Hello\nyou\nBye",
    ),
    ("a.eml", b"Subject: s\nContent-Type: text/html; charset=nonsense\n\n<p>hi<p>you", "hi\nyou"),
    ("a.eml", b"Subject: s\n\nhi\n", "hi\n"),
    ("a.py", b"x = 1\n", "x = 1\n"),
]


@pytest.mark.parametrize(("name", "data", "text"), PLAIN)
def test_kinds_of_text(name: str, data: bytes, text: str) -> None:
    """What each is as text."""
    assert read(data, name) == text


def made_docx() -> bytes:
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_paragraph("before")
    table = document.add_table(rows=2, cols=2)
    table.cell(0, 0).text = "a\nb"
    table.cell(1, 1).text = "z"
    document.add_table(rows=1, cols=1)
    document.add_paragraph("after")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def made_xlsx() -> bytes:
    import datetime

    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["n", "day"], [1.0, datetime.datetime(2024, 1, 2)], [None], ["x\ny", 1.5]):
        book.active.append(row)
    book.create_sheet("empty")
    book.create_sheet("two").append(["q"])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def made_pdf() -> bytes:
    """The smallest PDF that says something."""
    stream = b"BT /F1 12 Tf 20 20 Td (Hello PDF) Tj ET"
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    objects = [b"%d 0 obj%b endobj\n" % (at, body) for at, body in enumerate(bodies, 1)]
    return b"%PDF-1.4\n" + b"".join(objects) + b"trailer<</Root 1 0 R/Size 6>>\n%%EOF"


PPTX = {
    f"ppt/slides/slide{n}.xml": '<p xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main">'
    f"<a:p><a:r><a:t>slide</a:t></a:r><a:r><a:t> {n}</a:t></a:r></a:p><a:p/></p>"
    for n in (10, 2, 1)
}
ODT = {
    "content.xml": '<o xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0">'
    "<text:h>Head</text:h><text:p>a<text:tab/>b<text:span>c</text:span>d</text:p></o>"
}
EPUB = {
    "META-INF/container.xml": '<c xmlns="urn:x"><rootfiles><rootfile full-path="O/p.opf"/>'
    "</rootfiles></c>",
    "O/p.opf": '<package xmlns="urn:y"><manifest><item id="b" href="b%20.html"/>'
    '<item id="a" href="a.html"/></manifest><spine><itemref idref="b"/><itemref idref="a"/>'
    '<itemref idref="none"/></spine></package>',
    "O/a.html": "<p>second",
    "O/b .html": "<p>first",
}

OFFICE: list[tuple[str, Callable[[], bytes], str]] = [
    ("a.docx", made_docx, "before\n| a<br>b |  |\n| --- | --- |\n|  | z |\n\nafter"),
    (
        "a.xlsx",
        made_xlsx,
        "| n | day |\n| - | --- |\n| 1 | 2024-01-02 |\n| x y | 1.5 |\n\n| q |\n| - |\n\n",
    ),
    ("a.pdf", made_pdf, "Hello PDF"),
    ("a.pptx", lambda: zipped(PPTX), "slide 1\n\nslide 2\n\nslide 10"),
    ("a.odt", lambda: zipped(ODT), "Head\na\tbcd"),
    ("a.epub", lambda: zipped(EPUB), "first\nsecond"),
]


@pytest.mark.slow
async def test_office_documents_in_a_worker() -> None:
    """Each library works inside, where nothing can be loaded from the file system."""
    async with Sandbox() as sandbox:
        for name, make, text in OFFICE:
            assert await sandbox.text_of(make(), name, None) == text, name


def bomb_docx() -> bytes:
    return zipped({"word/document.xml": b"\0" * (257 << 20)})


LAUGHS = (
    b'<!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "&%c;&%c;">' % (n + 1, n, n) for n in range(97, 120))
    + b"]><x>&x;</x>"
)

HARMFUL: list[tuple[str, Callable[[], bytes], str]] = [
    ("a.docx", bomb_docx, "unpacks to more than"),
    ("a.xlsx", bomb_docx, "unpacks to more than"),
    ("a.epub", lambda: zipped({str(n): "" for n in range(20_001)}), "more than 20000 parts"),
    ("a.odt", lambda: zipped({"content.xml": LAUGHS}), "XML entities"),
    (
        "a.xlsx",
        lambda: zipped({"[Content_Types].xml": LAUGHS, "xl/workbook.xml": LAUGHS}),
        "cannot be read",
    ),
    ("a.docx", lambda: b"PK\x03\x04 broken", "cannot be read"),
    ("a.pdf", lambda: b"%PDF-1.7 broken", "cannot be read"),
    ("a.json", lambda: b"[" * 1_000_000, "cannot be read"),
    ("a.json", lambda: b"{", "cannot be read"),
    ("a.yaml", lambda: b"a: &a [x]\nb: !!python/object/apply:os.system [id]", "cannot be read"),
    ("a.html", lambda: b"<div>" * 200_000 + b"x", ""),
    ("a.txt", lambda: b"x" * 3_000_000, "larger than"),
]


@pytest.mark.slow
async def test_harmful_documents_end_in_clear_errors() -> None:
    """Within time and memory; the loop stays on time, and the next document is read."""
    import trio

    limits = CallLimits(time_s=2, memory_bytes=512 << 20, input_bytes=8 << 20, output_bytes=2 << 20)
    async with Sandbox(SandboxOptions(documents=limits)) as sandbox:
        for name, make, says in HARMFUL:
            data = await trio.to_thread.run_sync(make)

            async def read(name: str = name, data: bytes = data, says: str = says) -> None:
                text, error = await outcome(sandbox.text_of(data, name, None))
                assert says in error if says else text is not None or error, name

            assert await keeps_time(read), name
            assert await sandbox.text_of(b"x", "a.txt", None) == "x"


def test_archives_are_measured_before_they_are_opened() -> None:
    """By what their entries say, which is all that is ever unpacked of them."""
    assert checked(zipped({"a": b"x"}))
    with pytest.raises(zipfile.BadZipFile):
        checked(b"no zip")


@pytest.mark.slow
async def test_a_missing_library_is_named() -> None:
    """With the extra that brings it."""
    from server.sandbox.document_text import work

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pypdfium2", None)
        with pytest.raises(Failed, match=r"pip install 'triolet\[documents\]'"):
            work({"name": "a.pdf", "mime_type": None}, b"")
