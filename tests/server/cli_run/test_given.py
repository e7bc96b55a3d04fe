"""Inputs as they are written on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli_run.given import GivenError, GivenFile, given_event, given_inputs
from server.workflow.app import InputSpec

SPECS = (
    InputSpec(name="q", type="paragraph", required=True),
    InputSpec(name="n", type="number"),
    InputSpec(name="o", type="json_object"),
    InputSpec(name="f", type="file"),
    InputSpec(name="fs", type="file-list"),
    InputSpec(name="s", type="select", options=("a", "b")),
)


def test_each_kind_is_read_as_it_is_declared(tmp_path: Path) -> None:
    """Texts stay texts, even those that look like files or JSON; a list may be given in parts."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF")
    written = [
        "q=@x {1}=2",
        "n=5",
        'o={"a": [1]}',
        f"f=@{path}",
        "fs=http://h/a.png",
        f"fs=@{path}",
    ]
    file = GivenFile(b"%PDF", "a.pdf", "application/pdf")
    assert given_inputs(SPECS, written) == {
        "q": "@x {1}=2",
        "n": "5",
        "o": {"a": [1]},
        "f": file,
        "fs": [{"transfer_method": "remote_url", "url": "http://h/a.png"}, file],
    }


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (["q"], "'q' is not NAME=VALUE"),
        (["z=1", "q=x"], "no input 'z'; it has q (paragraph), n (number)"),
        (["q=1", "q=2"], "'q' is given twice"),
        (["q=1", "o={"], "'o' must be a JSON object"),
        (["q=1", "f=a.pdf"], "write f=@FILE, or its URL"),
        (["q=1", "f=@/no/such"], "/no/such: No such file"),
        ([], "the app needs more: --input q=TEXT"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(written: list[str], message: str) -> None:
    """In one sentence."""
    with pytest.raises(GivenError) as caught:
        given_inputs(SPECS, written)
    assert message in str(caught.value)


def test_examples_fit_the_kind() -> None:
    """What stands behind the name when an input is missing."""
    specs = [
        InputSpec(name=f"i{number}", type=spec.type, required=True, options=spec.options)
        for number, spec in enumerate(SPECS)
    ]
    with pytest.raises(GivenError) as caught:
        given_inputs(specs, [])
    for part in ("i1=NUMBER", "i2='{...}'", "i3=@FILE", "i4=@FILE", "i5=a|b"):
        assert part in str(caught.value)


def test_an_app_without_inputs_says_so() -> None:
    """Where one is given all the same."""
    with pytest.raises(GivenError, match="it takes none"):
        given_inputs((), ["x=1"])


def test_the_fields_of_an_event() -> None:
    """Nobody declares them: JSON is what it says, all else is a text."""
    written = ['message={"text": "a=b"}', "id=7", "ref=main"]
    assert given_event(written) == {"message": {"text": "a=b"}, "id": 7, "ref": "main"}
    with pytest.raises(GivenError, match="is not NAME=VALUE"):
        given_event(["message"])
