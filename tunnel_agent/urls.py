"""Which addresses the agent talks to: TLS everywhere, plain text only to this machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit


def is_loopback(host: str) -> bool:
    """True for a loopback address or `localhost`; other names may resolve anywhere and do not count."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def gateway_url_problem(url: str) -> str | None:
    """What is wrong with a gateway's address, or None."""
    return _problem(url, secure="https", plain="http")


def tunnel_url_problem(url: str) -> str | None:
    """What is wrong with a tunnel server's address, or None."""
    return _problem(url, secure="wss", plain="ws")


def _problem(url: str, *, secure: str, plain: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"{url!r} is not an address"
    if parts.scheme not in (secure, plain) or not host or _has_extras(parts) or not url.isascii():
        return f"must be {secure}://host[:port][/path]"
    if parts.scheme == plain and not is_loopback(host):
        return f"must be {secure}:// (plain {plain}:// only to this machine's loopback)"
    return None


def _has_extras(parts: SplitResult) -> bool:
    return bool(parts.username or parts.password or parts.query or parts.fragment)
