"""``host:port`` text, as it stands in settings and on command lines."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MAX_PORT = 65535  # TCP ports are 16 bits (RFC 9293 section 3.1)


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address; port 0 lets the kernel choose when it is listened on."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse ``host:port`` or ``[v6]:port``; ValueError says what is wrong."""
    host, colon, port_text = text.rpartition(":")
    if not colon or not host:
        raise ValueError("must be host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets: [::1]:80")
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > MAX_PORT:
        raise ValueError(f"port must be 0..{MAX_PORT}")
    return Address(host, int(port_text))


def is_address(text: str) -> str | None:
    """Check for ``runtime.settings.setting``: what is wrong with ``text``, or None."""
    try:
        parse_address(text)
    except ValueError as error:
        return str(error)
    return None


def is_loopback(host: str | None) -> bool:
    """Whether `host` can only be this machine (RFC 6761 for names under localhost)."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
