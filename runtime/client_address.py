"""Whose request it is when proxies stand in front, and whom it counts for: one rule for all our listeners."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Who comes through a proxy asks again and again with the same two values.
REMEMBERED = 4_096
# Characters; a client behind three proxies of IPv6 takes half of that.
REMEMBERED_LENGTH = 256
# "192.0.2.1:443" and "[2001:db8::1]:443" as some load balancers write; the port is of no use here.
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
# Whom a limit counts as one: a line's customer has at least that much of IPv6 (RFC 6177), and may use another
# address of it for each connection.
IPV6_PREFIX = 64
_LONGEST = 64  # characters of an address with its port; what is longer is none


def are_networks(values: tuple[str, ...]) -> str | None:
    """Check for ``runtime.settings.setting``: every item is an IP address or a network such as 10.0.0.0/8."""
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            return f"must hold IP addresses or networks ({value!r} is none)"
    return None


class TrustedProxies:
    """The networks of the proxies whose word about the client is believed."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]
        self._client = lru_cache(REMEMBERED)(self._walk)
        self._trusts = lru_cache(REMEMBERED)(self._contains)

    def __repr__(self) -> str:
        return f"<TrustedProxies {', '.join(map(str, self._networks)) or 'none'}>"

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Whether ``address`` is a proxy of ours; False for what is no IP address."""
        return bool(self._networks) and self._trusts(address)

    def client(self, peer: str, forwarded_for: str | None) -> str:
        """The client's own address.

        ``peer`` is whom we are connected with, ``forwarded_for`` the value of X-Forwarded-For (several lines
        joined by commas, in their order), None without one. Each proxy writes whom it heard at the right end,
        so the walk goes leftwards as long as the one who wrote is trusted: what stands left of the first
        address that is not ours was written by the client, and is never looked at. A proxy's word that is no
        address counts as none.
        """
        if forwarded_for is None or not self.trusts(peer):
            return peer
        # What a client wrote itself may be as long as a head: remembered, thousands of those would be much.
        walk = self._client if len(forwarded_for) <= REMEMBERED_LENGTH else self._walk
        return walk(peer, forwarded_for)

    def _walk(self, peer: str, forwarded_for: str) -> str:
        client, rest = peer, forwarded_for
        while rest and self.trusts(client):
            rest, _, written = rest.rpartition(",")
            address = parse_forwarded(written)
            if address is None:
                break
            client = address
        return client

    def _contains(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def parse_forwarded(text: str) -> str | None:
    """The address in one part of X-Forwarded-For, in its usual form; None for what is none."""
    text = text.strip(" \t")
    if len(text) > _LONGEST:
        return None
    with_port = _WITH_PORT.fullmatch(text)
    if with_port is not None:
        text = with_port[1] or with_port[2]
    parsed = _parsed(text)
    return None if parsed is None else str(parsed)


@lru_cache(REMEMBERED)
def group_of(address: str) -> str:
    """Whom an address counts for in every limit: an IPv4 one itself, an IPv6 one its /64."""
    parsed = _parsed(address)
    if parsed is None or parsed.version == 4:
        return address if parsed is None else str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))


def canonical(address: str) -> str:
    """An address of the kernel as it is written elsewhere: ::ffff:192.0.2.1, on a socket for both, is
    192.0.2.1."""
    parsed = _parsed(address)
    return address if parsed is None else str(parsed)


def _parsed(text: str) -> _IPAddress | None:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
