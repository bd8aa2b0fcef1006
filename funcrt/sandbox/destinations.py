"""Which addresses a function may connect to, by the `network` of its manifest: a pure decision.

An entry is `outbound`, for every public address, or a host and a port: `10.0.0.5:5432`,
`[fd00::5]:5432`, `api.example.com:443`, `*.example.com:443`.
"""

import ipaddress
from collections.abc import Callable, Iterable

__all__ = ["OUTBOUND", "Address", "Destinations", "address_of", "public"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
OUTBOUND = "outbound"
KEEP_S = 3600.0
"""How long an address that a name had is good: clients keep what they were told."""
MOST_NAMES = 1000
"""Of those that a wildcard stands for."""

_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
]  # fmt: skip
"""What IANA's registries of special-purpose addresses (RFC 6890) do not call globally reachable,
multicast and the reserved; with tunnels (Teredo, 6to4), which can stand for any of these. Not
`is_global`, which tells other things by the release of Python."""
_OWN_CLOUDS = {ipaddress.IPv4Address("168.63.129.16")}
"""Public by their numbers, and yet of the machine's own cloud: Azure's."""


def address_of(text: str) -> Address | None:
    """What a text is the number of, an IPv4 address in IPv6's clothes taken out of them."""
    try:
        return _plain(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def public(address: Address) -> bool:
    """Whether it is one of the internet's, and what a translator's address stands for, too."""
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    return not any(address in network for network in _SPECIAL) and address not in _OWN_CLOUDS


def _nearby(address: Address) -> bool:
    """Of this machine, this link or nobody: never what a name may turn out to be."""
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and address not in _NAT64)
        or address in _OWN_CLOUDS
        or (isinstance(address, ipaddress.IPv6Address) and not public(address)
            and address not in ipaddress.IPv6Network("fc00::/7"))
    )  # fmt: skip


class Destinations:
    """What one function may connect to. `own` says whether an address is this machine's. Where it
    is `near`, a name may stand for this machine, too: it is not the author's to choose."""

    def __init__(
        self, listed: Iterable[str], own: Callable[[Address], bool], *, near: bool = False
    ) -> None:
        self.outbound = False
        self.near = near
        self._own = own
        self._numbers: set[tuple[Address, int]] = set()
        self._names: dict[str, set[int]] = {}
        self._below: dict[str, set[int]] = {}
        self._pinned: dict[str, dict[Address, float]] = {}
        for entry in listed:
            host, _, port = entry.rpartition(":")
            if entry == OUTBOUND:
                self.outbound = True
            elif (number := address_of(host.strip("[]"))) is not None:
                self._numbers.add((number, int(port)))
            elif host.startswith("*."):
                self._below.setdefault(host[1:], set()).add(int(port))
            else:
                self._names.setdefault(host, set()).add(int(port))

    @property
    def named(self) -> bool:
        """Whether there are names among what is listed."""
        return bool(self._names or self._below)

    def ports(self, name: str) -> set[int]:
        """Where a name may be connected to; empty for one that is not listed."""
        found = set(self._names.get(name, ()))
        for suffix, ports in self._below.items():
            if name.endswith(suffix):
                found |= ports
        return found

    def pin(self, name: str, addresses: Iterable[Address], now: float) -> list[Address]:
        """Of what a listed name stands for now, what may be connected to; kept from here on."""
        exact = name in self._names
        good = [each for each in map(_plain, addresses) if self._fit(each, exact)]
        held = self._pinned.setdefault(name, {})
        for old in [each for each, at in held.items() if now - at > KEEP_S]:
            del held[old]
        held.update(dict.fromkeys(good, now))
        if len(self._pinned) > MOST_NAMES:
            del self._pinned[next(iter(self._pinned))]
        return good

    def _fit(self, address: Address, exact: bool) -> bool:
        """Whether a listed name may stand for it."""
        if exact and self.near and address.is_loopback:
            return True
        if not (public(address) or (exact and not _nearby(address))):
            return False
        return (exact and self.near) or not self._own(address)

    def allows(self, address: Address, port: int, now: float) -> bool:
        """Whether a connection may be made."""
        address = _plain(address)
        if (address, port) in self._numbers:
            return True
        if any(
            now - held.get(address, -KEEP_S) < KEEP_S and port in self.ports(name)
            for name, held in self._pinned.items()
        ):
            return True
        return self.outbound and public(address) and not self._own(address)
