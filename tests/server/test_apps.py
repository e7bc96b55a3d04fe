"""The folder of apps: what is saved is loaded, whole or not at all, and by nobody else."""

from __future__ import annotations

import os
import stat
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server import apps as apps_module
from server.apps import AppFolder, AppMissing, FolderError
from server.dify.dsl import DslError, Offers
from server.workflow.app import Bindings
from tests.server.dify.exports import easy, end, sources, start, workflow, written

SMALL = written(workflow(start(), end("start", "x")))
SECRET = Bindings(environment={"KEY": "s3cret"}, tools={"t": {"k": 1}})


@pytest.fixture
def folder(tmp_path: Path) -> AppFolder:
    return AppFolder(tmp_path / "apps")


def test_round_trip(folder: AppFolder) -> None:
    """File and bindings come back as they were; another process reads the same app."""
    app, _ = folder.save(SMALL, SECRET, source="small.yml")
    again = AppFolder(folder.path)
    assert again.load(app.id) == app
    assert again.file(app.id) == SMALL
    assert again.bindings(app.id) == SECRET
    (record,) = again.list()
    assert (record.id, record.name, record.source) == (app.id, "Small", "small.yml")
    assert record.digest == app.digest


@pytest.mark.slow
def test_real_files_make_the_round_trip(folder: AppFolder) -> None:
    """Every real export is kept byte for byte and read back as the same app."""
    for source in sources():
        app, _ = folder.save(source.read(), name=source.file)
        assert folder.file(app.id) == source.read()
        assert AppFolder(folder.path).load(app.id) == app
    assert len(folder.list()) == 73


def test_names_and_ids(folder: AppFolder) -> None:
    """An app is found by name, id, and the beginning of its id."""
    app, _ = folder.save(SMALL)
    other, _ = folder.save(SMALL, name="Other")
    assert folder.load("Small").id == folder.load(app.id).id == folder.load(app.id[:8]).id == app.id
    assert folder.load("Other") == other
    assert [each.name for each in folder.list()] == ["Other", "Small"]
    with pytest.raises(AppMissing, match="no app 'Nobody'"):
        folder.load("Nobody")


def test_a_name_of_two_modes(folder: AppFolder) -> None:
    """Such a name is not enough; the ids are told."""
    folder.save(SMALL)
    folder.save(written(easy("chat")))
    with pytest.raises(AppMissing, match=r"several apps: .*\(workflow\)"):
        folder.load("Small")


def test_import_again_replaces(folder: AppFolder) -> None:
    """The same name is the same app, in its new version; the old files are gone."""
    first, _ = folder.save(SMALL)
    changed = written(workflow(start(), end("start", "y")))
    second, _ = folder.save(changed)
    assert second.id == first.id
    assert second.digest != first.digest
    assert folder.load("Small") == second
    assert len([path for path in (folder.path / first.id).iterdir() if path.is_dir()]) == 1


def test_only_the_owner_may_read(folder: AppFolder) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        app, _ = folder.save(SMALL, SECRET)
    finally:
        os.umask(before)
    for path in (folder.path / app.id).rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((folder.path / app.id).stat().st_mode) == 0o700


def test_a_reader_that_is_overtaken(folder: AppFolder) -> None:
    """Who read the record just before an import replaced the app gets the new version."""
    folder.save(SMALL)
    record = folder.find("Small")
    changed, _ = folder.save(written(workflow(start(), end("start", "y"))))
    app, _ = folder._read(record, Offers())
    assert app == changed


def test_a_crash_leaves_the_old_app(folder: AppFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the record is written the old version counts, whole."""
    first, _ = folder.save(SMALL, SECRET)
    real = apps_module._replace

    def failing(path: Path, data: bytes) -> None:
        if path.name == "record.json":
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(apps_module, "_replace", failing)
    with pytest.raises(FolderError, match="No space left"):
        folder.save(written(workflow(start(), end("start", "y"))))
    again = AppFolder(folder.path)
    assert again.load("Small") == first
    assert again.bindings("Small") == SECRET


def test_what_is_no_app_is_not_saved(folder: AppFolder) -> None:
    """A refused file leaves nothing behind."""
    with pytest.raises(DslError):
        folder.save(b"not: an app")
    assert folder.list() == []
    assert not folder.path.exists()


def test_remove(folder: AppFolder) -> None:
    """A removed app is gone from the disk."""
    app, _ = folder.save(SMALL, SECRET)
    assert folder.remove("Small").id == app.id
    assert list(folder.path.iterdir()) == []
    with pytest.raises(AppMissing):
        folder.remove("Small")


def test_few_are_kept_in_memory(tmp_path: Path) -> None:
    """Beyond its number those used longest ago are read anew."""
    folder = AppFolder(tmp_path, kept=2)
    for name in ("a", "b", "c"):
        folder.save(SMALL, name=name)
    assert folder.load("c") is folder.load("c")
    folder.load("a")
    assert folder.load("a") is folder.load("a")
    assert len(folder._apps._values) == 2


def test_strangers_in_the_folder(folder: AppFolder) -> None:
    """Other files and folders are not apps; a broken record is named."""
    app, _ = folder.save(SMALL)
    (folder.path / "README").write_text("hi")
    (folder.path / str(uuid.uuid4())).mkdir()
    (folder.path / "..odd").mkdir()
    assert [each.id for each in folder.list()] == [app.id]
    (folder.path / app.id / "record.json").write_text("{}")
    with pytest.raises(FolderError, match=r"record\.json"):
        folder.list()
    other, _ = folder.save(SMALL, name="other")
    assert folder.load(other.id).name == "other"


@pytest.mark.slow
def test_imports_of_one_app_at_a_time(folder: AppFolder) -> None:
    """None takes away the version that another has just made."""

    def save_often(number: int) -> None:
        for turn in range(20):
            folder.save(SMALL + f"# {number} {turn}\n".encode())
            folder.report("Small")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(save_often, range(4)))
    home = folder.path / folder.find("Small").id
    assert sum(each.is_dir() for each in home.iterdir()) == 1


def test_a_record_cannot_lead_elsewhere(folder: AppFolder) -> None:
    """A digest that is a path is refused."""
    app, _ = folder.save(SMALL)
    path = folder.path / app.id / "record.json"
    path.write_text(path.read_text().replace(app.digest, "../../etc"))
    with pytest.raises(FolderError):
        folder.load(app.id)


def test_empty_folder(folder: AppFolder) -> None:
    """A folder that is not there yet has no apps."""
    assert folder.list() == []
