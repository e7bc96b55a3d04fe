"""Links within the documentation lead somewhere, and examples of it can be used."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from server.cli import main
from server.config import ConfigError, load
from tests.docs.pages import ROOT, Link, anchors, code_blocks, links, pages

README = ROOT / "README.md"


def _is_internal(link: Link) -> bool:
    return "://" not in link.target and not link.target.startswith("mailto:")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_resolve(page: Path) -> None:
    """Every relative link names a file of the tree and a heading of that file."""
    for link in filter(_is_internal, links(page)):
        name, _, fragment = link.target.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link.target} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link.target} leads out of the tree"
        if fragment:
            assert fragment in anchors(target), f"{link.target}: no such heading"


def test_links_are_found() -> None:
    """The test above has something to look at."""
    assert len(links(README)) > 10
    assert Link(README, "docs/reference/config.md") in links(README)


def test_every_page_can_be_reached() -> None:
    """From the README, by following links, one comes to every page."""
    reached, to_visit = set[Path](), [README]
    while to_visit:
        page = to_visit.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        targets = (link.target.partition("#")[0] for link in filter(_is_internal, links(page)))
        to_visit += [(page.parent / target).resolve() for target in targets if target]
    generated = {ROOT / "docs" / "design" / "relay-benchmark.md"}
    assert set(pages()) - reached - generated == set()


def test_readme_is_under_two_screens() -> None:
    """The README stays short."""
    assert len(README.read_text(encoding="utf-8").splitlines()) < 120


def test_readme_has_the_two_commands_and_the_table_marks() -> None:
    """The README names the two commands, and keeps the place of the benchmark's table."""
    text = README.read_text(encoding="utf-8")
    assert "scripts/serve" in text
    assert "scripts/test" in text
    before, _, rest = text.partition("<!-- relay-benchmark -->")
    assert before
    assert "<!-- /relay-benchmark -->" in rest


def _configurations() -> list[tuple[Path, str]]:
    """The TOML blocks that are whole files: those with a table or an address."""
    blocks = [(page, block) for page in pages() for block in code_blocks(page, "toml")]
    return [(page, block) for page, block in blocks if "[[pool]]" in block or "listen" in block]


@pytest.mark.parametrize(
    ("page", "block"),
    _configurations(),
    ids=[f"{page.name}-{number}" for number, (page, _) in enumerate(_configurations())],
)
def test_configuration_examples_load(page: Path, block: str, tmp_path: Path) -> None:
    """Every configuration shown is a valid one, apart from the files that it names."""
    cert = tmp_path / "some.pem"
    cert.write_text("a certificate")
    (tmp_path / "replicas.toml").write_text("replicas = []")
    for name in ("cert.pem", "key.pem"):
        block = block.replace(f"/etc/triolet/{name}", str(cert))
    file = tmp_path / "triolet.toml"
    file.write_text(block)
    try:
        config = load(str(file), environ={"GPU_KEY": "k", "GPU_3_KEY": "k"}, flags={})
    except ConfigError as error:
        pytest.fail(f"{page.name}: {error}")
    assert config.listen


def test_the_readme_example_means_what_it_says(tmp_path: Path) -> None:
    """The README's example has a pool with an alias, two replicas and the documented limits."""
    [block] = code_blocks(README, "toml")
    file = tmp_path / "triolet.toml"
    file.write_text(block)
    [pool] = load(str(file), environ={}, flags={}).pool
    assert (pool.model, pool.served_model) == ("qwen3-8b", "Qwen/Qwen3-8B")
    assert [replica.max_in_flight for replica in pool.replicas] == [None, 64]
    assert pool.timeouts.first_byte_s == 120


def test_json_examples_are_json() -> None:
    """What is shown as JSON can be decoded."""
    blocks = [block for page in pages() for block in code_blocks(page, "json")]
    assert blocks
    for block in blocks:
        msgspec.json.decode(block)


def test_python_examples_compile() -> None:
    """What is shown as Python is Python."""
    blocks = [(page, block) for page in pages() for block in code_blocks(page, "python")]
    assert blocks
    for page, block in blocks:
        compile(block, str(page), "exec")


@pytest.mark.parametrize("arguments", [["serve"], ["check-config"], ["replica"]])
def test_commands_shown_have_help(arguments: list[str]) -> None:
    """The commands that the documentation tells to run answer to --help."""
    result = CliRunner().invoke(main, [*arguments, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
