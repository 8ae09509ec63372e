"""Who is asking, seen past the proxies that the operator has named.

`X-Forwarded-For` is whatever the last one to write it wanted. So it is read from the right, and only as long
as the one who says it is a proxy of ours; the first that is not is the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from ..common.errors import ConfigError

Network = IPv4Network | IPv6Network
IPV6_CLIENT_BITS: Final = 64
"""One customer has at least so large a net, and would be as many clients as there are addresses in it."""


def networks(named: Sequence[str]) -> tuple[Network, ...]:
    """Read addresses and networks. Raises `ConfigError`."""
    try:
        return tuple(ip_network(name, strict=False) for name in named)
    except ValueError as error:
        raise ConfigError(f"edge.trusted_proxies: {error}") from None


def client_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The client's address, given the connection's peer and the `X-Forwarded-For` headers in order."""
    hops = [hop.strip() for header in forwarded for hop in header.split(",") if hop.strip()]
    found = peer
    while hops and is_trusted(found, trusted):
        hop = _bare(hops.pop())
        if not _is_address(hop):
            break
        found = hop
    return found


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    """Whether this address is one of these proxies."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed.version == network.version and parsed in network for network in trusted)


@lru_cache(4096)
def bucket(address: str) -> str:
    """What is counted together: an IPv4 address, or the network that an IPv6 customer has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, IPV6_CLIENT_BITS), strict=False))
    return str(parsed)


def _is_address(text: str) -> bool:
    try:
        parsed = ip_address(text)
    except ValueError:
        return False
    # A zone may be any text at all, and means nothing on another machine.
    return getattr(parsed, "scope_id", None) is None


def _bare(hop: str) -> str:
    """Without a port, and IPv6 without its brackets."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
