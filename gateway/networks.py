"""Sets of IP networks, and the address that a chain of proxies speaks for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

__all__ = ["Networks", "forwarded_address"]


class Networks:
    """A fixed set of networks: `host in networks` asks whether an address is in one of them.

    Each is an address (`192.0.2.7`, `2001:db8::1`) or a network in CIDR form (`10.0.0.0/8`). Raises ValueError, naming
    the one that is neither, or that has bits set behind its prefix. An IPv4 address that came over IPv6
    (`::ffff:192.0.2.7`) counts as IPv4. A look-up costs as many steps as there are different prefix lengths, however
    many networks there are.
    """

    __slots__ = ("_prefixes",)

    def __init__(self, networks: Iterable[str] = ()) -> None:
        # By IP version and the number of bits behind the prefix: the prefixes, as numbers.
        self._prefixes: dict[int, dict[int, set[int]]] = {}
        for text in networks:
            network = ipaddress.ip_network(text)
            spare = network.max_prefixlen - network.prefixlen
            lengths = self._prefixes.setdefault(network.version, {})
            lengths.setdefault(spare, set()).add(int(network.network_address) >> spare)

    def __contains__(self, host: object) -> bool:
        """Return whether a host, given as text, is in one of the networks; what is no address is in none."""
        if not self._prefixes:
            return False
        try:
            address = ipaddress.ip_address(str(host))
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number = int(address)
        lengths = self._prefixes.get(address.version, {})
        return any(number >> spare in prefixes for spare, prefixes in lengths.items())


def forwarded_address(peer: tuple[str, int], values: Iterable[str], trusted: Networks) -> tuple[str, int]:
    """Return whom a request came from, by the values of its X-Forwarded-For headers: the rightmost untrusted address.

    Each proxy appends whom it heard; what stands further left was said by somebody who is not trusted, so the walk
    from the right ends there, as it does at what is no address. An untrusted peer's headers say nothing at all. The
    port is 0 where the header has none.
    """
    hops = [hop for value in values for hop in value.split(",")]
    address = peer
    while hops and address[0] in trusted:
        hop = _parse_hop(hops.pop())
        if hop is None:
            break
        address = hop
    return address


def _parse_hop(text: str) -> tuple[str, int] | None:
    """Read an address with or without a port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1`, `[2001:db8::1]:80`."""
    host, port = text.strip(), ""
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        return str(ipaddress.ip_address(host)), int(port) if port.isdecimal() and len(port) <= 5 else 0
    except ValueError:
        return None
