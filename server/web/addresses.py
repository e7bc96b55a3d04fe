"""Which addresses are outside: the internet's, and no others. Pure."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

__all__ = ["Address", "inside"]

Address: TypeAlias = IPv4Address | IPv6Address

_INSIDE_V4: Final = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade private"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
"""IANA's special-purpose registry, wider where in doubt; the first match names it."""

_INSIDE_V6: Final = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("fc00::/7", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "reserved"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All that is assigned for the internet; what is not in it is not outside."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""Networks without IPv4 see the outside's IPv4 addresses here: judged by the address inside."""


def inside(address: Address) -> str | None:
    """What kind of inside an address belongs to, such as "loopback"; None if it is outside."""
    if isinstance(address, IPv4Address):
        for network, what in _INSIDE_V4:
            if address in network:
                return what
        return None if address.is_global else "reserved"
    if address in _NAT64:
        return inside(IPv4Address(int(address) & 0xFFFFFFFF))
    mapped = address.ipv4_mapped
    if mapped is not None:
        return inside(mapped) or "IPv4-mapped"
    for network6, what in _INSIDE_V6:
        if address in network6:
            return what
    if address not in _GLOBAL_V6 or not address.is_global:
        return "reserved"
    return None
