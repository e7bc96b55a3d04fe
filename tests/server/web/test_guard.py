"""Which URLs and addresses the guard lets out: tables, tricks, and no private address ever."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.web.addresses import inside
from server.web.guard import Guard, Rules
from server.web.urls import Refused, parse_url

INSIDE = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.0.1"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "::", "::1", "fe80::1"),
    *("fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::"),
    *("2002:808:808::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "100::1"),
    *("4000::1", "5f00::1", "3fff::1"),
]
OUTSIDE = [
    *("8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1"),
    *("192.167.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::1"),
    *("64:ff9b::808:808",),
]


@pytest.mark.parametrize("address", INSIDE)
def test_inside_addresses_are_refused(address: str) -> None:
    """Each special range, in each disguise, is inside."""
    assert inside(ipaddress.ip_address(address)) is not None
    with pytest.raises(Refused):
        Guard().check("some.name", 80, [address])


@pytest.mark.parametrize("address", OUTSIDE)
def test_outside_addresses_pass(address: str) -> None:
    """The internet is not refused, up to the edges of the ranges."""
    assert inside(ipaddress.ip_address(address)) is None
    assert Guard().check("some.name", 80, [address]) == [address]


PRIVATE = [
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16"),
        *("100.64.0.0/10", "0.0.0.0/8", "224.0.0.0/3", "fc00::/7", "fe80::/10", "ff00::/8"),
        *("::/96", "::ffff:10.0.0.0/104", "64:ff9b::a00:0/104", "2002::/16"),
    )
]


@given(st.data())
def test_no_private_address_ever_passes(data: st.DataObject) -> None:
    """Any address of any private range is refused, alone and among public ones."""
    network = data.draw(st.sampled_from(PRIVATE))
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    address = str(network[offset])
    for addresses in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        with pytest.raises(Refused):
            Guard().check("some.name", 443, addresses)


@given(st.ip_addresses())
def test_what_passes_is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Python's own notion of what is global is never wider than the guard's refusals."""
    if inside(address) is None:
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://example.org", "example.org", 80, "/"),
        ("HTTPS://Example.ORG./a b?c=d e#f", "example.org", 443, "/a%20b?c=d%20e"),
        ("http://example.org:8080?x=1", "example.org", 8080, "/?x=1"),
        ("http://[::1]:99/", "::1", 99, "/"),
        ("http://[0:0::0:1]/", "::1", 80, "/"),
        ("http://bücher.example/ü", "xn--bcher-kva.example", 80, "/%C3%BC"),
        ("http://例え.テスト/", "xn--r8jz45g.xn--zckzah", 80, "/"),
        ("http://ⓔxample.org/", "example.org", 80, "/"),
        ("  http://example.org/a%2Fb  ", "example.org", 80, "/a%2Fb"),
        ("http://127.0.0.1/", "127.0.0.1", 80, "/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "127.0.0.1", 80, "/"),
        ("http://my_host/", "my_host", 80, "/"),
    ],
)
def test_urls_are_read_in_one_way(url: str, host: str, port: int, path: str) -> None:
    """Host, port and path are those that will be connected to and asked for."""
    target = parse_url(url)
    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "//example.org/"),
        *("http:/example.org", "http:example.org", "http://", "http:///path", "javascript:1"),
        *("http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://0x7f.0.0.1/", "http://1.2.3.4.5/", "http://127.0.0.01/", "http://256.1.1.1/"),
        *("http://a@b@example.org/", "http://example.org\\@127.0.0.1/", "http://exa mple.org/"),
        *("http://127.0.0.1\t.example.org/", "http://%31%32%37.0.0.1/", "http://[::1%25eth0]/"),
        *("http://[fe80::1%eth0]/", "http://[127.0.0.1]/", "http://example..org/"),
        *(
            "http://-a.org/",
            "http://example.org:99999/",
            "http://example.org:port/",
            "http://[::1/",
        ),
        "http://" + "a" * 300 + ".org/",
        "http://example.org/" + "a" * 9000,
        "http://exa\x00mple.org/",
        "http://example.org℀.test/",
    ],
)
def test_tricks_are_refused(url: str) -> None:
    """What parsers read differently is not requested at all."""
    with pytest.raises(Refused):
        parse_url(url)


def test_userinfo_is_no_host() -> None:
    """A name before the @ is a user, however much it looks like a host."""
    target = parse_url("http://example.org:80@127.0.0.1:8080/x")
    assert (target.host, target.port, target.userinfo) == ("127.0.0.1", 8080, "example.org:80")
    assert "example.org" not in target.url


@given(st.text(max_size=40), st.sampled_from(["http://", "https://", ""]))
def test_any_text_is_a_target_or_refused(text: str, scheme: str) -> None:
    """No text makes the reader fail in another way, and what is read is plain."""
    try:
        target = parse_url(scheme + text)
    except Refused:
        return
    assert target.host.isascii()
    assert not set(target.host) & set("/\\@?#% \t\r\n")
    assert target.path.startswith("/")
    assert target.path.isprintable()
    assert target.path.isascii()
    again = parse_url(target.url)
    assert (again.host, again.port) == (target.host, target.port)


@pytest.mark.parametrize(
    ("allow", "host", "port", "address", "passes"),
    [
        ("sandbox", "sandbox", 8194, "10.0.0.5", True),
        ("sandbox:8194", "sandbox", 8194, "10.0.0.5", True),
        ("sandbox:8194", "sandbox", 22, "10.0.0.5", False),
        ("http://sandbox:8194/v1", "sandbox", 8194, "10.0.0.5", True),
        ("*.corp.example", "a.b.corp.example", 80, "10.0.0.5", True),
        ("*.corp.example", "corp.example", 80, "10.0.0.5", False),
        ("*.corp.example", "evilcorp.example", 80, "10.0.0.5", False),
        ("10.0.0.0/8", "any.name", 80, "10.9.9.9", True),
        ("10.0.0.0/8", "any.name", 80, "192.168.0.1", False),
        ("10.0.0.0/8", "any.name", 80, "::ffff:10.9.9.9", True),
        ("localhost", "localhost", 80, "127.0.0.1", True),
        ("localhost", "localhost", 80, "::1", True),
        ("::1", "localhost", 80, "::1", True),
        ("[::1]:8080", "::1", 8080, "::1", True),
        ("sandbox", "sandbox", 80, "169.254.169.254", False),
        ("sandbox", "sandbox", 80, "fe80::1", False),
        ("169.254.169.254", "sandbox", 80, "169.254.169.254", True),
    ],
)
def test_allow_lets_in_what_it_names(
    allow: str, host: str, port: int, address: str, passes: bool
) -> None:
    """A name, a name with a port, a wildcard, a network; metadata only by its address."""
    guard = Guard([allow])
    if passes:
        assert guard.check(host, port, [address]) == [address]
    else:
        with pytest.raises(Refused):
            guard.check(host, port, [address])


def test_deny_counts_before_allow() -> None:
    """A denied host or network stays denied, though it is outside or allowed."""
    guard = Guard(["10.0.0.0/8"], ["10.1.0.0/16", "bad.example"])
    assert guard.check("x", 80, ["10.2.0.1"])
    for host, address in (("x", "10.1.0.1"), ("bad.example", "8.8.8.8")):
        with pytest.raises(Refused, match="deny"):
            guard.check(host, 80, [address])


def test_the_message_names_what_would_allow_it() -> None:
    """Who meets the guard is told the kind of address and the entry to add."""
    with pytest.raises(Refused, match=r'db \(10\.0\.0\.1\) is private.*add "db" to \[web\] allow'):
        Guard().check("db", 80, ["10.0.0.1"])
    with pytest.raises(Refused, match=r'link-local.*add "169\.254\.169\.254" to'):
        Guard(["db"]).check("db", 80, ["169.254.169.254"])


@pytest.mark.parametrize("entry", ["", "ftp://x", "a b", "*.", "http://"])
def test_wrong_entries_are_named(entry: str) -> None:
    """An entry that is nothing is an error at the start, not a hole later."""
    with pytest.raises(ValueError):
        Rules.of([entry])
