"""The file store: what it keeps, where, for how long, and how much of it."""

from __future__ import annotations

import stat
import uuid
from pathlib import Path

import pytest
import trio
import trio.testing

from server.files import FileSettings, FileStore, _remove, extension_of, kind_of_mime
from server.workflow.services import ServiceFailed, WebFailed, WebRequest, WebResponse
from server.workflow.values import File
from tests.server.web.loopback import until


class FakeWeb:
    """Answers with what a test gives it."""

    def __init__(self, answer: WebResponse | WebFailed | None = None) -> None:
        self.answer = answer
        self.requests: list[WebRequest] = []

    async def send(self, request: WebRequest) -> WebResponse:
        self.requests.append(request)
        assert self.answer is not None
        if isinstance(self.answer, WebFailed):
            raise self.answer
        return self.answer


def answer(status: int, content: bytes) -> WebResponse:
    return WebResponse(status=status, headers=[], content=content, url="http://there/x")


async def settled(files: FileStore) -> None:
    """Wait until what is to be written out is."""
    most = files._settings.memory_bytes
    await until(lambda: not files._more.is_set() and files._in_memory <= most)


async def test_what_is_kept_can_be_read() -> None:
    """The reference says what the file is; its bytes are read within the reader's bound."""
    async with FileStore(FakeWeb()) as files:
        file = files.keep(b"%PDF", name="a b.PDF", mime_type="application/pdf")
        assert (file.type, file.transfer_method, file.name) == ("document", "tool_file", "a b.PDF")
        assert (file.extension, file.size) == (".pdf", 4)
        assert file.related_id is not None
        assert file.url == f"/files/{file.related_id}.pdf"
        assert uuid.UUID(file.related_id).version == 4
        assert await files.read(file, 4) == b"%PDF"
        with pytest.raises(ServiceFailed, match="at most 3 are read"):
            await files.read(file, 3)
        assert files.file(file.related_id, "tool_file") == file
        assert files.upload(b"", name="x", mime_type="").transfer_method == "local_file"


async def test_ids_are_not_to_be_guessed() -> None:
    """No two alike, and an unknown one is a clear error."""
    async with FileStore(FakeWeb()) as files:
        ids = {files.keep(b"", name="x", mime_type="").related_id for _ in range(100)}
        assert len(ids) == 100
        assert files.get("../../etc/passwd") is None
        with pytest.raises(ServiceFailed, match="is not here"):
            files.file("nothing")


async def test_much_goes_to_the_disk_and_is_gone_afterwards() -> None:
    """Memory stays in its bound; the folder is this process's alone and goes with the store."""
    async with FileStore(FakeWeb(), FileSettings(memory_bytes=250)) as files:
        kept = [files.keep(bytes([n]) * 100, name=f"{n}", mime_type="") for n in range(5)]
        await settled(files)
        assert files._in_memory <= 250
        folder = files._folder
        assert folder is not None
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(list(folder.iterdir())) == 3
        for n, file in enumerate(kept):
            assert await files.read(file, 100) == bytes([n]) * 100
            assert file.related_id is not None
            content = await files.content(file.related_id)
            assert content == bytes([n]) * 100
        assert kept[0].related_id is not None
        files.forget(kept[0].related_id)
        await until(lambda: len(list(folder.iterdir())) == 2)
    assert not folder.exists()


async def test_what_was_used_longest_ago_makes_room() -> None:
    """By bytes and by number; reading counts as use."""
    async with FileStore(FakeWeb(), FileSettings(most_bytes=300, most_files=3)) as files:
        first, second, third = (files.keep(bytes(100), name="x", mime_type="") for _ in range(3))
        await files.read(first, 100)
        files.keep(bytes(100), name="x", mime_type="")
        await files.read(first, 100)
        await files.read(third, 100)
        with pytest.raises(ServiceFailed, match="not any more"):
            await files.read(second, 100)
        assert files._bytes == 300


async def test_unused_files_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    """After `keep_s`, counted from the last use."""
    async with FileStore(FakeWeb(), FileSettings(keep_s=100)) as files:
        one = files.keep(b"1", name="x", mime_type="")
        two = files.keep(b"2", name="x", mime_type="")
        autojump_clock.jump(60)
        await files.read(two, 1)
        autojump_clock.jump(60)
        assert await files.read(two, 1) == b"2"
        with pytest.raises(ServiceFailed):
            await files.read(one, 1)


async def test_too_much_is_refused() -> None:
    """One file over its bound, and files that come faster than the disk takes them."""
    settings = FileSettings(most_file_bytes=100, memory_bytes=100)
    async with FileStore(FakeWeb(), settings) as files:
        with pytest.raises(ServiceFailed, match="at most 100 are kept"):
            files.keep(bytes(101), name="x", mime_type="")
        for _ in range(3):
            files.keep(bytes(100), name="x", mime_type="")
        with pytest.raises(ServiceFailed, match="faster than they can be stored"):
            files.keep(bytes(100), name="x", mime_type="")
        await settled(files)
        files.keep(bytes(100), name="x", mime_type="")


async def test_remote_files_come_through_the_web() -> None:
    """Bounded by the reader; what the web refuses or the server lacks is an error of the file."""
    file = File(type="image", transfer_method="remote_url", name="x.png", url="http://there/x.png")
    web = FakeWeb(answer(200, b"png"))
    async with FileStore(web) as files:
        assert await files.read(file, 10) == b"png"
        assert (web.requests[0].url, web.requests[0].most_bytes) == (file.url, 10)
        web.answer = answer(404, b"")
        with pytest.raises(ServiceFailed, match="answered 404"):
            await files.read(file, 10)
        web.answer = WebFailed("refused", "RequestRefused")
        with pytest.raises(ServiceFailed, match=r"'x\.png': refused"):
            await files.read(file, 10)
        with pytest.raises(ServiceFailed, match="no URL"):
            await files.read(File(type="image", transfer_method="remote_url"), 10)


async def test_an_error_passes_through_as_it_is() -> None:
    """What fails in the block is neither wrapped nor lost, and the folder goes."""
    folder: Path | None = None
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012
        async with FileStore(FakeWeb()) as files:
            folder = files._folder
            raise ValueError("mine")
    assert folder is not None
    assert not folder.exists()


def test_what_cannot_be_removed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The task that removes files lives as long as the store: it must not end by an error."""
    _remove(tmp_path / "gone")
    assert not caplog.records
    _remove(tmp_path)
    assert str(tmp_path) in caplog.text


async def test_cancelling_cleans_up() -> None:
    """The folder goes with a cancelled run of the process."""
    folder: Path | None = None
    with trio.move_on_after(0.01) as scope:
        async with FileStore(FakeWeb()) as files:
            folder = files._folder
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert folder is not None
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "mime_type", "expected"),
    [
        ("../../x/../evil.txt", "text/plain", "evil.txt"),
        ("a\\b\\c.doc", "", "c.doc"),
        ("a\x00\r\nb.png", "image/png", "ab.png"),
        ("", "image/png", "file.png"),
        ("x" * 300 + ".txt", "", "x" * 251 + ".txt"),
    ],
)
async def test_names_are_only_names(name: str, mime_type: str, expected: str) -> None:
    """No folders, no control characters, not too long, and never empty."""
    async with FileStore(FakeWeb()) as files:
        assert files.keep(b"", name=name, mime_type=mime_type).name == expected


@pytest.mark.parametrize(
    ("mime_type", "extension", "kind"),
    [
        ("image/png", "", "image"),
        ("audio/mpeg", "", "audio"),
        ("video/mp4", "", "video"),
        ("text/plain; charset=utf-8", "", "document"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "", "document"),
        ("application/octet-stream", ".docx", "document"),
        ("application/octet-stream", ".bin", "custom"),
        ("", "", "custom"),
    ],
)
def test_kinds(mime_type: str, extension: str, kind: str) -> None:
    """Dify's five kinds, from the type, else from the extension."""
    assert kind_of_mime(mime_type, extension) == kind


def test_extensions() -> None:
    """From the name, else from the type, else .bin."""
    assert extension_of("A.TXT") == ".txt"
    assert extension_of("a", "image/png") == ".png"
    assert extension_of("a." + "b" * 30) == ".bin"
