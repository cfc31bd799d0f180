"""The address of an MQTT broker as text: ``mqtts://host:port``, or ``mqtt://host:port`` on loopback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from runtime.addresses import is_loopback

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""Of IANA's registry, where the address names none."""


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where a broker is, and whether TLS protects the way."""

    host: str
    port: int
    encrypted: bool


def parse_broker_url(text: str) -> BrokerUrl:
    """ValueError says what it must be."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    extras = not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc
    if extras or parts.scheme not in PORTS or port == 0 or not text.isascii():
        raise ValueError("must be mqtts://host:port (mqtt:// on loopback alone)")
    assert host is not None
    encrypted = parts.scheme == "mqtts"
    if not encrypted and not is_loopback(host):
        raise ValueError("must be mqtts:// unless it is on loopback")
    return BrokerUrl(host, port or PORTS[parts.scheme], encrypted)


def is_broker_url(text: str) -> str | None:
    """Check for ``runtime.settings.setting``: what is wrong with ``text``, or None."""
    try:
        parse_broker_url(text)
    except ValueError as error:
        return str(error)
    return None
