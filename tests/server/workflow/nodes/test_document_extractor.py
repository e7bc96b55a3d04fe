"""Document extractor nodes: a file gives a text, files give texts."""

from __future__ import annotations

import pytest

from server.workflow.node import NodeError
from server.workflow.services import CodeFailed, ServiceFailed
from server.workflow.values import File
from tests.server.workflow.fakes import FakeRun, execute, node


class Store:
    """Files whose bytes are their names."""

    async def read(self, file: File, most_bytes: int) -> bytes:
        if file.name == "gone":
            raise ServiceFailed("not there", "FileDownloadError")
        return (file.name or "").encode()


class Reader:
    """Documents whose text says how it was asked."""

    async def text_of(self, content: bytes, name: str, mime_type: str | None) -> str:
        if content == b"bad":
            raise CodeFailed("Unsupported Extension Type: .bad", "UnsupportedFileTypeError")
        return f"{content.decode()} as {name} {mime_type}"


def file(name: str | None, extension: str | None = None) -> File:
    return File(type="document", transfer_method="local_file", name=name, extension=extension)


def run(value: object) -> FakeRun:
    return FakeRun({"start": {"f": value}}, files=Store(), documents=Reader())


NODE = node("document-extractor", {"variable_selector": ["start", "f"]})


async def test_a_file_is_a_text_and_files_are_texts() -> None:
    """The extension that is known goes before the one of the name."""
    result = await execute(NODE, run(file("a.pdf", ".pdf")))
    assert result.outputs == {"text": "a.pdf as a.pdf None"}
    result = await execute(NODE, run([file("a", ".md"), None, file("b.txt")]))
    assert result.outputs == {"text": ["a as a.md None", "b.txt as b.txt None"]}
    assert result.inputs == {"variable_selector": ["start", "f"]}


@pytest.mark.parametrize("value", [[], None, ""])
async def test_nothing_there_is_no_text(value: object) -> None:
    """As in Dify: a success without texts."""
    assert (await execute(NODE, run(value))).outputs == {"text": []}


async def test_what_is_no_file_fails() -> None:
    """With Dify's words."""
    with pytest.raises(NodeError, match="is not an ArrayFileSegment"):
        await execute(NODE, run("text"))
    with pytest.raises(NodeError, match=r"File variable not found for selector: \['start', 'f'\]"):
        await execute(NODE, FakeRun())


@pytest.mark.parametrize(
    ("name", "kind"), [("bad", "UnsupportedFileTypeError"), ("gone", "FileDownloadError")]
)
async def test_documents_that_cannot_be_read_fail_the_node(name: str, kind: str) -> None:
    """With the words and the type of who could not."""
    with pytest.raises(NodeError) as caught:
        await execute(NODE, run([file(name)]))
    assert caught.value.type == kind
    assert caught.value.process_data == {"documents": [file(name)]}
