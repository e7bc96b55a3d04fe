"""Files as clients name them."""

from __future__ import annotations

from typing import Any

import pytest

from server.workflow.given_files import FileError, FileRules, file_kind, given_file
from server.workflow.values import File


def remote(url: str, **more: Any) -> dict[str, Any]:
    return {"transfer_method": "remote_url", "url": url} | more


def test_a_remote_file_is_named_by_its_url() -> None:
    """Its name, extension, type and kind; nothing is fetched."""
    file = given_file(remote("https://h/d/re%20port.PDF?sig=1#top"), FileRules())
    assert file == File(
        type="document",
        transfer_method="remote_url",
        name="re port.PDF",
        extension=".PDF",
        mime_type="application/pdf",
        url="https://h/d/re%20port.PDF?sig=1#top",
    )


def test_the_kind_that_is_given_counts() -> None:
    """A URL may end in anything; a kind that there is not is guessed."""
    assert given_file(remote("https://h/a", type="image"), FileRules()).type == "image"
    assert given_file(remote("https://h/a.mp3", type="song"), FileRules()).type == "audio"
    assert given_file(remote("https://h"), FileRules()).name is None


def test_an_upload_takes_the_kind_that_is_given() -> None:
    """A client may call an uploaded image a document."""
    kept = File(type="custom", transfer_method="local_file", related_id="1", name="a.x")
    given = {"transfer_method": "local_file", "upload_file_id": "1", "type": "document"}
    assert given_file(given, FileRules(), lambda id: kept).type == "document"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"transfer_method": "carrier_pigeon"},
        {"transfer_method": "local_file"},
        {"transfer_method": "local_file", "upload_file_id": ["1"]},
        {"transfer_method": "remote_url", "url": "ftp://h/a"},
        {"transfer_method": "remote_url", "url": "https://[h/a"},
        {"transfer_method": "remote_url", "url": "https://h/" + "a" * 9000},
        {"transfer_method": "remote_url", "url": 5},
    ],
)
def test_what_names_no_file(given: dict[str, Any]) -> None:
    """Each is refused, whatever is in it."""
    with pytest.raises(FileError):
        given_file(given, FileRules(), lambda id: None)


RULES = FileRules.of(
    {
        "allowed_file_types": ["image", "custom"],
        "allowed_file_extensions": [".ZIP", "tar"],
        "allowed_file_upload_methods": ["remote_url"],
    }
)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://h/a.png", True),
        ("https://h/a.zip", True),
        ("https://h/a.TAR", True),
        ("https://h/a.pdf", False),
        ("https://h/a.exe", False),
        ("https://h/a", False),
    ],
)
def test_rules(url: str, allowed: bool) -> None:
    """Kinds count, and for all other files the extensions, if "custom" is among the kinds."""
    assert RULES.allow(given_file(remote(url), FileRules())) is allowed


def test_transfer_methods_are_rules_too() -> None:
    """An upload is refused where only URLs are taken; what a tool made is not."""
    upload = File(type="image", transfer_method="local_file")
    made = File(type="image", transfer_method="tool_file")
    assert not RULES.allow(upload)
    assert RULES.allow(made)
    assert FileRules.of({"allowed_file_types": None}).allow(upload)


@pytest.mark.parametrize(
    ("name", "mime", "kind"),
    [
        ("a.JPG", None, "image"),
        ("a.docx", "image/png", "document"),
        ("a.bin", "video/x", "video"),
        ("a.bin", "text/x", "custom"),
        (None, None, "custom"),
    ],
)
def test_kinds(name: str | None, mime: str | None, kind: str) -> None:
    """The extension says it, else the MIME type."""
    assert file_kind(name, mime) == kind
