"""Which replicas a pool has, whatever its sources say and whoever adds and removes by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.config import PoolConfig, ReplicaConfig
from server.membership import Membership

URLS = ("http://a:1", "http://b:1", "http://c:1/base", "http://many:1")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1")
FILE = "/replicas.toml"


def replica(url: str, **options: object) -> ReplicaConfig:
    return ReplicaConfig(url=url, resolve="many" in url, **options)  # type: ignore[arg-type]


def pool(*urls: str, model: str = "m", file: str | None = None) -> PoolConfig:
    return PoolConfig(model=model, replicas=tuple(map(replica, urls)), replicas_file=file)


def names(membership: Membership, model: str = "m") -> list[str]:
    found = next(one for one in membership.pools if one.model == model)
    return [member.name for member in membership.members(found)]


def test_the_order_of_the_sources() -> None:
    """Its own list first, then the file, then what was added; each once."""
    membership = Membership([pool("http://b:1", file=FILE)])
    membership.add("m", replica("http://c:1/base"))
    membership.listed(FILE, [replica("http://a:1"), replica("http://b:1", max_in_flight=3)])
    assert names(membership) == ["http://b:1", "http://a:1", "http://c:1/base"]
    [first, *_] = membership.members(membership.pools[0])
    assert first.config.max_in_flight is None, "the pool's own list is the one that counts"
    assert membership.files == {FILE}


def test_a_name_stands_for_its_addresses() -> None:
    """Each address is a member of its own, called by it, asked by the name; none before a look."""
    membership = Membership([pool("http://many:1", "http://a:1")])
    assert membership.hosts == {"many"}
    assert names(membership) == ["http://a:1"]
    membership.resolved("many", ("10.0.0.1", "fd00::1"))
    assert names(membership) == ["http://10.0.0.1:1", "http://[fd00::1]:1", "http://a:1"]
    first, *_ = membership.members(membership.pools[0])
    assert first.origin.authority == "many:1"
    membership.resolved("many", ("10.0.0.2",))
    assert names(membership) == ["http://10.0.0.2:1", "http://a:1"]


def test_one_address_and_the_name() -> None:
    """An address can be removed alone and stays away; the name's URL removes all of them."""
    membership = Membership([pool("http://many:1")])
    membership.resolved("many", ("10.0.0.1", "10.0.0.2"))
    assert membership.remove("m", "http://10.0.0.1:1")
    assert names(membership) == ["http://10.0.0.2:1"]
    assert membership.add("m", replica("http://10.0.0.1:1"))
    assert names(membership) == ["http://10.0.0.1:1", "http://10.0.0.2:1"]
    assert membership.remove("m", "http://many:1")
    assert names(membership) == []
    assert not membership.remove("m", "http://10.0.0.2:1"), "it is no member any more"


def test_an_address_that_was_put_back_is_the_names_own() -> None:
    """It goes when the name has it no longer, as if nobody had touched it."""
    membership = Membership([pool("http://many:1")])
    membership.resolved("many", ("10.0.0.1",))
    membership.remove("m", "http://10.0.0.1:1")
    membership.add("m", replica("http://10.0.0.1:1"))
    membership.resolved("many", ("10.0.0.2",))
    assert names(membership) == ["http://10.0.0.2:1"]


def test_a_name_that_was_never_found_can_be_removed() -> None:
    """Or a typing error could only be mended in the file."""
    membership = Membership([pool("http://many:1")])
    assert membership.remove("m", "http://many:1")
    membership.resolved("many", ("10.0.0.1",))
    assert names(membership) == []


def test_removed_stays_removed() -> None:
    """Whoever lists it: the configuration read again, the file, or both; until it is added."""
    membership = Membership([pool("http://a:1", file=FILE)])
    assert membership.remove("m", "http://a:1")
    membership.configure([pool("http://a:1", "http://b:1", file=FILE)])
    membership.listed(FILE, [replica("http://a:1")])
    assert names(membership) == ["http://b:1"]
    assert not membership.remove("m", "http://a:1")
    assert membership.add("m", replica("http://a:1"))
    assert names(membership) == ["http://a:1", "http://b:1"]


def test_what_was_added_and_is_listed_later_can_be_removed() -> None:
    """Both sources have it; one removal is enough."""
    membership = Membership([pool("http://b:1", file=FILE)])
    assert membership.add("m", replica("http://a:1"))
    membership.listed(FILE, [replica("http://a:1")])
    assert membership.remove("m", "http://a:1")
    assert names(membership) == ["http://b:1"]


def test_added_stays_added() -> None:
    """The configuration is read again, the model goes and comes back."""
    membership = Membership([pool("http://b:1")])
    assert membership.add("m", replica("http://a:1", max_in_flight=2))
    assert not membership.add("m", replica("http://a:1"))
    membership.configure([pool("http://b:1", model="other")])
    membership.configure([pool("http://c:1")])
    assert names(membership) == ["http://c:1", "http://a:1"]
    assert membership.members(membership.pools[0])[1].config.max_in_flight == 2


def test_what_is_coming_knows_what_there_is() -> None:
    """Its names and files can be looked up while the old pools are served as they were; what is
    added and removed meanwhile holds for it too."""
    membership = Membership([pool("http://a:1")])
    coming = membership.coming([pool("http://many:1", file=FILE)])
    membership.add("m", replica("http://c:1/base"))
    membership.resolved("many", ("10.0.0.1",))
    membership.listed(FILE, [replica("http://b:1")])
    assert names(membership) == ["http://a:1", "http://c:1/base"]
    expected = ["http://10.0.0.1:1", "http://b:1", "http://c:1/base"]
    assert names(coming) == expected
    membership.configure(coming.pools)
    assert names(membership) == expected


def test_models_apart() -> None:
    """What is added to one, or removed from it, leaves the others as they are."""
    membership = Membership([pool("http://a:1"), pool("http://a:1", model="n")])
    membership.remove("m", "http://a:1")
    membership.add("n", replica("http://b:1"))
    assert (names(membership), names(membership, "n")) == ([], ["http://a:1", "http://b:1"])


def test_a_model_nobody_configured() -> None:
    """Both say so by KeyError."""
    membership = Membership([pool("http://a:1")])
    with pytest.raises(KeyError):
        membership.add("none", replica("http://a:1"))
    with pytest.raises(KeyError):
        membership.remove("none", "http://a:1")


@dataclass
class Expected:
    """The same in the plainest words: what lists a URL, and which were removed."""

    configured: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)

    @property
    def members(self) -> set[str]:
        return (self.configured | self.listed | self.added) - self.removed


PLAIN = st.sampled_from(URLS[:3])


class AnyHistory(RuleBasedStateMachine):
    """Any order of changes, checked against sets."""

    def __init__(self) -> None:
        super().__init__()
        self.membership = Membership([pool(file=FILE)])
        self.expected = Expected()

    @rule(urls=st.sets(PLAIN))
    def configure(self, urls: set[str]) -> None:
        self.membership.configure([pool(*sorted(urls), file=FILE)])
        self.expected.configured = urls

    @rule(urls=st.lists(PLAIN, max_size=4))
    def list_in_file(self, urls: list[str]) -> None:
        self.membership.listed(FILE, [replica(url) for url in urls])
        self.expected.listed = set(urls)

    @rule(url=PLAIN)
    def add(self, url: str) -> None:
        was_member = url in self.expected.members
        assert self.membership.add("m", replica(url)) == (not was_member)
        self.expected.removed.discard(url)
        if url not in self.expected.configured | self.expected.listed:
            self.expected.added.add(url)

    @rule(url=PLAIN)
    def remove(self, url: str) -> None:
        assert self.membership.remove("m", url) == (url in self.expected.members)
        if url in self.expected.members:
            self.expected.removed.add(url)
            self.expected.added.discard(url)

    @invariant()
    def members_are_those(self) -> None:
        found = names(self.membership)
        assert len(found) == len(set(found))
        assert set(found) == self.expected.members


TestAnyHistory = AnyHistory.TestCase


@given(
    st.lists(st.sampled_from(URLS), unique=True),
    st.lists(st.sampled_from(URLS)),
    st.lists(st.sampled_from(ADDRESSES), unique=True),
    st.lists(st.sampled_from([*URLS, "http://10.0.0.1:1"]), unique=True),
)
def test_each_once_and_none_that_was_removed(
    configured: list[str], listed: list[str], addresses: list[str], removed: list[str]
) -> None:
    """However the sources overlap, names that resolve included."""
    membership = Membership([pool(*configured, file=FILE)])
    membership.listed(FILE, [replica(url) for url in listed])
    membership.resolved("many", addresses)
    gone = {url for url in removed if membership.remove("m", url)}
    found = names(membership)
    assert len(found) == len(set(found))
    assert not gone & set(found)
    resolving = "http://many:1" in {*configured, *listed} and "http://many:1" not in gone
    shown = [name for name in found if any(part in name for part in ADDRESSES)]
    assert len(shown) == (len(set(addresses)) - ("http://10.0.0.1:1" in gone) if resolving else 0)
