"""Knowledge bases: what is put in is found, filtered, bounded, and can be taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.knowledge.bases import KnowledgeBases
from server.knowledge.filters import OPERATORS, compile_filter
from server.knowledge.folder import load_folder
from server.workflow.app import Bindings
from server.workflow.node import Run
from server.workflow.services import Query, ServiceFailed
from tests.server.workflow.fakes import FakeRun, app, services


def a_run(**knowledge: str) -> FakeRun:
    bound = app(bindings=Bindings(knowledge=knowledge))
    return FakeRun(run=Run(id="r", app=bound, services=services()))


def filled() -> KnowledgeBases:
    bases = KnowledgeBases()
    bases.add("pets", "cats", "Cats purr. Cats sleep all day.", {"kind": "cat", "year": 2020})
    bases.add("pets", "dogs", "Dogs bark at cats and the postman.", {"kind": "dog", "year": 2023})
    bases.add("pets", "fish", "Fish swim.", {"kind": "fish"})
    bases.add("更", "调度", "副本的调度与检索")
    return bases


async def names(bases: KnowledgeBases, text: str, *ids: str, **how: Any) -> list[str]:
    query = Query(text=text, dataset_ids=ids or ("pets",), **how)
    return [passage.document_name for passage in await bases.retrieve(query, a_run())]


async def test_best_come_first() -> None:
    """More of rarer words counts more; what has none of them is not found."""
    bases = filled()
    assert await names(bases, "cats") == ["cats", "dogs"]
    assert await names(bases, "does the postman have cats?") == ["dogs", "cats"]
    assert await names(bases, "elephants") == []
    assert await names(bases, "cats", top_k=1) == ["cats"]


async def test_words_of_two_characters_are_found() -> None:
    """Chinese without blanks, in a base of its own name, beside another base."""
    bases = filled()
    assert await names(bases, "怎么检索", "更") == ["调度"]
    assert await names(bases, "检索 cats", "更", "pets") == ["调度", "cats", "dogs"]


async def test_scores_are_shares() -> None:
    """Between 0 and 1, so that thresholds of exports mean something."""
    bases = filled()
    found = await bases.retrieve(Query(text="fish swim", dataset_ids=("pets",)), a_run())
    assert 0.9 < found[0].score <= 1
    assert await names(bases, "cats bark loudly", score_threshold=0.7) == ["dogs"]


async def test_bindings_name_the_base() -> None:
    """A dataset's id stands for a base; the passage keeps the id."""
    bases = filled()
    query = Query(text="purr", dataset_ids=("uuid-1",))
    found = await bases.retrieve(query, a_run(**{"uuid-1": "pets"}))
    assert (found[0].dataset_id, found[0].dataset_name) == ("uuid-1", "pets")
    assert await bases.retrieve(query, a_run(**{"*": "pets"}))


async def test_missing_base_is_named() -> None:
    """With the binding that would supply it, and the bases that there are."""
    with pytest.raises(
        ServiceFailed, match=r"bind knowledge:gone to one that is here \(pets, 更\)"
    ):
        await names(filled(), "x", "gone")


async def test_removed_documents_are_gone() -> None:
    """Their words are no longer found, and their room is free."""
    bases = filled()
    before = bases.characters
    (cats, *_) = bases.documents("pets")
    assert bases.remove("pets", cats.id)
    assert not bases.remove("pets", cats.id)
    assert await names(bases, "cats purr") == ["dogs"]
    assert bases.characters == before - len("Cats purr. Cats sleep all day.")


def test_room_is_bounded() -> None:
    """What does not fit is refused whole."""
    bases = KnowledgeBases(most_characters=10)
    bases.add("b", "n", "12345")
    with pytest.raises(ServiceFailed, match="full"):
        bases.add("b", "n", "123456")
    assert len(bases.documents("b")) == 1


async def test_filters_choose_documents() -> None:
    """By their metadata; the document's name is one."""
    bases = filled()

    async def kept(logic: str, *conditions: tuple[str, str, Any]) -> list[str]:
        listed = [
            {"name": name, "comparison_operator": sign, "value": value}
            for name, sign, value in conditions
        ]
        chosen = {"logical_operator": logic, "conditions": listed}
        return sorted(await names(bases, "cats dogs fish swim", filter=chosen))

    assert await kept("and", ("year", ">", "2021")) == ["dogs"]
    assert await kept("and", ("year", "empty", None)) == ["fish"]
    assert await kept("or", ("kind", "is", "cat"), ("year", "after", "1970-01-01")) == [
        "cats",
        "dogs",
    ]
    assert await kept("and", ("kind", "in", "cat, dog"), ("document_name", "is not", "cats")) == [
        "dogs"
    ]
    with pytest.raises(ServiceFailed, match="no operator 'like'"):
        await kept("and", ("kind", "like", "x"))


CASES: list[tuple[str, Any, Any, bool]] = [
    ("contains", "abc", "b", True),
    ("contains", ["a", "b"], "b", True),
    ("not contains", "abc", "x", True),
    ("start with", "abc", "ab", True),
    ("end with", "abc", "ab", False),
    ("is", 5, "5", True),
    ("is not", "a", "a", False),
    ("empty", "a", None, False),
    ("not empty", "a", None, True),
    ("in", "a", ["a", "b"], True),
    ("not in", "a", "b,c", True),
    ("=", "5.0", 5, True),
    ("≠", 5, 6, True),
    (">", 5, "x", False),
    ("<", 5, 6, True),
    ("≥", 5, 5, True),
    ("≤", 6, 5, False),
    ("before", "2024-01-01", "2024-06-01T00:00:00", True),
    ("after", 1704067200, "2024-01-01T00:00:01+00:00", False),
]


@pytest.mark.parametrize(("sign", "actual", "wanted", "holds"), CASES)
def test_operators(sign: str, actual: Any, wanted: Any, holds: bool) -> None:
    """Each operator that exports have."""
    condition = {"name": "f", "comparison_operator": sign, "value": wanted}
    fits = compile_filter({"conditions": [condition]})
    assert fits is not None
    assert fits({"f": actual}) is holds
    assert fits({}) is (sign == "empty")


def test_all_operators_are_tested() -> None:
    """The table above leaves none out."""
    assert {sign for sign, *_ in CASES} == set(OPERATORS)


@given(
    st.lists(st.text(alphabet="ab c。调度", max_size=30), min_size=1, max_size=8), st.integers(0, 7)
)
async def test_removing_is_as_if_it_had_never_been(texts: list[str], which: int) -> None:
    """The index after a removal is the one without the document."""
    bases, without = KnowledgeBases(), KnowledgeBases()
    gone = which % len(texts)
    ids = [bases.add("b", str(number), text) for number, text in enumerate(texts)]
    without.create("b")
    for number, text in enumerate(texts):
        if number != gone:
            without.add("b", str(number), text)
    bases.remove("b", ids[gone])
    query = Query(text="a b 调度 c", dataset_ids=("b",), top_k=8)

    async def found(where: KnowledgeBases) -> set[tuple[str, float]]:
        return {(one.document_name, one.score) for one in await where.retrieve(query, a_run())}

    assert await found(bases) == await found(without)


async def test_large_bases_are_searched_in_a_thread() -> None:
    """The result is the same; the loop is not held."""
    bases = KnowledgeBases()
    for number in range(3000):
        bases.add("big", f"d{number}", f"common word{number}")
    assert (await names(bases, "common word77", "big"))[0] == "d77"


async def test_folder_becomes_bases(tmp_path: Path) -> None:
    """Folders are bases, files documents, their heads metadata; what is unreadable is named."""
    home = tmp_path / "handbook"
    (home / "deep").mkdir(parents=True)
    (home / "deep" / "travel.md").write_text("---\nyear: 2024\ntags: [a]\n---\nTrains are fast.\n")
    (home / "bad.txt").write_bytes(b"\xff\xfe\xff")
    (home / ".hidden.md").write_text("secret")
    (home / "image.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    bases = KnowledgeBases()
    loaded = load_folder(bases, tmp_path)
    assert loaded.documents == 1
    assert "bad.txt" in loaded.faults[0]
    assert bases.names == ["empty", "handbook"]
    found = await bases.retrieve(Query(text="trains", dataset_ids=("handbook",)), a_run())
    assert found[0].content == "Trains are fast."
    assert found[0].document_name == "deep/travel.md"
    assert found[0].metadata["year"] == 2024
    assert await names(bases, "trains", "empty") == []


async def test_fields_are_told_with_examples() -> None:
    """What a filter may name."""
    found = await filled().fields(("pets",), a_run())
    assert found == {"document_name": "cats", "kind": "cat", "year": "2020"}


def test_heads_of_documents_are_read_within_bounds(tmp_path: Path) -> None:
    """A few lines of aliases stand for billions of values: such a head is part of the text."""
    (tmp_path / "b").mkdir()
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    head = "---\n" + "\n".join(lines) + "\n---\n"
    (tmp_path / "b" / "bomb.md").write_text(head + "Trains are fast.")
    (tmp_path / "b" / "date.md").write_text("---\nday: 2024-01-31\n---\nBoats are slow.")
    bases = KnowledgeBases()
    assert load_folder(bases, tmp_path).documents == 2
