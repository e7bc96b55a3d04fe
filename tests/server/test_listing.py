"""Files that list replicas: read when they change and at no other time; a wrong one is refused."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from balancer.probes import steady
from server.config import ReplicaConfig, load_replicas
from server.listing import ListingWatch


def read(path: str) -> tuple[ReplicaConfig, ...]:
    return load_replicas(path, environ={})


class Watched:
    """A watch of one file, and what it told."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.told: list[list[str]] = []
        self.reads = 0
        self._told = trio.Event()
        self.watch = ListingWatch(self._changed, self._read, interval_s=1.0)
        self.watch.watch([str(file)])

    def _read(self, path: str) -> tuple[ReplicaConfig, ...]:
        self.reads += 1
        return read(path)

    def _changed(self, path: str, replicas: tuple[ReplicaConfig, ...]) -> None:
        assert path == str(self.file)
        self.told.append([one.url for one in replicas])
        self._told.set()

    async def next_told(self) -> None:
        """Wait for the next one."""
        self._told = trio.Event()
        await self._told.wait()

    def write(self, *urls: str) -> None:
        """Replace it, as a careful program does."""
        new = self.file.with_suffix(".new")
        new.write_text(f"replicas = {list(urls)}\n")
        os.replace(new, self.file)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "replicas.toml")


async def test_told_once_for_each_change(watched: Watched) -> None:
    """The first look, a new content, and nothing while it stays the same."""
    watched.write("http://a:1")
    await watched.watch.look()
    await watched.watch.look()
    assert watched.told == [["http://a:1"]]
    watched.write("http://a:1", "http://b:1")
    await watched.watch.look()
    assert watched.told[1:] == [["http://a:1", "http://b:1"]]
    watched.write()
    await watched.watch.look()
    assert watched.told[2:] == [[]]
    assert watched.reads == 3


async def test_a_file_written_in_place(watched: Watched) -> None:
    """An editor that keeps the inode changes the size or the time."""
    watched.file.write_text('replicas = ["http://a:1"]\n')
    os.utime(watched.file, ns=(0, 0))
    await watched.watch.look()
    watched.file.write_text('replicas = ["http://b:1"]\n')
    await watched.watch.look()
    assert watched.told == [["http://a:1"], ["http://b:1"]]


@pytest.mark.parametrize("text", ["replicas = [\n", "replicas = 1\n", "other = 1\n", "\xff", None])
async def test_a_wrong_file_changes_nothing(
    watched: Watched, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, with what is wrong; the next good content is taken."""
    watched.write("http://a:1")
    await watched.watch.look()
    if text is None:
        watched.file.unlink()
    else:
        watched.file.write_bytes(text.encode("latin-1"))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await watched.watch.look()
    assert watched.told == [["http://a:1"]]
    [line] = caplog.messages
    assert line.startswith(f"the replicas of {watched.file} stay as they are:\nfile {watched.file}")
    watched.write("http://b:1")
    await watched.watch.look()
    assert watched.told[1:] == [["http://b:1"]]


async def test_a_file_that_was_never_there(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """That a pool stays empty for it is said as well; once it is there it is read."""
    with caplog.at_level(logging.ERROR):
        await watched.watch.look()
        await watched.watch.look()
    [line] = caplog.messages
    assert "cannot be read" in line
    watched.write("http://a:1")
    await watched.watch.look()
    assert watched.told == [["http://a:1"]]


async def test_json(tmp_path: Path) -> None:
    """What other programs write more easily, by the name's ending."""
    watched = Watched(tmp_path / "replicas.json")
    watched.file.write_text('{"replicas": [{"url": "http://a:1", "max_in_flight": 2}]}')
    await watched.watch.look()
    assert watched.told == [["http://a:1"]]


async def test_no_longer_watched(watched: Watched) -> None:
    """It is not read any more; watched again, it is told again."""
    watched.write("http://a:1")
    await watched.watch.look()
    watched.watch.watch([])
    watched.write("http://b:1")
    await watched.watch.look()
    assert len(watched.told) == 1
    watched.watch.watch([str(watched.file)])
    await watched.watch.look()
    assert watched.told[1:] == [["http://b:1"]]


async def test_dropped_while_it_is_read(watched: Watched) -> None:
    """What a pool that is gone had listed is told to nobody."""
    watched.write("http://a:1")
    reading = watched._read

    def read_and_drop(path: str) -> tuple[ReplicaConfig, ...]:
        trio.from_thread.run_sync(watched.watch.watch, [])
        return reading(path)

    watched.watch = ListingWatch(watched._changed, read_and_drop)
    watched.watch.watch([str(watched.file)])
    await watched.watch.look()
    assert watched.told == []


async def test_looks_again_and_again(
    watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    """Until it is cancelled, each change is told."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.watch.run)
        for number in range(1, 4):
            watched.write(f"http://a:{number}")
            await watched.next_told()
            assert watched.told[-1] == [f"http://a:{number}"]
        nursery.cancel_scope.cancel()


async def test_a_file_that_hangs_holds_up_no_end(watched: Watched) -> None:
    """Reading it can take for ever, on a file system that is gone."""
    hangs, reading = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def read_for_ever(path: str) -> tuple[ReplicaConfig, ...]:
        token.run_sync_soon(reading.set)
        hangs.wait()
        return ()

    watched.watch._read = read_for_ever
    watched.write("http://a:1")
    try:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watched.watch.run)
                await reading.wait()
                nursery.cancel_scope.cancel()
    finally:
        hangs.set()


async def test_an_error_that_nobody_foresaw(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the file is looked at again."""
    monkeypatch.setattr(steady, "_PAUSE_S", 0.01)
    truly = watched.watch._changed

    def fail(path: str, replicas: tuple[ReplicaConfig, ...]) -> None:
        watched.watch._changed = truly
        raise RuntimeError("nobody foresaw this")

    watched.watch._changed = fail
    watched.write("http://a:1")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.watch.run)
            await watched.next_told()
            nursery.cancel_scope.cancel()
    assert watched.told == [["http://a:1"]]
    assert "nobody foresaw this" in caplog.text
