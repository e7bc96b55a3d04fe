"""The key that a Triolet makes for its admin API: who can read it, where, and for how long."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest
import trio

from server.admin_key import key_file, key_in_files, read_key_file
from server.config import AdminConfig, Config, PoolConfig, ReplicaConfig
from server.main import Triolet


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_only_its_user_can_read_it(tmp_path: Path) -> None:
    """Neither the file nor what lists it is open to others, whatever the umask; gone at the end."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    umask = os.umask(0)
    try:
        with key_in_files([8746, 8747], environ) as key:
            assert len(key) > 40
            for port in (8746, 8747):
                path = key_file(port, environ)
                assert path == str(tmp_path / "triolet" / f"admin-{port}.key")
                assert (mode(path), mode(tmp_path / "triolet")) == (0o600, 0o700)
                assert read_key_file(path) == key
    finally:
        os.umask(umask)
    assert list((tmp_path / "triolet").iterdir()) == []


def test_an_open_directory_is_closed(tmp_path: Path) -> None:
    """One that others may enter is taken from them first."""
    (tmp_path / "triolet").mkdir(mode=0o777)
    (tmp_path / "triolet").chmod(0o777)
    with key_in_files([1], {"XDG_RUNTIME_DIR": str(tmp_path)}):
        assert mode(tmp_path / "triolet") == 0o700


def test_what_was_left_is_replaced(tmp_path: Path) -> None:
    """Of one that was killed; also a link, which is not followed. Each start has a new key."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    target = tmp_path / "target"
    target.write_text("theirs")
    Path(key_file(1, environ)).parent.mkdir(mode=0o700)
    os.symlink(target, key_file(1, environ))
    with key_in_files([1], environ) as first:
        assert target.read_text() == "theirs"
        assert not os.path.islink(key_file(1, environ))
        with key_in_files([1], environ) as second:
            assert first != second
        with key_in_files([1], environ) as third:
            Path(key_file(1, environ)).write_text("a later one's")
            assert third not in (first, second)
    assert read_key_file(key_file(1, environ)) == "a later one's"


def test_without_a_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home directory's cache; a relative path is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / ".cache" / "triolet" / "admin-1.key")
    assert key_file(1, {}) == key_file(1, {"XDG_RUNTIME_DIR": "run"}) == expected
    with key_in_files([1], {}) as key:
        assert read_key_file(expected) == key


def triolet(key: str | None = None) -> tuple[Triolet, io.BytesIO]:
    log = io.BytesIO()
    pools = (PoolConfig(model="m", replicas=(ReplicaConfig(url="http://127.0.0.1:9"),)),)
    listen = ("http://127.0.0.1:0",)
    config = Config(listen=listen, pool=pools, admin=AdminConfig(key=key))
    return Triolet(config, log_stream=log), log


def files(directory: Path) -> list[str]:
    return [str(path) for path in directory.rglob("*.key")]


async def ran(one: Triolet, directory: Path) -> list[str]:
    """Start and stop it; the files that were there meanwhile."""
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: one.run(out=io.StringIO(), task_status=task_status))
        found = files(directory)
        nursery.cancel_scope.cancel()
    return found


async def test_a_triolet_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes one at the start, keeps it out of the log, and takes it along at the end."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, log = triolet()
    [path] = await ran(one, tmp_path)
    assert one.admin.key is not None
    assert path.startswith(str(tmp_path / "triolet" / "admin-"))
    assert one.admin.key not in log.getvalue().decode()
    assert files(tmp_path) == []


async def test_a_triolet_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes it nowhere."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, _ = triolet("s3cret")
    assert await ran(one, tmp_path) == []
    assert one.admin.key == "s3cret"


async def test_it_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it serves all the same, its admin API answers nobody, and the log says what to do."""
    (tmp_path / "triolet").write_text("in the way")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, log = triolet()
    assert await ran(one, tmp_path) == []
    assert one.admin.key is None
    assert "the admin API answers nobody" in log.getvalue().decode()
    assert "set admin.key" in log.getvalue().decode()
