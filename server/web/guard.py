"""Which requests may leave: what `allow` and `deny` make of hosts and their addresses. Pure.

Graphs are made by strangers, and so are the URLs that models and web pages put into variables.
None of them may reach what stands beside this process: other machines of the network, this
machine, the metadata service of a cloud. So the inside is refused unless the operator allows it.

Names are resolved by the caller, and the connection is made to an address that passed here: a name
that changes its answer between the check and the connection gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple, TypeAlias

from server.web.addresses import Address, inside
from server.web.urls import Refused, parse_url

__all__ = ["Guard", "Rules"]

Network: TypeAlias = IPv4Network | IPv6Network

_BY_ADDRESS_ONLY: Final = (
    ipaddress.IPv4Network("169.254.0.0/16"),
    ipaddress.IPv4Network("100.100.100.200/32"),
    ipaddress.IPv4Network("192.0.0.192/32"),
    ipaddress.IPv6Network("fe80::/10"),
    ipaddress.IPv6Network("fd00:ec2::/32"),
)
"""Where clouds answer with credentials: an allowed name does not lead there, an address does."""


class Rules(NamedTuple):
    """The entries of `allow` or `deny`, sorted by what they match."""

    networks: tuple[Network, ...]
    names: frozenset[tuple[str, int | None]]
    """Host and port; None is any port."""
    suffixes: tuple[tuple[str, int | None], ...]
    """What `*.example.org` leaves: ".example.org"."""

    @classmethod
    def of(cls, entries: Iterable[str]) -> Rules:
        """Entries are addresses, networks ("10.0.0.0/8"), hosts ("sandbox", "sandbox:8194",
        "*.example.org") or origins ("http://sandbox:8194"). Raises ValueError."""
        networks: list[Network] = []
        names: set[tuple[str, int | None]] = set()
        suffixes: list[tuple[str, int | None]] = []
        for entry in entries:
            network = _network(entry)
            if network is not None:
                networks.append(network)
                continue
            host, port = _entry_host(entry)
            if host.startswith("*."):
                suffixes.append((host[1:], port))
            else:
                names.add((host, port))
        return cls(tuple(networks), frozenset(names), tuple(suffixes))

    def has_name(self, host: str, port: int) -> bool:
        """Whether an entry names the host."""
        if (host, port) in self.names or (host, None) in self.names:
            return True
        return any(host.endswith(suffix) and only in (None, port) for suffix, only in self.suffixes)

    def has_address(self, address: Address) -> bool:
        """Whether a network among the entries holds it."""
        return any(address in network for network in self.networks)


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry.strip().strip("[]"), strict=False)
    except ValueError:
        return None


def _entry_host(entry: str) -> tuple[str, int | None]:
    """The host and the port of an entry. Raises ValueError."""
    text = entry.strip().lower()
    star = text.startswith("*.")
    try:
        if "://" in text:
            target = parse_url(text)
            return target.host, target.port
        target = parse_url("http://" + text.removeprefix("*."))
    except Refused as error:
        raise ValueError(f"{entry!r} is no host, address, network or origin: {error}") from None
    port = target.port if re.search(r":\d+$", text.rpartition("]")[2]) else None
    return ("*." + target.host if star else target.host), port


class Guard:
    """What `allow` and `deny` make of a host and its addresses. `deny` counts before `allow`."""

    def __init__(
        self,
        allow: Sequence[str] = (),
        deny: Sequence[str] = (),
        *,
        setting: str = "[web] allow",
    ) -> None:
        self._allow = Rules.of(allow)
        self._deny = Rules.of(deny)
        self._setting = setting

    def allows_name(self, host: str, port: int) -> bool:
        """Whether `allow` names it: then it may be inside."""
        return self._allow.has_name(host, port)

    def check_name(self, host: str, port: int) -> None:
        """Raises `Refused` for a host that `deny` names, before it is resolved."""
        if self._deny.has_name(host, port):
            raise Refused(f"{host} is refused by [web] deny")

    def check(
        self, host: str, port: int, addresses: Sequence[str], trusted: bool = False
    ) -> list[str]:
        """The addresses to connect to, if every one of them passes: a name that leads both inside
        and outside is a trap. `trusted` is as good as the host's name in `allow`.

        Raises `Refused`.
        """
        self.check_name(host, port)
        if not addresses:
            raise Refused(f"{host} has no address")
        named = trusted or self.allows_name(host, port)
        for text in addresses:
            self._check_address(host, _address(text), named)
        return list(addresses)

    def _check_address(self, host: str, address: Address, named: bool) -> None:
        if self._deny.has_address(address):
            raise Refused(f"{_through(host, address)} is refused by [web] deny")
        what = inside(address)
        if what is None or self._allow.has_address(address):
            return
        by_address = any(address in network for network in _BY_ADDRESS_ONLY)
        if named and not by_address:
            return
        entry = str(address) if by_address else host
        raise Refused(
            f"{_through(host, address)} is {what}, and requests to the inside are refused; "
            f'if this one is meant, add "{entry}" to {self._setting}'
        )


def _address(text: str) -> Address:
    """An address that a resolver gave; one in disguise is judged as what it is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _through(host: str, address: Address) -> str:
    return host if host == str(address) else f"{host} ({address})"
